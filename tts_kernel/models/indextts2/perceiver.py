"""Perceiver resampler: any number of hidden frames in, a fixed number of latents out.

Sources: Jaegle et al. 2021 (arXiv 2103.03206); gated feed-forward from Shazeer 2020 (arXiv 2002.05202), RMS norm from
Zhang & Sennrich 2019 (arXiv 1910.07467); details (latents attend to themselves too, no inner norms) settled by parity
case gpt_small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, pad, scaled_dot_product_attention

HEAD_SIZE = 64


class CrossAttention(nn.Module):
    """Latents ask, latents and frames answer."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, heads * HEAD_SIZE, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * HEAD_SIZE, bias=False)
        self.to_out = nn.Linear(heads * HEAD_SIZE, dim, bias=False)

    def forward(self, latents: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """latents (batch, n, dim), context (batch, frames, dim), mask (batch, 1, 1, n + frames) -> (batch, n, dim)."""

        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        k, v = self.to_kv(torch.cat([latents, context], dim=1)).chunk(2, dim=-1)
        attended = scaled_dot_product_attention(split(self.to_q(latents)), split(k), split(v), attn_mask=mask)
        return self.to_out(attended.transpose(1, 2).flatten(2))


class GatedGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """(..., 2 * width) -> (..., width)."""
        value, gate = x.chunk(2, dim=-1)
        return gelu(gate) * value


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return normalize(x, dim=-1) * self.scale * self.gamma


class PerceiverResampler(nn.Module):
    """(batch, frames, context dim) -> (batch, num_latents, dim)."""

    def __init__(self, dim: int, context_dim: int, num_latents: int, heads: int, mult: int, depth: int = 2) -> None:
        super().__init__()
        self.proj_context = nn.Linear(context_dim, dim)
        self.latents = nn.Parameter(torch.empty(num_latents, dim).normal_(std=0.02))
        inner = int(dim * mult * 2 / 3)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    CrossAttention(dim, heads),
                    nn.Sequential(nn.Linear(dim, 2 * inner), GatedGELU(), nn.Linear(inner, dim)),
                ]
            )
            for _ in range(depth)
        )
        self.norm = RMSNorm(dim)

    def forward(self, context: Tensor, mask: Tensor | None) -> Tensor:
        """`mask` (batch, frames), True on real frames; None attends to padding too, as the reference's trainer does
        in stage 2."""
        context = self.proj_context(context)
        latents = self.latents.expand(len(context), -1, -1)
        if mask is not None:
            mask = pad(mask, (latents.shape[1], 0), value=True)[:, None, None]
        for layer in self.layers:
            attend, feed_forward = layer.children()
            latents = attend(latents, context, mask) + latents
            latents = feed_forward(latents) + latents
        return self.norm(latents)
