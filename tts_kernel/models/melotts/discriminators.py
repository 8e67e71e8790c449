"""The discriminators: of waveforms, by scale and by periods, and of durations.

Sources: HiFi-GAN (arXiv 2010.05646, section 2.3) for the periods, MelGAN (arXiv 1910.06711) for the scale, VITS2
(arXiv 2307.16430, section 2.1) for the durations. Settled by parity case discriminators_small.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu, pad

from tts_kernel.models.melotts.config import DurationDiscriminatorConfig
from tts_kernel.models.melotts.layers import ChannelNorm, Normed

PERIODS = (2, 3, 5, 7, 11)  # samples
SLOPE = 0.1


class Judgement(NamedTuple):
    """What one discriminator says about a batch, and how it came to it."""

    logits: Tensor  # (batch, n): near one for a recording, near zero for a synthetic voice
    maps: list[Tensor]  # every layer's output, the logits' one last


class MultiPeriodDiscriminator(nn.Module):
    def __init__(self, narrow: int = 1) -> None:
        """With `narrow`, every layer has that part of the published width: for a demo and tests."""
        super().__init__()
        by_period = [PeriodDiscriminator(period, narrow) for period in PERIODS]
        self.discriminators = nn.ModuleList([ScaleDiscriminator(narrow), *by_period])

    def forward(self, wave: Tensor) -> list[Judgement]:
        """(batch, 1, samples) -> one judgement per discriminator. Recordings and synthetic voices may stand in one
        batch, which is quicker than two; `halves` parts what was said."""
        return [discriminator(wave) for discriminator in self.discriminators]


def halves(judgements: list[Judgement]) -> tuple[list[Judgement], list[Judgement]]:
    """What was said about the first and about the second half of a batch."""
    first, second = [], []
    for logits, maps in judgements:
        parts = [value.chunk(2) for value in maps]
        first.append(Judgement(logits.chunk(2)[0], [part[0] for part in parts]))
        second.append(Judgement(logits.chunk(2)[1], [part[1] for part in parts]))
    return first, second


class ScaleDiscriminator(nn.Module):
    """Looks at the waveform as it is."""

    def __init__(self, narrow: int = 1) -> None:
        super().__init__()
        first, *_, last = widths = [width // narrow for width in (16, 64, 256, 1024, 1024)]
        layers = [nn.Conv1d(1, first, 15, padding=7)]
        for inputs, outputs, groups in zip(widths, widths[1:], (4, 16, 64, 256), strict=False):
            layers.append(nn.Conv1d(inputs, outputs, 41, 4, groups=gcd(groups, inputs), padding=20))
        layers.append(nn.Conv1d(last, last, 5, padding=2))
        self.convs = nn.ModuleList(map(Normed, layers))
        self.conv_post = Normed(nn.Conv1d(last, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> Judgement:
        return _judge(wave, self.convs, self.conv_post)


class PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample: the waveform in rows of `period`, convolved along its columns."""

    def __init__(self, period: int, narrow: int = 1) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(width // narrow for width in (32, 128, 512, 1024, 1024))]
        self.convs = nn.ModuleList(
            Normed(nn.Conv2d(inputs, outputs, (5, 1), (stride, 1), padding=(2, 0)))
            for inputs, outputs, stride in zip(widths, widths[1:], (3, 3, 3, 3, 1), strict=False)
        )
        self.conv_post = Normed(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Tensor) -> Judgement:
        wave = pad(wave, (0, -wave.shape[-1] % self.period), mode="reflect")
        return _judge(wave.unflatten(-1, (-1, self.period)), self.convs, self.conv_post)


def _judge(hidden: Tensor, convs: nn.ModuleList, last: nn.Module) -> Judgement:
    maps = []
    for conv in convs:
        hidden = leaky_relu(conv(hidden), SLOPE)
        maps.append(hidden)
    maps.append(last(hidden))
    return Judgement(maps[-1].flatten(1), maps)


class DurationDiscriminator(nn.Module):
    """Whether the log durations of a text's tokens are those of a recording."""

    def __init__(self, config: DurationDiscriminatorConfig) -> None:
        super().__init__()
        self.drop = config.p_dropout
        width, size = config.filter_channels, config.kernel_size

        def conv(channels: int) -> nn.Conv1d:
            return nn.Conv1d(channels, width, size, padding=size // 2)

        self.conv_1, self.norm_1 = conv(config.in_channels), ChannelNorm(width)
        self.conv_2, self.norm_2 = conv(width), ChannelNorm(width)
        self.dur_proj = nn.Conv1d(1, width, 1)
        self.pre_out_conv_1, self.pre_out_norm_1 = conv(2 * width), ChannelNorm(width)
        self.pre_out_conv_2, self.pre_out_norm_2 = conv(width), ChannelNorm(width)
        self.cond = nn.Conv1d(config.gin_channels, config.in_channels, 1)
        self.output_layer = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid())

    def forward(
        self, hidden: Tensor, mask: Tensor, recorded: Tensor, predicted: Tensor, speaker: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Probabilities (batch, tokens, 1) that the recorded and the predicted log durations (batch, 1, tokens) are
        recorded ones. The text encoder's hidden (batch, in_channels, tokens) and the speaker (batch, gin_channels, 1)
        learn nothing from it. mask (batch, 1, tokens); what is said about padding means nothing."""
        x = hidden.detach()
        if speaker is not None:
            x = x + self.cond(speaker.detach())
        x = self._layers(x, mask, (self.conv_1, self.norm_1), (self.conv_2, self.norm_2))
        return self._probability(x, mask, recorded), self._probability(x, mask, predicted)

    def _probability(self, x: Tensor, mask: Tensor, log_durations: Tensor) -> Tensor:
        both = torch.cat([x, self.dur_proj(log_durations)], dim=1)
        first, second = (self.pre_out_conv_1, self.pre_out_norm_1), (self.pre_out_conv_2, self.pre_out_norm_2)
        return self.output_layer((self._layers(both, mask, first, second) * mask).transpose(1, 2))

    def _layers(self, x: Tensor, mask: Tensor, *layers: tuple[nn.Conv1d, ChannelNorm]) -> Tensor:
        for conv, norm in layers:
            x = dropout(norm(conv(x * mask).relu()), self.drop, self.training)
        return x
