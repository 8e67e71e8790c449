"""How long each token lasts: a distribution to sample from, and a plain prediction.

Source: VITS (arXiv 2106.06103, sections 2.2.2 and 2.5.5: variational dequantisation and augmentation). Both read
the text encoder without teaching it. Settled by parity case synthesizer_small.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, logsigmoid

from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.models.melotts.duration_flows import KERNEL_SIZE, DurationFlow, SeparableConvolutions
from tts_kernel.models.melotts.layers import ChannelNorm

STOCHASTIC_DROPOUT, PLAIN_DROPOUT = 0.5, 0.5
PLAIN_WIDTH = 256  # the same at every size
SHORTEST = 1e-5  # frames, before a logarithm


class StochasticDurationPredictor(nn.Module):
    """A flow that turns log durations into noise, and noise into log durations. A duration is a whole number, so in
    training a learned share of a frame is taken from it, and a second channel accompanies it."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        width = config.hidden_channels
        self.flows, self.post_flows = DurationFlow(width), DurationFlow(width)
        self.post_pre, self.post_proj = nn.Conv1d(1, width, 1), nn.Conv1d(width, width, 1)
        self.post_convs = SeparableConvolutions(width, STOCHASTIC_DROPOUT)
        self.pre, self.proj = nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)
        self.convs = SeparableConvolutions(width, STOCHASTIC_DROPOUT)
        self.cond = nn.Conv1d(config.gin_channels, width, 1)

    def forward(self, hidden: Tensor, mask: Tensor, durations: Tensor, speaker: Tensor, noise: Tensor) -> Tensor:
        """Upper bound of the negative log-likelihood of each row's durations, summed over tokens (batch,). hidden
        (batch, hidden_channels, tokens), mask and durations in frames (batch, 1, tokens), speaker (batch, gin_channels,
        1), normal noise (batch, 2, tokens)."""
        condition = self._condition(hidden, mask, speaker)
        of_durations = self.post_proj(self.post_convs(self.post_pre(durations), mask)) * mask
        noise = noise * mask
        posterior, log_determinant = self.post_flows(noise, mask, condition + of_durations)
        share, companion = posterior.float().chunk(2, dim=1)
        left = (durations - share.sigmoid()) * mask
        log_determinant = log_determinant + ((logsigmoid(share) + logsigmoid(-share)) * mask).sum(dim=(1, 2))
        log_posterior = _log_normal(noise, mask) - log_determinant
        log_left = left.clamp(min=SHORTEST).log() * mask
        z, log_determinant = self.flows(torch.cat([log_left, companion], dim=1), mask, condition)
        log_likelihood = _log_normal(z, mask) + log_determinant - log_left.sum(dim=(1, 2))
        return log_posterior - log_likelihood

    def sample(self, hidden: Tensor, mask: Tensor, speaker: Tensor, noise: Tensor) -> Tensor:
        """Log durations (batch, 1, tokens) from normal noise (batch, 2, tokens), already scaled."""
        condition = self._condition(hidden, mask, speaker)
        return self.flows.inverse(noise, mask, condition)[:, :1]

    def _condition(self, hidden: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        hidden = self.pre(hidden.detach()) + self.cond(speaker.detach())
        return self.proj(self.convs(hidden, mask)) * mask


def _log_normal(z: Tensor, mask: Tensor) -> Tensor:
    """Log density of the standard normal distribution, summed over real positions: (batch, channels, n) -> (batch,)."""
    return (-0.5 * (math.log(2.0 * math.pi) + z.square()) * mask).sum(dim=(1, 2))


class DurationPredictor(nn.Module):
    """One log duration per token."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        width = config.hidden_channels
        self.conv_1 = nn.Conv1d(width, PLAIN_WIDTH, KERNEL_SIZE, padding=KERNEL_SIZE // 2)
        self.norm_1 = ChannelNorm(PLAIN_WIDTH)
        self.conv_2 = nn.Conv1d(PLAIN_WIDTH, PLAIN_WIDTH, KERNEL_SIZE, padding=KERNEL_SIZE // 2)
        self.norm_2 = ChannelNorm(PLAIN_WIDTH)
        self.proj = nn.Conv1d(PLAIN_WIDTH, 1, 1)
        self.cond = nn.Conv1d(config.gin_channels, width, 1)

    def forward(self, hidden: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        """hidden (batch, hidden_channels, tokens), speaker (batch, gin_channels, 1) -> (batch, 1, tokens)."""
        x = hidden.detach() + self.cond(speaker.detach())
        for conv, norm in ((self.conv_1, self.norm_1), (self.conv_2, self.norm_2)):
            x = dropout(norm(conv(x * mask).relu()), PLAIN_DROPOUT, self.training)
        return self.proj(x * mask) * mask
