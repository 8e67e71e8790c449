"""Audio files: any format that libsndfile reads -> mono float32; 16-bit wav out; resampling."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

Hz = int
Seconds = float


class AudioError(ValueError):
    """An audio file that cannot be used; the message names the file and says why."""


def read(path: Path, sample_rate: Hz | None = None) -> tuple[np.ndarray, Hz]:
    """Read wav, flac, mp3 or ogg as (samples,) mono float32 in [-1, 1], and its rate in Hz.

    Channels are averaged. With `sample_rate` the signal is resampled to it. Values beyond full scale (float files,
    mp3 overshoot) are cut at it.
    Raises FileNotFoundError if there is no such file, AudioError if it is unreadable, empty or not finite.
    """
    import soundfile  # loads libsndfile: only where a file is touched

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such audio file; check the audio paths of the manifest")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (samples, channels)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"{path}: not readable as audio ({error}); expected wav, flac, mp3 or ogg") from error
    if len(samples) == 0:
        raise AudioError(f"{path}: holds no samples; remove the clip or fetch it again")
    wav = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not np.isfinite(wav).all():
        raise AudioError(f"{path}: holds NaN or infinite samples; decode the clip again")
    if sample_rate is not None:
        wav, rate = resample(wav, rate, sample_rate), sample_rate
    return np.clip(wav, -1.0, 1.0).astype(np.float32, copy=False), rate


def write(path: Path, wav: np.ndarray, sample_rate: Hz) -> None:
    """Write (samples,) in [-1, 1] as 16-bit wav, through a temporary file so that no half-written clip is ever seen.

    Raises AudioError if the signal is not one-dimensional, is empty, not finite or beyond full scale."""
    import soundfile

    path = Path(path)
    wav = np.asarray(wav)
    if wav.ndim != 1 or len(wav) == 0:
        raise AudioError(f"{path}: shape {wav.shape} cannot be written; expected (samples,) with at least one")
    peak = float(np.abs(wav).max())
    if not peak <= 1.0:  # catches NaN too
        raise AudioError(
            f"{path}: peak {peak:.3g} is beyond full scale and would clip; expected [-1, 1], scale it first"
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        soundfile.write(temporary, wav, sample_rate, format="WAV", subtype="PCM_16")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def resample(wav: np.ndarray, from_rate: Hz, to_rate: Hz) -> np.ndarray:
    """(samples,) at `from_rate` -> (samples * to_rate / from_rate,) float32 by soxr HQ; unchanged if rates agree."""
    if from_rate == to_rate:
        return wav
    import soxr

    return soxr.resample(wav, from_rate, to_rate, quality="HQ").astype(np.float32, copy=False)
