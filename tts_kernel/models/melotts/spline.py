"""Monotonic rational-quadratic splines: an elementwise invertible function whose shape a network chooses.

Source: Durkan et al. 2019, Neural Spline Flows (arXiv 1906.04032, section 3.1 and appendix A), with linear tails.
Settled by parity case synthesizer_small.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

SMALLEST = 1e-3  # width and height of a bin as a share of the whole, and slope at a knot


def rational_quadratic(
    x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, bound: float, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """x (...) -> the same shape, and the logarithm of the derivative of what was applied; within [-bound, bound] a
    spline, beyond it the identity. What the network says, before it is made positive: widths and heights (..., bins),
    slopes at the inner knots (..., bins - 1). In float32 whatever autocast says: neighbouring knots lie close."""
    with torch.autocast(x.device.type, enabled=False):
        x, widths, heights, slopes = x.float(), widths.float(), heights.float(), slopes.float()
        x_knots, y_knots = _knots(widths, bound), _knots(heights, bound)
        slope = pad(SMALLEST + softplus(slopes), (1, 1), value=1.0)  # as the tails have it
        inside = x.abs() <= bound
        position = x.clamp(-bound, bound)
        edges = y_knots if inverse else x_knots
        bin_number = (position[..., None] >= edges[..., 1:-1]).sum(dim=-1, keepdim=True)

        def left_and_right(knots: Tensor) -> tuple[Tensor, Tensor]:
            return knots.gather(-1, bin_number)[..., 0], knots.gather(-1, bin_number + 1)[..., 0]

        (x0, x1), (y0, y1), (slope0, slope1) = map(left_and_right, (x_knots, y_knots, slope))
        width, height = x1 - x0, y1 - y0
        mean_slope = height / width
        bend = slope0 + slope1 - 2.0 * mean_slope
        if inverse:
            share = _share_at_height(position - y0, height, mean_slope, slope0, bend)
            result = x0 + share * width
        else:
            share = (position - x0) / width
            rise = mean_slope * share.square() + slope0 * share * (1.0 - share)
            result = y0 + height * rise / (mean_slope + bend * share * (1.0 - share))
        inner = slope1 * share.square() + 2.0 * mean_slope * share * (1.0 - share) + slope0 * (1.0 - share).square()
        log_slope = 2.0 * mean_slope.log() + inner.log() - 2.0 * (mean_slope + bend * share * (1.0 - share)).log()
        log_slope = -log_slope if inverse else log_slope
        return torch.where(inside, result, x), torch.where(inside, log_slope, 0.0)


def _knots(sizes: Tensor, bound: float) -> Tensor:
    """(..., bins) -> (..., bins + 1) increasing from -bound to bound."""
    shares = SMALLEST + (1.0 - SMALLEST * sizes.shape[-1]) * sizes.softmax(dim=-1)
    inner = 2.0 * bound * shares.cumsum(dim=-1)[..., :-1] - bound
    return pad(pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


def _share_at_height(rise: Tensor, height: Tensor, mean_slope: Tensor, slope: Tensor, bend: Tensor) -> Tensor:
    """Where within its bin, from 0 to 1, the spline is `rise` above the bin's left knot: the root of the quadratic
    equation in the form that does not cancel."""
    a = height * (mean_slope - slope) + rise * bend
    b = height * slope - rise * bend
    c = -mean_slope * rise
    root = (b.square() - 4.0 * a * c).clamp(min=0.0).sqrt()
    return 2.0 * c / (-b - root)
