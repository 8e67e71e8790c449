"""The flow between posterior and prior: additive coupling layers, each with a transformer, channels reversed between.

Sources: VITS (arXiv 2106.06103, section 2.5.2), VITS2 (arXiv 2307.16430, section 2.3) for the transformer. Settled by
parity case synthesizer_small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.models.melotts.layers import zeroed
from tts_kernel.models.melotts.transformer import RelativeTransformer

COUPLINGS, KERNEL_SIZE = 4, 5  # the same at every size


class TransformerFlow(nn.Module):
    """Invertible, and its log-determinant is zero: a coupling adds what it reads from one half to the other one."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        # The published numbers count the reversals too, which have no weights.
        self.flows = nn.ModuleDict({str(2 * number): Coupling(config) for number in range(COUPLINGS)})

    def forward(self, z: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        """Posterior sample -> prior's space: (batch, inter_channels, frames), (batch, 1, frames), speaker
        (batch, gin_channels, 1)."""
        for coupling in self.flows.values():
            z = coupling(z, mask, speaker).flip(1)
        return z

    def inverse(self, z: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        """The same shapes, from the prior's space to what the decoder reads."""
        for coupling in reversed(list(self.flows.values())):
            z = coupling.inverse(z.flip(1), mask, speaker)  # type: ignore[operator]
        return z


class Coupling(nn.Module):
    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        half, width = config.inter_channels // 2, config.hidden_channels
        self.pre = nn.Conv1d(half, width, 1)
        self.enc = RelativeTransformer(
            width,
            config.filter_channels,
            config.n_heads,
            config.n_layers_trans_flow,
            KERNEL_SIZE,
            config.p_dropout,
            config.gin_channels,
        )
        self.post = zeroed(nn.Conv1d(width, half, 1))

    def forward(self, z: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        kept, moved = z.chunk(2, dim=1)
        return torch.cat([kept, (moved + self.shift(kept, mask, speaker)) * mask], dim=1)

    def inverse(self, z: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        kept, moved = z.chunk(2, dim=1)
        return torch.cat([kept, (moved - self.shift(kept, mask, speaker)) * mask], dim=1)

    def shift(self, kept: Tensor, mask: Tensor, speaker: Tensor) -> Tensor:
        return self.post(self.enc(self.pre(kept) * mask, mask, speaker)) * mask
