"""The causal U-Net that estimates the flow's velocity at a time: convolutions that see no future, transformer blocks
that see all of it or, in streaming, the chunk's end.

Sources: Matcha-TTS (arXiv 2309.03199), section 2.2, for the U-Net; CosyVoice 2 (arXiv 2412.10117), section 2.4, for
its causal form, which never halves the frame rate. Settled by parity case flow_small.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention, silu

from tts_kernel.models.cosyvoice2.config import EstimatorConfig
from tts_kernel.models.cosyvoice2.masks import attention_mask

TIME_SCALE = 1000.0  # times lie in [0, 1]


class CausalConv(nn.Conv1d):
    """A convolution that is padded in front only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, (self.kernel_size[0] - 1, 0)))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (batch, channels, frames)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ConvBlock(nn.Module):
    """Causal convolution over three frames, norm, Mish."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        # The published names count two modules that only turn axes.
        self.block = nn.Sequential(
            CausalConv(channels_in, channels, 3), nn.Identity(), ChannelNorm(channels), nn.Mish()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels_in, frames) -> (batch, channels, frames)."""
        return self.block(x)


class ResidualBlock(nn.Module):
    def __init__(self, channels_in: int, channels: int, time_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_width, channels))
        self.block1, self.block2 = ConvBlock(channels_in, channels), ConvBlock(channels, channels)
        self.res_conv = nn.Conv1d(channels_in, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (batch, channels_in, frames), time (batch, time_width) -> (batch, channels, frames)."""
        return self.block2(self.block1(x) + self.mlp(time)[:, :, None]) + self.res_conv(x)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, head_size: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * head_size, bias=False)
        self.to_k = nn.Linear(width, heads * head_size, bias=False)
        self.to_v = nn.Linear(width, heads * head_size, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_size, width), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (batch, frames, width), mask (batch, 1, 1 or frames, frames) True where to look."""
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.to_q, self.to_k, self.to_v)
        )
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out(attended.transpose(1, 2).flatten(2))


class ProjectedGELU(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return gelu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(ProjectedGELU(width, 4 * width), nn.Dropout(dropout), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each behind its own norm and added to its input."""

    def __init__(self, width: int, config: EstimatorConfig) -> None:
        super().__init__()
        self.norm1, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1 = Attention(width, config.num_heads, config.attention_head_dim, config.dropout)
        self.ff = FeedForward(width, config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x), mask)
        return x + self.ff(self.norm3(x))


def stage(channels_in: int, time_width: int, config: EstimatorConfig, *ending: nn.Module) -> nn.ModuleList:
    """A residual block, its transformer blocks, and what comes after them: 0, 1 and 2 in the published names."""
    width = config.channels[0]
    transformers = nn.ModuleList(TransformerBlock(width, config) for _ in range(config.n_blocks))
    return nn.ModuleList([ResidualBlock(channels_in, width, time_width), transformers, *ending])


def run(parts: nn.Module, x: Tensor, time: Tensor, mask: Tensor | None) -> Tensor:
    """A stage without its ending: x (batch, channels, frames), time (batch, time_width) -> (batch, width, frames)."""
    residual, transformers, *_ = parts.children()
    hidden = residual(x, time).transpose(1, 2)
    for block in transformers.children():
        hidden = block(hidden, mask)
    return hidden.transpose(1, 2)


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time in [0, 1], then two layers."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.linear_1, self.linear_2 = nn.Linear(inputs, width), nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        """(batch,) -> (batch, width)."""
        half = self.inputs // 2
        frequency = torch.exp(torch.arange(half, device=time.device).float() * -(math.log(1e4) / (half - 1)))
        angle = TIME_SCALE * time.float()[:, None] * frequency
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1).to(self.linear_1.weight.dtype)
        return self.linear_2(silu(self.linear_1(waves)))


class CausalEstimator(nn.Module):
    """Noisy mel, encoder output, speaker and prompt frames at a time -> velocity."""

    def __init__(self, n_mels: int, config: EstimatorConfig) -> None:
        super().__init__()
        width = config.channels[0]
        inputs, time_width = 4 * n_mels, 4 * width
        self.chunk, self.left_chunks = config.static_chunk_size, config.num_decoding_left_chunks
        self.time_mlp = TimeEmbedding(inputs, time_width)
        self.down_blocks = nn.ModuleList([stage(inputs, time_width, config, CausalConv(width, width, 3))])
        self.mid_blocks = nn.ModuleList(stage(width, time_width, config) for _ in range(config.num_mid_blocks))
        self.up_blocks = nn.ModuleList([stage(2 * width, time_width, config, CausalConv(width, width, 3))])
        self.final_block = ConvBlock(width, width)
        self.final_proj = nn.Conv1d(width, n_mels, 1)

    def forward(
        self,
        x: Tensor,
        real: Tensor,
        mu: Tensor,
        time: Tensor,
        speaker: Tensor,
        prompt: Tensor,
        streaming: bool = False,
    ) -> Tensor:
        """x, mu and prompt (batch, n_mels, frames), real (batch, 1, frames) 1 on real frames, time (batch,),
        speaker (batch, n_mels) -> velocity (batch, n_mels, frames), 0 on padding, which lies at the end: there
        causal convolutions cannot carry it into a real frame."""
        embedded = self.time_mlp(time)
        hidden = torch.cat([x, mu, speaker[:, :, None].expand(-1, -1, x.shape[-1]), prompt], dim=1)
        mask = attention_mask(real[:, 0] > 0, self.chunk if streaming else 0, self.left_chunks)
        (*_, smooth_down), (*_, smooth_up) = self.down_blocks[0].children(), self.up_blocks[0].children()
        kept = run(self.down_blocks[0], hidden, embedded, mask)
        hidden = smooth_down(kept)
        for middle in self.mid_blocks:
            hidden = run(middle, hidden, embedded, mask)
        hidden = run(self.up_blocks[0], torch.cat([hidden, kept], dim=1), embedded, mask)
        return self.final_proj(self.final_block(smooth_up(hidden))) * real
