"""What the vocoder's filter is excited with: the pitch of a mel, and sines at its harmonics beside noise.

Source: Wang et al. 2019 (arXiv 1904.12088), section 3.1, as in HiFTNet (arXiv 2309.09493). Settled by parity case
hift_small, which also shows that the reference's random phases and its second noise have no effect; so both are left
out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.parametrizations import weight_norm

from tts_kernel.models.cosyvoice2.config import HiftConfig


class F0Predictor(nn.Module):
    """Mel -> pitch in Hz per frame."""

    def __init__(self, n_mels: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (n_mels, *4 * [channels]):
            layers += [weight_norm(nn.Conv1d(inputs, channels, 3, padding=1)), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """(batch, n_mels, frames) -> (batch, frames), never negative."""
        return self.classifier(self.condnet(mel).transpose(1, 2))[..., 0].abs()


def sines(f0: Tensor, samples_per_frame: int, harmonics: int, sample_rate: int) -> Tensor:
    """Pitch in Hz (batch, frames) -> sines of the fundamental and its harmonics (batch, samples, harmonics).

    The phase is summed frame by frame in float32, as the reference does: after ten seconds the highest harmonic is two
    hundredths of a radian off the truth, the same ones in both."""
    multiples = torch.arange(1, harmonics + 1, device=f0.device, dtype=f0.dtype)
    turns = (f0[..., None] * multiples / sample_rate) % 1.0  # per sample, (batch, frames, harmonics)
    phase = turns.cumsum(dim=1) * (2.0 * math.pi) * samples_per_frame
    smooth = interpolate(phase.transpose(1, 2), scale_factor=float(samples_per_frame), mode="linear")
    return smooth.transpose(1, 2).sin()


class HarmonicSource(nn.Module):
    """Pitch -> excitation: sines where voiced, noise everywhere, mixed into one signal."""

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        self.l_linear = nn.Linear(config.nb_harmonics + 1, 1)

    def noise_like(self, f0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normal noise (batch, samples, nb_harmonics + 1) for a pitch (batch, frames). The generator is the CPU's."""
        batch, frames = f0.shape
        shape = (batch, frames * self.config.samples_per_frame, self.config.nb_harmonics + 1)
        return torch.randn(shape, generator=generator).to(f0.device, f0.dtype)

    def forward(self, f0: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """f0 in Hz (batch, frames), noise from `noise_like` -> source (batch, 1, samples) in (-1, 1) and whether each
        sample is voiced (batch, 1, samples)."""
        config = self.config
        with torch.autocast(f0.device.type, enabled=False):  # a phase of thousands of radians needs all digits
            waves = sines(f0.float(), config.samples_per_frame, config.nb_harmonics + 1, config.sampling_rate)
        voiced = (f0 > config.nsf_voiced_threshold).to(f0.dtype).repeat_interleave(config.samples_per_frame, dim=1)
        voiced = voiced[..., None]
        loudness = voiced * config.nsf_sigma + (1.0 - voiced) * config.nsf_alpha / 3.0  # of the noise
        excited = config.nsf_alpha * waves.to(f0.dtype) * voiced + loudness * noise
        source = torch.tanh(self.l_linear(excited))
        return source.transpose(1, 2), voiced.transpose(1, 2)
