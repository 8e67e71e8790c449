"""Audio files: any format that libsndfile reads -> mono float32; 16-bit wav out; resampling."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

Hz = int
Seconds = float

KEPT_RATES = 8  # a corpus of more rates than these is rare, and a filter costs a third of a millisecond


class AudioError(ValueError):
    """An audio file that cannot be used; the message names the file and says why."""


class Resampler:
    """Signals of any rate to one rate by soxr HQ; keeps the filters of the rates it has met. One per thread."""

    def __init__(self, sample_rate: Hz) -> None:
        self.sample_rate = sample_rate
        self._streams: dict[Hz, Any] = {}

    def __call__(self, wav: np.ndarray, from_rate: Hz) -> np.ndarray:
        """(samples,) float32 at `from_rate` -> (samples * sample_rate / from_rate,) float32; as `resample`."""
        if from_rate == self.sample_rate:
            return wav
        if from_rate not in self._streams:
            import soxr

            if len(self._streams) == KEPT_RATES:
                self._streams.pop(next(iter(self._streams)))
            self._streams[from_rate] = soxr.ResampleStream(
                from_rate, self.sample_rate, num_channels=1, dtype="float32", quality="HQ"
            )
        stream = self._streams[from_rate]
        stream.clear()
        return stream.resample_chunk(wav, last=True)


def read(path: Path, sample_rate: Hz | None = None, resampler: Resampler | None = None) -> tuple[np.ndarray, Hz]:
    """Read wav, flac, mp3 or ogg as (samples,) mono float32 in [-1, 1], and its rate in Hz.

    Channels are averaged. With `sample_rate` the signal is resampled to it, or with a `resampler` to its rate: the
    same, and quicker for many clips. Values beyond full scale (float files, mp3 overshoot) are cut at it.
    Raises FileNotFoundError if there is no such file, AudioError if it is unreadable, empty or not finite.
    """
    import soundfile  # loads libsndfile: only where a file is touched

    path = Path(path)
    _check_file(path)
    try:
        samples, rate = soundfile.read(os.fsencode(path), dtype="float32", always_2d=True)  # (samples, channels)
    except FileNotFoundError as error:
        raise _absent(path) from error
    except MemoryError as error:  # its header says so
        raise AudioError(f"{path}: claims more samples than fit into memory ({error}); fetch the clip again") from error
    except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
        if not path.exists():
            raise _absent(path) from error
        raise AudioError(f"{path}: not readable as audio ({_said(error)}); expected wav, flac, mp3 or ogg") from error
    if len(samples) == 0:
        raise AudioError(f"{path}: holds no samples; remove the clip or fetch it again")
    wav = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not np.isfinite(wav).all():
        raise AudioError(f"{path}: holds NaN or infinite samples; decode the clip again")
    if sample_rate is not None or resampler is not None:
        resampler = resampler or Resampler(sample_rate or rate)
        wav, rate = resampler(wav, rate), resampler.sample_rate
    if wav.size and max(wav.max(), -wav.min()) > 1.0:
        wav = wav.clip(-1.0, 1.0)
    return wav.astype(np.float32, copy=False), rate


def _check_file(path: Path) -> None:
    """Raises FileNotFoundError or AudioError for what libsndfile would report without saying why."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise _absent(path) from None
    except OSError as error:  # symbolic links in a circle, a folder that may not be entered, a name too long
        raise AudioError(f"{path}: cannot be opened ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{path}: is no file; expected wav, flac, mp3 or ogg")
    if status.st_size == 0:
        raise AudioError(f"{path}: is empty (0 bytes); fetch the clip again")
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":  # libsndfile reads to the end that is there without a word
        promised = int.from_bytes(head[4:8], "little") + 8
        if status.st_size + 1 < promised < 0xFFFFFFFF:  # a streamed file says 0 or 2^32 - 1; a pad byte may be left out
            raise AudioError(f"{path}: cut off, {status.st_size:,} of {promised:,} bytes; fetch the clip again")
    if path.suffix.lower() == ".raw":
        raise AudioError(f"{path}: raw samples do not say their rate; expected wav, flac, mp3 or ogg")


def _said(error: Exception) -> str:
    """libsndfile's reason without the path; for what it does not know it says that there is no regular file."""
    reason = str(getattr(error, "error_string", error)).strip(" .")
    return "no format that is known" if "does not exist or is not a regular file" in reason else reason


def _absent(path: Path) -> FileNotFoundError:
    return FileNotFoundError(f"{path}: no such audio file; check the audio paths of the manifest")


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


def resample_sinc(wav: np.ndarray, from_rate: Hz, to_rate: Hz) -> np.ndarray:
    """(samples,) -> (ceil(samples * to_rate / from_rate),) float32 by torchaudio's windowed sinc, which is what
    CosyVoice2's speech tokenizer and speaker encoder were fed with (parity case features)."""
    if from_rate == to_rate:
        return wav
    import torch
    from torchaudio.functional import resample as by_sinc

    return by_sinc(torch.from_numpy(np.ascontiguousarray(wav)), from_rate, to_rate).numpy()
