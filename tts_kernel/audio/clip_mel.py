"""The mel of one clip after another, as an extraction job needs it: one thread, kept buffers.

Equal to `spectrogram.PowerLogMel` within rounding, which makes these. What costs time is less the arithmetic than
fresh memory: megabytes of it for every clip. So frames are transformed in blocks that stay in the processor's cache,
and each filter is applied to the bins that it covers only. The Fourier transform is torch's, because next to a loud
band the rounding errors of another one show in the logarithm of a quiet band (3e-4); everything else is NumPy's, whose
absolute value of a complex array takes a tenth of the time.
"""

from __future__ import annotations

import numpy as np
import torch

from tts_kernel.audio.wav import Hz

FLOOR = 1e-5  # the references clamp here before the logarithm
BLOCK = 64  # frames at once: window, spectrum and power of a block take half a megabyte
GROUP = 16  # neighbouring filters at once


class ClipMel:
    """Natural log of a power mel spectrogram, clip by clip; centred frames, Hann window of n_fft.

    An instance keeps buffers between calls: use one per thread. A pickled copy starts with its own."""

    def __init__(self, filters: np.ndarray, sample_rate: Hz, hop_length: int) -> None:
        """`filters` (n_mels, n_fft // 2 + 1), n_fft even; `hop_length` in samples."""
        self.filters = np.asarray(filters, dtype=np.float32)
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self.n_mels, bins = self.filters.shape
        self.n_fft = 2 * (bins - 1)
        self._window = torch.hann_window(self.n_fft)
        self._bands = _bands(self.filters)
        self._windowed = torch.empty(BLOCK, self.n_fft)
        self._power = np.empty((BLOCK, bins), dtype=np.float32)
        self._padded = np.empty(0, dtype=np.float32)

    def __reduce__(self) -> tuple[type[ClipMel], tuple[np.ndarray, Hz, int]]:
        return ClipMel, (self.filters, self.sample_rate, self.hop_length)

    def __call__(self, wav: np.ndarray) -> np.ndarray:
        """(samples,) in [-1, 1] -> (samples // hop_length + 1, n_mels) float32.
        Raises ValueError if the clip is too short to be padded by reflection."""
        if wav.ndim != 1 or len(wav) <= self.n_fft // 2:
            raise ValueError(
                f"{wav.shape[-1]} samples are too few for a mel; expected more than {self.n_fft // 2}, drop the clip"
            )
        frames = torch.from_numpy(self._pad(wav)).unfold(0, self.n_fft, self.hop_length)  # a view
        mel = np.empty((len(frames), self.n_mels), dtype=np.float32)
        for start in range(0, len(frames), BLOCK):
            part, rows = frames[start : start + BLOCK], mel[start : start + BLOCK]
            windowed, power = self._windowed[: len(part)], self._power[: len(part)]
            torch.mul(part, self._window, out=windowed)
            np.abs(torch.fft.rfft(windowed).numpy(), out=power)
            np.square(power, out=power)
            for bins, filters, weights in self._bands:
                np.matmul(power[:, bins], weights, out=rows[:, filters])
        np.maximum(mel, FLOOR, out=mel)
        return np.log(mel, out=mel)

    def _pad(self, wav: np.ndarray) -> np.ndarray:
        """`wav` with half a window reflected at both ends, in a buffer that is only made anew when it must grow."""
        edge = self.n_fft // 2
        length = len(wav) + 2 * edge
        if len(self._padded) < length:
            self._padded = np.empty(length + length // 4, dtype=np.float32)
        padded = self._padded[:length]
        padded[edge:-edge] = wav
        padded[:edge] = wav[edge:0:-1]
        padded[-edge:] = wav[-2 : -2 - edge : -1]
        return padded


def _bands(filters: np.ndarray) -> list[tuple[slice, slice, np.ndarray]]:
    """(n_mels, bins) -> for each group of filters the bins that they cover, which they are, their (bins, filters)."""
    bands = []
    for start in range(0, len(filters), GROUP):
        group = filters[start : start + GROUP]
        used = np.flatnonzero(group.any(axis=0))
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        weights = np.ascontiguousarray(group[:, first:last].T)
        bands.append((slice(first, last), slice(start, start + len(group)), weights))
    return bands
