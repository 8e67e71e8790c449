"""What there is to know of recordings before a batch is made of them: measured once, kept by path, size and time."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from tts_kernel.audio.wav import AudioError, Hz, Resampler, read
from tts_kernel.runs import write_atomically

RATE: Hz = 44_100
FORMAT = 2  # of what is remembered
_OWN = threading.local()  # a resampler of each thread


@dataclass(frozen=True)
class Sound:
    """One recording as training hears it."""

    samples: int  # at 44.1 kHz
    rate: Hz  # of the file
    channels: int  # of the file
    peak: float  # largest magnitude, full scale is 1
    digest: str  # of the waveform at 44.1 kHz, see `digest_of`


def waveform(path: Path) -> np.ndarray:
    """(samples,) float32 at 44.1 kHz, channels averaged. Raises FileNotFoundError and AudioError, as `wav.read`."""
    if not hasattr(_OWN, "resampler"):
        _OWN.resampler = Resampler(RATE)
    return read(path, resampler=_OWN.resampler)[0]


def digest_of(wave: np.ndarray) -> str:
    """Tells any two waveforms (samples,) apart: SHA-256 of their values."""
    return hashlib.sha256(np.ascontiguousarray(wave).data).hexdigest()


def measure(paths: Sequence[Path], known: Path, *, threads: int = 2, progress: bool = True) -> list[Sound | str]:
    """Each recording's measures, or why it cannot be read. `known` is a JSON file that remembers them for files of the
    same size and time; it is made where there is none."""
    remembered: dict[str, list[object]] = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    stamps = [_stamp(path) for path in paths]
    new = [
        number
        for number, (path, stamp) in enumerate(zip(paths, stamps, strict=True))
        if remembered.get(str(path), [None])[0] != stamp
    ]
    found: dict[int, Sound | str] = {}
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(new), desc="recordings", unit="clip", disable=not (progress and new)) as bar,
    ):
        for number, sound in zip(new, pool.map(lambda number: _measured(paths[number]), new), strict=True):
            found[number] = sound
            bar.update()
    for number, sound in found.items():
        if isinstance(sound, Sound):
            remembered[str(paths[number])] = [stamps[number], asdict(sound)]
    if found:
        known.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(known, json.dumps(remembered) + "\n")
    return [
        found[number] if number in found else Sound(**remembered[str(path)][1])  # type: ignore[arg-type]
        for number, path in enumerate(paths)
    ]


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:  # reading it says what is wrong
        return []
    return [FORMAT, status.st_size, status.st_mtime_ns]


def _measured(path: Path) -> Sound | str:
    import soundfile

    try:
        wav = waveform(path)
        info = soundfile.info(str(path))
    except (FileNotFoundError, AudioError) as error:
        return str(error)
    return Sound(len(wav), info.samplerate, info.channels, float(np.abs(wav).max(initial=0.0)), digest_of(wav))
