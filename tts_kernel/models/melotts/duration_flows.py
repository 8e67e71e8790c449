"""The flows over durations: elementwise affine maps and splines whose shape depends on one half of the channels.

Sources: VITS (arXiv 2106.06103, section 2.5.5), Neural Spline Flows (arXiv 1906.04032). Settled by parity case
synthesizer_small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu

from tts_kernel.models.melotts.layers import ChannelNorm, zeroed
from tts_kernel.models.melotts.spline import rational_quadratic

CHANNELS = 2  # a duration and what it is augmented with
SPLINES = 4  # spline layers of a flow
BINS, BOUND = 10, 5.0
KERNEL_SIZE, LAYERS = 3, 3


class DurationFlow(nn.ModuleDict):
    """An affine map, then splines, the two channels changing places behind each. The published numbers of the layers,
    which are their names here, count the changes too, which have no weights."""

    def __init__(self, width: int) -> None:
        super().__init__({"0": Affine()} | {str(2 * number + 1): SplineCoupling(width) for number in range(SPLINES)})

    def forward(self, z: Tensor, mask: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """z (batch, 2, n), mask (batch, 1, n), condition (batch, width, n) -> z and its log-determinant (batch,)."""
        affine, *splines = self.values()
        z, log_determinant = affine(z, mask)
        for spline in splines:
            z, more = spline(z, mask, condition)
            z, log_determinant = z.flip(1), log_determinant + more
        return z, log_determinant

    def inverse(self, z: Tensor, mask: Tensor, condition: Tensor) -> Tensor:
        affine, *splines = self.values()
        for spline in reversed(splines):
            z = spline.inverse(z.flip(1), mask, condition)  # type: ignore[operator]
        return affine.inverse(z, mask)  # type: ignore[operator]


class Affine(nn.Module):
    """Scale and shift of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.m, self.logs = nn.Parameter(torch.zeros(CHANNELS, 1)), nn.Parameter(torch.zeros(CHANNELS, 1))

    def forward(self, z: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return (self.m + self.logs.exp() * z) * mask, (self.logs * mask).sum(dim=(1, 2))

    def inverse(self, z: Tensor, mask: Tensor) -> Tensor:
        return (z - self.m) * (-self.logs).exp() * mask


class SplineCoupling(nn.Module):
    """The first channel and the condition choose the spline that the second one passes through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pre = nn.Conv1d(CHANNELS // 2, width, 1)
        self.convs = SeparableConvolutions(width)
        self.proj = zeroed(nn.Conv1d(width, 3 * BINS - 1, 1))

    def forward(self, z: Tensor, mask: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = self._apply_spline(z, mask, condition, inverse=False)
        return z, (log_slope * mask).sum(dim=(1, 2))

    def inverse(self, z: Tensor, mask: Tensor, condition: Tensor) -> Tensor:
        return self._apply_spline(z, mask, condition, inverse=True)[0]

    def _apply_spline(self, z: Tensor, mask: Tensor, condition: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        kept, moved = z.chunk(2, dim=1)
        hidden = self.convs(self.pre(kept), mask, condition)
        shape = (self.proj(hidden) * mask).transpose(1, 2)[:, None]  # (batch, 1, n, 3 * BINS - 1)
        widths, heights, slopes = shape.split([BINS, BINS, BINS - 1], dim=-1)
        scale = hidden.shape[1] ** -0.5
        moved, log_slope = rational_quadratic(moved, widths * scale, heights * scale, slopes, BOUND, inverse)
        return torch.cat([kept, moved.to(kept.dtype)], dim=1) * mask, log_slope


class SeparableConvolutions(nn.Module):
    """Depthwise convolutions of growing dilation and pointwise ones, added to their input."""

    def __init__(self, width: int, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self.convs_sep, self.convs_1x1 = nn.ModuleList(), nn.ModuleList()
        self.norms_1, self.norms_2 = nn.ModuleList(), nn.ModuleList()
        for layer in range(LAYERS):
            dilation = KERNEL_SIZE**layer
            self.convs_sep.append(
                nn.Conv1d(width, width, KERNEL_SIZE, groups=width, dilation=dilation, padding=dilation)
            )
            self.convs_1x1.append(nn.Conv1d(width, width, 1))
            self.norms_1.append(ChannelNorm(width))
            self.norms_2.append(ChannelNorm(width))

    def forward(self, x: Tensor, mask: Tensor, condition: Tensor | None = None) -> Tensor:
        """(batch, width, n), (batch, 1, n), (batch, width, n) -> (batch, width, n), zero on padding."""
        x = x if condition is None else x + condition
        for depthwise, norm, pointwise, second_norm in zip(
            self.convs_sep, self.norms_1, self.convs_1x1, self.norms_2, strict=True
        ):
            hidden = gelu(norm(depthwise(x * mask)))
            x = x + dropout(gelu(second_norm(pointwise(hidden))), self.drop, self.training)
        return x * mask
