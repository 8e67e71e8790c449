"""A linear spectrogram -> the posterior distribution of its latent frames.

Sources: VITS (arXiv 2106.06103, section 2.5.1), WaveNet (arXiv 1609.03499) for the gated layers. Settled by parity case
synthesizer_small.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.models.melotts.layers import Normed

KERNEL_SIZE, LAYERS = 5, 16  # the same at every size; no dilation


class Posterior(NamedTuple):
    """(batch, inter_channels, frames) each, zero on padding."""

    sample: Tensor
    mean: Tensor
    log_deviation: Tensor


class PosteriorEncoder(nn.Module):
    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.pre = nn.Conv1d(config.spec_channels, config.hidden_channels, 1)
        self.enc = GatedLayers(config.hidden_channels, config.gin_channels)
        self.proj = nn.Conv1d(config.hidden_channels, 2 * config.inter_channels, 1)

    def forward(self, spectrogram: Tensor, mask: Tensor, speaker: Tensor, noise: Tensor) -> Posterior:
        """(batch, spec_channels, frames), (batch, 1, frames), (batch, gin_channels, 1), normal noise like a sample."""
        hidden = self.enc(self.pre(spectrogram) * mask, mask, speaker)
        mean, log_deviation = (self.proj(hidden) * mask).chunk(2, dim=1)
        return Posterior((mean + noise * log_deviation.exp()) * mask, mean, log_deviation)


class GatedLayers(nn.Module):
    """Convolutions through tanh times sigmoid. Each layer adds half of its output to the next one's input and half to
    the result; the last one has the result only."""

    def __init__(self, channels: int, speaker: int) -> None:
        super().__init__()
        self.cond_layer = Normed(nn.Conv1d(speaker, 2 * channels * LAYERS, 1))
        self.in_layers = nn.ModuleList(
            Normed(nn.Conv1d(channels, 2 * channels, KERNEL_SIZE, padding=KERNEL_SIZE // 2)) for _ in range(LAYERS)
        )
        self.res_skip_layers = nn.ModuleList(
            Normed(nn.Conv1d(channels, channels if layer == LAYERS - 1 else 2 * channels, 1)) for layer in range(LAYERS)
        )

    def forward(self, x: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        """(batch, channels, n), (batch, 1, n), (batch, size, 1) -> (batch, channels, n), zero on padding."""
        result = torch.zeros_like(x)
        said = self.cond_layer(speaker).chunk(LAYERS, dim=1)
        for layer, (conv, split, speaker_part) in enumerate(
            zip(self.in_layers, self.res_skip_layers, said, strict=True)
        ):
            shape, gate = (conv(x) + speaker_part).chunk(2, dim=1)
            output = split(shape.tanh() * gate.sigmoid())
            if layer == LAYERS - 1:
                return (result + output) * mask
            residual, skipped = output.chunk(2, dim=1)
            x, result = (x + residual) * mask, result + skipped
        raise AssertionError("the last layer returns")
