"""CosyVoice2's mel -> waveform without a trained vocoder: rough, for models whose mels no published vocoder was made
for, the demo's above all.

Sources: Griffin and Lim 1984 for the iteration, Perraudin et al. 2013 (WASPAA) for its momentum; Lee and Seung 2000 for
magnitudes that are never negative.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from tts_kernel.audio.spectrogram import cosyvoice2_mel

ITERATIONS, MOMENTUM = 32, 0.99
LIMIT = 0.99  # of the waveform, as HiFT's


class GriffinLim(nn.Module):
    """Phases that agree with the magnitudes, found from random ones."""

    filters: Tensor  # (n_mels, n_fft // 2 + 1)
    window: Tensor  # (n_fft,)

    def __init__(self, iterations: int = ITERATIONS) -> None:
        super().__init__()
        mel = cosyvoice2_mel()
        self.iterations = iterations
        self.sample_rate, self.n_mels, self.n_fft, self.hop = mel.sample_rate, mel.n_mels, mel.n_fft, mel.hop_length
        self.register_buffer("filters", mel.filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    @torch.inference_mode()
    def forward(self, mel: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """mel (1, n_mels, frames) of two frames at least -> (frames * hop,). The generator, the CPU's, draws the first
        phases."""
        magnitude = self.magnitude(mel[0].exp())
        phase = 2 * torch.pi * torch.rand(magnitude.shape, generator=generator).to(magnitude.device)
        spectrum = before = torch.polar(magnitude, phase)
        for _ in range(self.iterations):
            agreed = self._stft(self._istft(spectrum))
            ahead = agreed + MOMENTUM * (agreed - before)
            spectrum, before = magnitude * ahead / ahead.abs().clamp(min=1e-9), agreed
        wave = self._istft(spectrum)
        return pad(wave, (self.hop // 2, self.hop - self.hop // 2)).clamp(-LIMIT, LIMIT)

    def magnitude(self, bands: Tensor) -> Tensor:
        """(n_mels, frames), not logarithmic -> (n_fft // 2 + 1, frames), from which the filters make these bands."""
        magnitude = wanted = self.filters.T @ bands
        for _ in range(self.iterations):
            magnitude = magnitude * wanted / (self.filters.T @ (self.filters @ magnitude)).clamp(min=1e-12)
        return magnitude

    def _istft(self, spectrum: Tensor) -> Tensor:
        """(n_fft // 2 + 1, frames) -> ((frames - 1) * hop,): from the middle of the first frame to that of the last,
        which lie half a hop from the ends of what the mel covers."""
        return torch.istft(spectrum, self.n_fft, self.hop, window=self.window)

    def _stft(self, wave: Tensor) -> Tensor:
        return torch.stft(wave, self.n_fft, self.hop, window=self.window, pad_mode="constant", return_complex=True)
