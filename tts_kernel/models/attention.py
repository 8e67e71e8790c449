"""Causal attention with dropout on a CPU, where torch has a fused kernel only without dropout: in blocks of queries, so
that no score of the future is computed, scores stay in the cache, and two small tensors are kept for the backward pass
where torch's own path keeps four whole ones. The same distribution as torch's path, not the same random numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

NAME = "causal_dropout"  # among transformers' attention functions
BLOCK = 64  # queries; measured best of 32, 64 and 128 at 400 positions


def register() -> str:
    """Make it known to transformers and return the name under which a model's configuration asks for it."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' interface: (batch, heads, tokens, size) each -> (batch, tokens, heads, size). Only training on a
    CPU without a mask takes the blocks; all else goes to torch's scaled_dot_product_attention, as does everything
    where fused attention is switched off (torch.nn.attention.sdpa_kernel) and what torch.compile is to fuse."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    blocks = (
        dropout > 0.0
        and attention_mask is None
        and query.device.type == "cpu"
        and query.shape == key.shape
        and not torch.compiler.is_compiling()
        and torch.backends.cuda.flash_sdp_enabled()  # the switch for all devices, in spite of its name
    )
    if not blocks:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return causal_dropout_attention(query, key, value, dropout, scale).transpose(1, 2), None


def causal_dropout_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float) -> Tensor:
    """softmax(query key^T * scale) under a causal mask, its weights dropped with probability `dropout` and the others
    scaled up, times value: (batch, heads, tokens, size) each."""
    return _Blocks.apply(query, key, value, dropout, scale)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, dropout: float, scale: float) -> Tensor:
        output = torch.empty_like(value)
        kept: list[Tensor] = []
        with torch.autocast("cpu", enabled=False):
            for first, last in _blocks(query.shape[2]):
                scores = (query[:, :, first:last] * scale) @ key[:, :, :last].transpose(-1, -2)
                future = torch.arange(last) > torch.arange(first, last)[:, None]
                weights = scores.float() if scores.dtype == torch.bfloat16 else scores
                weights = weights.masked_fill_(future, -math.inf).softmax(-1).to(scores.dtype)
                real = torch.empty_like(weights, dtype=torch.bool).bernoulli_(1.0 - dropout)
                output[:, :, first:last] = (weights * real) @ value[:, :, :last] / (1.0 - dropout)
                kept += [weights, real]
        ctx.save_for_backward(query, key, value, *kept)
        ctx.dropout, ctx.scale = dropout, scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        for_query, for_key, for_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        blocks = zip(_blocks(query.shape[2]), kept[::2], kept[1::2], strict=True)
        with torch.autocast("cpu", enabled=False):
            for (first, last), weights, real in blocks:
                incoming = gradient[:, :, first:last] / (1.0 - ctx.dropout)
                for_value[:, :, :last] += (weights * real).transpose(-1, -2) @ incoming
                for_weights = (incoming @ value[:, :, :last].transpose(-1, -2)).mul_(real)
                for_scores = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)
                for_query[:, :, first:last] = for_scores @ key[:, :, :last] * ctx.scale
                for_key[:, :, :last] += for_scores.transpose(-1, -2) @ (query[:, :, first:last] * ctx.scale)
        return for_query, for_key, for_value, None, None


def _blocks(tokens: int) -> list[tuple[int, int]]:
    return [(first, min(first + BLOCK, tokens)) for first in range(0, tokens, BLOCK)]
