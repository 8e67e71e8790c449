"""The transformer with relative positions that reads text and that couples the flow.

Sources: VITS (arXiv 2106.06103, section 2.5.2) and Shaw et al. 2018 (arXiv 1803.02155) for relative positions in keys
and values, VITS2 (arXiv 2307.16430) for the speaker vector inside.
Settled by parity case synthesizer_small.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from tts_kernel.models.melotts.layers import ChannelNorm

WINDOW = 4  # positions to each side that have a vector of their own
SPEAKER_LAYER = 2  # the speaker vector is added to what enters this layer


class RelativeTransformer(nn.Module):
    """Layers of attention and convolutional feed-forward, each added to its input and then normalised."""

    def __init__(
        self, channels: int, filter_channels: int, heads: int, layers: int, kernel_size: int, drop: float, speaker: int
    ) -> None:
        super().__init__()
        self.drop = drop
        self.spk_emb_linear = nn.Linear(speaker, channels)
        self.attn_layers = nn.ModuleList(RelativeAttention(channels, heads, drop) for _ in range(layers))
        self.norm_layers_1 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(
            FeedForward(channels, filter_channels, kernel_size, drop) for _ in range(layers)
        )
        self.norm_layers_2 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        """x (batch, channels, n), mask (batch, 1, n), speaker (batch, size, 1) -> x's shape, zero on padding."""
        x = x * mask
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for index, (attend, norm, feed_forward, second_norm) in enumerate(layers):
            if index == SPEAKER_LAYER:
                x = (x + self.spk_emb_linear(speaker.transpose(1, 2)).transpose(1, 2)) * mask
            x = norm(x + dropout(attend(x, mask), self.drop, self.training))
            x = second_norm(x + dropout(feed_forward(x, mask), self.drop, self.training))
        return x * mask


class RelativeAttention(nn.Module):
    """Self-attention whose scores and values also depend on how far two positions lie apart, up to `WINDOW`."""

    def __init__(self, channels: int, heads: int, drop: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, drop
        size = channels // heads
        # One table for all heads, from WINDOW positions before to WINDOW behind.
        self.emb_rel_k, self.emb_rel_v = (
            nn.Parameter(torch.randn(1, 2 * WINDOW + 1, size) * size**-0.5) for _ in range(2)
        )
        self.conv_q, self.conv_k, self.conv_v, self.conv_o = (nn.Conv1d(channels, channels, 1) for _ in range(4))
        for conv in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(conv.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, channels, n), (batch, 1, n) -> (batch, channels, n)."""
        query, key, value = (
            conv(x).unflatten(1, (self.heads, -1)).transpose(2, 3) for conv in (self.conv_q, self.conv_k, self.conv_v)
        )  # (batch, heads, n, size)
        query = query * query.shape[-1] ** -0.5
        places, real = neighbours(x.shape[2], x.device)
        places = places.expand(*query.shape[:2], -1, -1)
        near = query @ self.emb_rel_k.transpose(1, 2) * real
        scores = (query @ key.transpose(2, 3)).scatter_add(3, places, near)
        weights = scores.masked_fill(~mask[:, None], -math.inf).softmax(dim=-1).to(value.dtype)
        weights = dropout(weights, self.drop, self.training)
        output = weights @ value + (weights.gather(3, places) * real) @ self.emb_rel_v
        return self.conv_o(output.transpose(2, 3).flatten(1, 2))


def neighbours(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of every position the `2 * WINDOW + 1` around it, and which of them are there: (count, 2 * WINDOW + 1) each. In
    the place of one that is not stands the first or the last position."""
    steps = torch.arange(-WINDOW, WINDOW + 1, device=device)
    places = torch.arange(count, device=device)[:, None] + steps
    return places.clamp(0, count - 1), (places >= 0) & (places < count)


class FeedForward(nn.Module):
    """Two convolutions with a ReLU between them; padding stays zero."""

    def __init__(self, channels: int, filter_channels: int, kernel_size: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.conv_1 = nn.Conv1d(channels, filter_channels, kernel_size, padding=kernel_size // 2)
        self.conv_2 = nn.Conv1d(filter_channels, channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = dropout(self.conv_1(x * mask).relu(), self.drop, self.training)
        return self.conv_2(hidden * mask) * mask
