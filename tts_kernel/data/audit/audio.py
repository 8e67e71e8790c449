"""What the samples of one clip tell: is the file whole, how long, how loud, clipped, silent at its ends, and a digest
by which the same sound is found again under another name."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tts_kernel.audio.wav import Hz, Seconds

FRAME: Seconds = 0.01
QUIET_DB = 40.0  # a frame this far below the loudest one is silence
FLOOR_DB = -70.0  # and one below this, whatever the loudest is
SILENT_DB = -80.0  # a clip without any louder frame is digital silence; one step of 16-bit audio is at -90 dB
FULL_SCALE = 0.999
FLAT = 3  # samples in a row at full scale that make a flat top; a normalised peak touches it with one or two


@dataclass(frozen=True)
class Sound:
    """One audio file. Where `status` is not "ok" the numbers stand for what could be read, or are NaN."""

    status: str = "ok"  # ok, missing, unreadable, truncated, not finite, silent
    detail: str = ""
    duration: Seconds = math.nan
    sample_rate: Hz = 0
    channels: int = 0
    level: float = math.nan  # dB below full scale, RMS of the frames that are not silence
    peak: float = math.nan  # 1 is full scale
    clipping: float = math.nan  # share of samples in flat tops at full scale
    lead: Seconds = math.nan  # silence before the first sound
    tail: Seconds = math.nan  # silence after the last one
    digest: str = ""  # of the samples, mono in 16 bit


def listen(path: Path) -> Sound:
    """Decode a file and measure it. Nothing is raised for a bad file: that is what an audit looks for."""
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
        return Sound("unreadable", "empty file") if empty else _decoded(path)
    except (FileNotFoundError, NotADirectoryError):  # now, or when it was opened
        return Sound("missing", "no such file")
    except OSError as error:  # no permission, a loop of links, a name that is too long
        return Sound("unreadable", error.strerror or str(error))


def _decoded(path: Path) -> Sound:
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            rate, promised = file.samplerate, file.frames
            samples = file.read(dtype="float32", always_2d=True)  # (samples, channels)
    except (soundfile.SoundFileError, RuntimeError) as error:
        if _has_header(path):
            return Sound("truncated", f"decoding stopped: {error}")
        return Sound("unreadable", "no format that libsndfile knows")
    if len(samples) == 0:
        return Sound("unreadable", "no samples", sample_rate=rate)
    sound = measure(samples, rate)
    if sound.status in ("ok", "silent") and (missing := _cut_off(path, promised, len(samples))):
        return replace(sound, status="truncated", detail=missing)
    return sound


def measure(samples: np.ndarray, rate: Hz) -> Sound:
    """(samples, channels) in [-1, 1] -> what there is to say about them."""
    duration, channels = len(samples) / rate, samples.shape[1]
    bad = ~np.isfinite(samples)
    if bad.any():
        first = int(np.argmax(bad.any(axis=1)))
        detail = f"{int(bad.sum()):,} samples, the first at {first / rate:.3f} s"
        return Sound("not finite", detail, duration, rate, channels)
    wav = samples.mean(axis=1) if channels > 1 else samples[:, 0]
    level, lead, tail = _loudness(wav, rate)
    whole = np.round(np.clip(wav, -1.0, 1.0) * 32768.0).clip(-32768, 32767).astype("<i2")
    return Sound(
        status="silent" if level < SILENT_DB else "ok",
        detail="" if level >= SILENT_DB else f"nothing above {SILENT_DB:.0f} dB",
        duration=duration,
        sample_rate=rate,
        channels=channels,
        level=level,
        peak=float(np.abs(samples).max()),
        clipping=float(np.mean(_flat_tops(samples))),
        lead=lead,
        tail=tail,
        digest=hashlib.blake2b(whole.tobytes() + str(rate).encode(), digest_size=16).hexdigest(),
    )


def _loudness(wav: np.ndarray, rate: Hz) -> tuple[float, Seconds, Seconds]:
    """(samples,) -> level in dB, silence before and after in seconds; the whole clip before if all of it is silent."""
    size = max(1, round(FRAME * rate))
    count = -(-len(wav) // size)
    power = np.zeros(count * size, dtype=np.float64)
    power[: len(wav)] = np.square(wav, dtype=np.float64)
    filled = np.full(count, size)
    filled[-1] = len(wav) - (count - 1) * size
    frames = power.reshape(count, size).sum(axis=1) / filled
    decibels = 10.0 * np.log10(frames + 1e-20)
    heard = np.flatnonzero(decibels >= max(decibels.max() - QUIET_DB, FLOOR_DB))
    if len(heard) == 0:
        return float(decibels.max()), len(wav) / rate, 0.0
    level = 10.0 * math.log10(float(np.average(frames[heard], weights=filled[heard])) + 1e-20)
    return level, float(heard[0] * size / rate), max(0.0, float(len(wav) - (heard[-1] + 1) * size) / rate)


def _flat_tops(samples: np.ndarray) -> np.ndarray:
    """(samples, channels) -> (samples,) bool: within a run of at least `FLAT` at full scale, in any channel."""
    flat = np.zeros(len(samples), dtype=bool)
    for channel in samples.T:
        high = np.abs(channel) >= FULL_SCALE
        if not high.any():
            continue
        edges = np.flatnonzero(np.diff(np.concatenate(([0], high.view(np.int8), [0]))))
        for start, end in edges.reshape(-1, 2)[np.diff(edges.reshape(-1, 2), axis=1)[:, 0] >= FLAT]:
            flat[start:end] = True
    return flat


def _has_header(path: Path) -> bool:
    """Whether the file begins as audio does, so that what follows has been cut off or damaged."""
    import soundfile

    try:
        return soundfile.info(path).frames > 0
    except (soundfile.SoundFileError, RuntimeError, OSError):
        return False


def _cut_off(path: Path, promised: int, decoded: int) -> str:
    """How much of the file is missing, in words; empty if it is whole, or if its format does not say.

    libsndfile reads a wav to the end that is there without a word, so its header is compared with the file here; an
    ogg's last page must say that it is the last. An mp3 without a header of its own cannot tell."""
    if decoded < 0.99 * promised:
        return f"{decoded:,} of {promised:,} samples"
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(max(0, size - 65_536))
        end = file.read()
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        expected = int.from_bytes(head[4:8], "little") + 8
        if size + 1 < expected < 0xFFFFFFFF:  # a streamed file says 0 or 2^32 - 1; a pad byte may be left out
            return f"{size:,} of {expected:,} bytes"
    if head[:4] == b"OggS":
        last = end.rfind(b"OggS")
        if last >= 0 and len(end) > last + 5 and not end[last + 5] & 0x04:
            return "the last page is missing"
    return ""
