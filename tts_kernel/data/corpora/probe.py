"""Durations and sample rates from the headers of audio files, in threads; and whether they are audio at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

_PART = 256  # files per task


@dataclass(frozen=True)
class Headers:
    """What the headers of some files say, in the files' order."""

    seconds: np.ndarray  # (files,) float64, NaN where unreadable
    rates: np.ndarray  # (files,) int32 Hz, 0 where unreadable
    problems: dict[int, str]  # place of an unreadable file -> why


def probe(paths: Sequence[Path], workers: int | None = None) -> Headers:
    """Open every file and read its header. libsndfile looks at the content, so a wrong suffix does no harm; a file
    that is no audio, or has no samples, is a problem, not an error."""
    seconds, rates = np.full(len(paths), np.nan), np.zeros(len(paths), dtype=np.int32)
    problems: dict[int, str] = {}
    workers = workers or min(16, 4 * (os.cpu_count() or 1))

    def part(start: int) -> int:
        for place in range(start, min(start + _PART, len(paths))):
            seconds[place], rates[place], why = _header(paths[place])
            if why:
                problems[place] = why
        return min(_PART, len(paths) - start)

    starts = range(0, len(paths), _PART)
    hidden = True if len(paths) < 10_000 else None  # None: hidden where there is no terminal
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(paths), desc="headers", disable=hidden) as bar:
        for done in pool.map(part, starts):
            bar.update(done)
    return Headers(seconds, rates, dict(sorted(problems.items())))


def _header(path: Path) -> tuple[float, int, str]:
    import soundfile  # loads libsndfile: only where a file is touched

    try:
        if path.stat().st_size == 0:
            return np.nan, 0, "zero bytes"
        info = soundfile.info(str(path))
    except OSError as error:
        return np.nan, 0, error.strerror or str(error)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:  # TypeError: a .raw file, which has no header
        return np.nan, 0, str(error).removeprefix(f"Error opening {str(path)!r}: ")
    if info.frames <= 0:
        return np.nan, 0, "no samples"
    return info.frames / info.samplerate, info.samplerate, ""
