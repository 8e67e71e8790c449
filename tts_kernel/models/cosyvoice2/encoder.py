"""The flow's encoder: speech tokens at 25 Hz in, hidden frames at the mel's rate out; every position sees a few tokens
of the future, and in streaming nothing beyond its chunk else.

Sources: CosyVoice 2 (arXiv 2412.10117), section 2.4; Gulati et al. 2020 (arXiv 2005.08100) for the block, here without
convolution; Dai et al. 2019 (arXiv 1901.02860) for relative positions. Settled by parity case flow_small.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad, scaled_dot_product_attention, silu

from tts_kernel.models.cosyvoice2.config import EncoderConfig
from tts_kernel.models.cosyvoice2.masks import attention_mask


def relative_positions(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines, interleaved, of the distances length - 1 (the first row) to 1 - length: (1, 2 length - 1,
    width)."""
    distance = torch.arange(length - 1, -length, -1, dtype=torch.float32, device=device)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float32, device=device) * -(math.log(1e4) / width))
    return torch.stack([torch.sin(distance * frequency), torch.cos(distance * frequency)], dim=-1).flatten(1)[None]


class RelativeAttention(nn.Module):
    """Self-attention whose scores are (q_i + u) k_j + (q_i + v) p_(i-j), all over sqrt(head size).

    The second term is laid out as a bias of the scores, so that softmax and weighting run in one kernel."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.linear_q, self.linear_k = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_v, self.linear_out = nn.Linear(width, width), nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, width // heads))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """x (batch, n, width), positions (1, 2 n - 1, width), mask (batch, 1, 1 or n, n) True where to look."""
        q, k, v = self._split(self.linear_q(x)), self._split(self.linear_k(x)), self._split(self.linear_v(x))
        scale = 1.0 / math.sqrt(q.shape[-1])
        p = pad(self._split(self.linear_pos(positions)), (0, 0, 0, 1))  # one row more, for `by_position`
        bias = by_position((q + self.pos_bias_v[:, None]) * scale @ p.transpose(-1, -2))  # (batch, heads, n, n)
        if mask is not None:
            bias = bias.masked_fill(~mask, -torch.inf)
        dropout = self.dropout if self.training else 0.0
        query = q + self.pos_bias_u[:, None]
        attended = scaled_dot_product_attention(query, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    def _split(self, y: Tensor) -> Tensor:
        """(batch, n, width) -> (batch, heads, n, head size)."""
        return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def by_position(by_distance: Tensor) -> Tensor:
    """(..., n, 2 n), column c for the distance n - 1 - c, the last for none -> (..., n, n), column j for position j:
    each row is read one place further to the left than the one above, which is a view and copies nothing.
    Source: Dai et al. 2019, appendix B."""
    n = by_distance.shape[-2]
    flat = by_distance.flatten(-2)  # rows of 2 n, read in rows of 2 n - 1
    return flat[..., n - 1 : n - 1 + n * (2 * n - 1)].unflatten(-1, (n, 2 * n - 1))[..., :n]


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.dropout(silu(self.w_1(x))))


class Block(nn.Module):
    """Attention, then feed-forward, each behind its own norm and added to its input."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.output_size
        self.self_attn = RelativeAttention(width, config.attention_heads, config.attention_dropout_rate)
        self.feed_forward = FeedForward(width, config.linear_units, config.dropout_rate)
        self.norm_ff, self.norm_mha = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.dropout(self.self_attn(self.norm_mha(x), positions, mask))
        return x + self.dropout(self.feed_forward(self.norm_ff(x)))


class Embedding(nn.Module):
    """Linear, norm, and relative positions."""

    def __init__(self, input_size: int, config: EncoderConfig) -> None:
        super().__init__()
        self.out = nn.Sequential(
            nn.Linear(input_size, config.output_size), nn.LayerNorm(config.output_size), nn.Dropout(config.dropout_rate)
        )
        self.dropout = nn.Dropout(config.positional_dropout_rate)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, n, input_size) -> hidden (batch, n, width), positions (1, 2 n - 1, width)."""
        hidden = self.out(x)
        positions = relative_positions(hidden.shape[1], hidden.shape[2], hidden.device).to(hidden.dtype)
        return self.dropout(hidden * math.sqrt(hidden.shape[-1])), self.dropout(positions)


class PreLookahead(nn.Module):
    """Each token gets to see `ahead` tokens of the future, once, before blocks that need not look ahead."""

    def __init__(self, width: int, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead
        self.conv1, self.conv2 = nn.Conv1d(width, width, ahead + 1), nn.Conv1d(width, width, 3)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """x (batch, n, width); context (batch, ahead, width) is what follows x in streaming, None where x ends."""
        hidden = x if context is None else torch.cat([x, context], dim=1)
        hidden = hidden.transpose(1, 2)
        if context is None:
            hidden = pad(hidden, (0, self.ahead))
        hidden = leaky_relu(self.conv1(hidden))
        return x + self.conv2(pad(hidden, (2, 0))).transpose(1, 2)


class Upsampling(nn.Module):
    """Repeats every position `ratio` times and smooths over the past."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.conv = nn.Conv1d(width, width, 2 * ratio + 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n, width) -> (batch, ratio * n, width)."""
        repeated = x.repeat_interleave(self.ratio, dim=1).transpose(1, 2)
        return self.conv(pad(repeated, (2 * self.ratio, 0))).transpose(1, 2)


class UpsamplingEncoder(nn.Module):
    """Embedded tokens -> hidden frames, `ratio` for each token. Padding never reaches a real frame unless
    `reference_padding` asks for the reference's leak: there the last tokens of a padded row look ahead into padding."""

    reference_padding: bool = False

    def __init__(self, input_size: int, ratio: int, ahead: int, config: EncoderConfig) -> None:
        super().__init__()
        width = config.output_size
        self.ratio, self.chunk = ratio, config.static_chunk_size
        self.embed = Embedding(input_size, config)
        self.after_norm = nn.LayerNorm(width)
        self.pre_lookahead_layer = PreLookahead(width, ahead)
        self.encoders = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.up_layer = Upsampling(width, ratio)
        self.up_embed = Embedding(width, config)
        self.up_encoders = nn.ModuleList(Block(config) for _ in range(config.num_up_blocks))

    def forward(self, x: Tensor, real: Tensor, context: Tensor | None = None, streaming: bool = False) -> Tensor:
        """x (batch, n, input_size), real (batch, n) True on real tokens, context (batch, ahead, input_size) the tokens
        that follow x and get no frames yet -> (batch, ratio * n, width). Padding is whatever comes out."""
        chunk = self.chunk if streaming else 0
        hidden, positions = self.embed(x)
        if not self.reference_padding:
            hidden = hidden * real[..., None]
        hidden = self.pre_lookahead_layer(hidden, None if context is None else self.embed(context)[0])
        mask = attention_mask(real, chunk)
        for block in self.encoders:
            hidden = block(hidden, positions, mask)
        hidden, positions = self.up_embed(self.up_layer(hidden))
        mask = attention_mask(real.repeat_interleave(self.ratio, dim=1), chunk * self.ratio)
        for block in self.up_encoders:
            hidden = block(hidden, positions, mask)
        return self.after_norm(hidden)
