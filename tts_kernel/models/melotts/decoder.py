"""Latent frames -> waveform.

Source: HiFi-GAN (arXiv 2010.05646, sections 2.2 and appendix A.1, generator V1 with other rates), with a speaker vector
as in VITS. Settled by parity case synthesizer_small.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.models.melotts.layers import Normed

SLOPE, LAST_SLOPE = 0.1, 0.01  # of the leaky ReLUs; the one before the last convolution differs


def small(conv: nn.Conv1d | nn.ConvTranspose1d) -> Normed:
    """Under weight norm, with the small weights that HiFi-GAN starts from."""
    nn.init.normal_(conv.weight, std=0.01)
    return Normed(conv)


class Decoder(nn.Module):
    """(batch, inter_channels, frames) -> (batch, 1, frames * samples_per_frame) in [-1, 1]."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.blocks_per_stage = len(config.resblock_kernel_sizes)
        channels = config.upsample_initial_channel
        self.conv_pre = nn.Conv1d(config.inter_channels, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel_size in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            up = nn.ConvTranspose1d(channels, channels // 2, kernel_size, rate, padding=(kernel_size - rate) // 2)
            self.ups.append(small(up))
            channels //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(ResidualBlock(channels, size, dilations))
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3, bias=False)
        self.cond = nn.Conv1d(config.gin_channels, config.upsample_initial_channel, 1)

    def forward(self, z: Tensor, speaker: Tensor) -> Tensor:
        """z (batch, inter_channels, frames), speaker (batch, gin_channels, 1)."""
        hidden = self.conv_pre(z) + self.cond(speaker)
        for stage, up in enumerate(self.ups):
            hidden = up(leaky_relu(hidden, SLOPE))
            first = stage * self.blocks_per_stage
            said = [block(hidden) for block in self.resblocks[first : first + self.blocks_per_stage]]
            hidden = sum(said[1:], start=said[0]) / self.blocks_per_stage
        return self.conv_post(leaky_relu(hidden, LAST_SLOPE)).tanh()


class ResidualBlock(nn.Module):
    """Pairs of convolutions, the first of each dilated; every pair is added to its input."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def conv(dilation: int) -> Normed:
            padding = dilation * (kernel_size - 1) // 2
            return small(nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding))

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(leaky_relu(dilated(leaky_relu(x, SLOPE)), SLOPE))
        return x
