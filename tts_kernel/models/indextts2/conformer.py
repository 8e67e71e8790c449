"""Conformer encoder of both conditioners: sub-sampled frames in, half as many hidden frames out.

Sources: Gulati et al. 2020 (arXiv 2005.08100) for the block, Dai et al. 2019 (arXiv 1901.02860) for the position
biases u and v; what differs from the papers (no macaron half-steps, no relative shift, one final norm per block) was
settled by the parity cases gpt_small and grl_small.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, pad, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

from tts_kernel.models.indextts2.config import ConditionerConfig

MAX_FRAMES = 5000  # rows of the published position table: 10,001 input frames
EXTRA = 8  # columns beside a head's own, the first of them for the bias


class SinusoidalTable(nn.Module):
    """Positions 0 to 4999 as interleaved sines and cosines; a buffer, since public checkpoints carry it."""

    pe: Tensor  # (1, MAX_FRAMES, width)

    def __init__(self, width: int) -> None:
        super().__init__()
        position = torch.arange(MAX_FRAMES, dtype=torch.float32)[:, None]
        frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * -(math.log(10000.0) / width))
        table = torch.zeros(MAX_FRAMES, width)
        table[:, 0::2], table[:, 1::2] = torch.sin(position * frequency), torch.cos(position * frequency)
        self.register_buffer("pe", table[None])


class Subsampling(nn.Module):
    """Two-fold in time and frequency: one strided convolution, then a projection of the remaining bins."""

    def __init__(self, input_size: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, width, 3, stride=2), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(width * ((input_size - 1) // 2), width))
        self.pos_enc = SinusoidalTable(width)
        self.input_size = input_size

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, input_size) -> hidden (batch, (frames - 1) // 2, width), positions (1, same, width)."""
        if x.shape[-1] != self.input_size:
            raise ValueError(f"features have {x.shape[-1]} bins, expected {self.input_size}")
        hidden = self.conv(x[:, None])  # (batch, width, frames', bins')
        hidden = self.out(hidden.transpose(1, 2).flatten(2))
        if hidden.shape[1] > MAX_FRAMES:
            raise ValueError(f"{x.shape[1]} input frames, expected at most {2 * MAX_FRAMES}; cut the clip")
        return hidden * math.sqrt(hidden.shape[-1]), self.pos_enc.pe[:, : hidden.shape[1]]


class RelativeAttention(nn.Module):
    """Self-attention with position biases: score = (q + u) k + (q + v) p, all over sqrt(head size).

    As p does not depend on the query, that is q (k + p) and a bias u k + v p of each key: attention over queries [q, 1]
    and keys [k + p, bias]. Fused kernels want queries, keys and values of one size, and that a multiple of 8.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_v, self.linear_out = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, width // heads))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """x (batch, frames, width), positions (1, frames, width), mask (batch, 1, 1, frames) True on real frames."""

        def split(y: Tensor) -> Tensor:  # (batch, frames, width) -> (batch, heads, frames, head size)
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.linear_q(x)), split(self.linear_k(x)), split(self.linear_v(x))
        p = split(self.linear_pos(positions))  # (1, heads, frames, head size)
        bias = k @ self.pos_bias_u[:, :, None] + p @ self.pos_bias_v[:, :, None]  # (batch, heads, frames, 1)
        attended = scaled_dot_product_attention(
            pad(pad(q, (0, 1), value=1.0), (0, EXTRA - 1)),
            pad(torch.cat([k + p, bias], dim=-1), (0, EXTRA - 1)),
            pad(v, (0, EXTRA)),
            attn_mask=mask,
            scale=1.0 / math.sqrt(q.shape[-1]),
        )[..., : q.shape[-1]]
        return self.linear_out(attended.transpose(1, 2).flatten(2))


class Convolution(nn.Module):
    """Gated pointwise, depthwise over 15 frames, norm, SiLU, pointwise."""

    def __init__(self, width: int, kernel_size: int = 15) -> None:
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1)
        self.depthwise_conv = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, real: Tensor | None, reference_padding: bool) -> Tensor:
        """x (batch, frames, width), real (batch, frames, 1) True on real frames. The reference silences the padding
        before the gate, whose bias fills it again; `reference_padding` keeps that leak into the last real frames."""
        if real is not None:
            x = x.masked_fill(~real, 0.0)
        hidden = glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)
        if real is not None and not reference_padding:
            hidden = hidden.masked_fill(~real.transpose(1, 2), 0.0)
        hidden = silu(self.norm(self.depthwise_conv(hidden).transpose(1, 2)))
        hidden = self.pointwise_conv2(hidden.transpose(1, 2)).transpose(1, 2)
        return hidden if real is None else hidden.masked_fill(~real, 0.0)


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(silu(self.w_1(x)))


class Block(nn.Module):
    """Attention, convolution, feed-forward, each behind its own norm and added to its input; then a norm."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        width = config.output_size
        self.self_attn = RelativeAttention(width, config.attention_heads)
        self.feed_forward = FeedForward(width, config.linear_units)
        self.conv_module = Convolution(width)
        self.norm_ff, self.norm_mha, self.norm_conv, self.norm_final = (nn.LayerNorm(width) for _ in range(4))

    def forward(self, x: Tensor, positions: Tensor, real: Tensor | None, reference_padding: bool) -> Tensor:
        mask = None if real is None else real.transpose(1, 2)[:, None]  # (batch, 1, 1, frames)
        x = x + self.self_attn(self.norm_mha(x), positions, mask)
        x = x + self.conv_module(self.norm_conv(x), real, reference_padding)
        x = x + self.feed_forward(self.norm_ff(x))
        return self.norm_final(x)


class ConformerEncoder(nn.Module):
    """Frames of features -> half as many hidden frames; padding never reaches a real frame unless
    `reference_padding` asks for the reference's leak."""

    reference_padding: bool = False
    gradient_checkpointing: bool = False  # in training, compute activations again instead of keeping them

    def __init__(self, input_size: int, config: ConditionerConfig) -> None:
        super().__init__()
        self.embed = Subsampling(input_size, config.output_size)
        self.after_norm = nn.LayerNorm(config.output_size)
        self.encoders = nn.ModuleList(Block(config) for _ in range(config.num_blocks))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (batch, frames, input_size), lengths (batch,) in frames
        -> hidden (batch, frames', width), mask (batch, frames') True on real frames; frames' = (frames - 1) // 2."""
        x, positions = self._call(self.embed, features)
        mask = torch.arange(x.shape[1], device=x.device) < ((lengths - 1) // 2)[:, None]
        real = mask[:, :, None]
        for block in self.encoders:
            x = self._call(block, x, positions, real, self.reference_padding)
        return self.after_norm(x), mask

    def _call(self, part: nn.Module, *inputs: Any) -> Any:
        if self.gradient_checkpointing and self.training:
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)
