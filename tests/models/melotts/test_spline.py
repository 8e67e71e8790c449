from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tts_kernel.models.melotts.spline import rational_quadratic

BOUND = 5.0


def shape(points: int, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    widths, heights, slopes = (scale * torch.randn(points, size, generator=random) for size in (10, 10, 9))
    return widths, heights, slopes


def points(count: int = 200) -> Tensor:
    return torch.linspace(-7.0, 7.0, count)


def test_the_inverse_undoes_it_and_its_slope() -> None:
    there, log_slope = rational_quadratic(points(), *shape(200), BOUND)
    back, log_back = rational_quadratic(there, *shape(200), BOUND, inverse=True)
    torch.testing.assert_close(rational_quadratic(back, *shape(200), BOUND)[0], there, rtol=0, atol=1e-5)
    gentle = log_slope.abs() < 1.0  # where a spline is nearly flat float32 cannot tell neighbouring points apart
    assert gentle.sum() > 80
    torch.testing.assert_close(back[gentle], points()[gentle], rtol=0, atol=1e-4)
    torch.testing.assert_close(log_back[gentle], -log_slope[gentle], rtol=0, atol=1e-2)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_log_slope_is_the_derivatives(inverse: bool) -> None:
    x = points().requires_grad_()
    y, log_slope = rational_quadratic(x, *shape(200, scale=1.0), BOUND, inverse)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope, slope.log(), rtol=1e-3, atol=1e-3)


def test_it_rises_and_is_the_identity_beyond_its_bound() -> None:
    one = tuple(value[:1].expand(200, -1) for value in shape(1))
    y, log_slope = rational_quadratic(points(), *one, BOUND)
    assert (y.diff() > 0).all()
    beyond = points().abs() > BOUND
    assert torch.equal(y[beyond], points()[beyond])
    assert not log_slope[beyond].any()
    assert (y[~beyond] - points()[~beyond]).abs().max() > 0.1


def test_the_bound_itself_stays_and_gradients_are_numbers_everywhere() -> None:
    x = torch.tensor([-BOUND, BOUND, 0.0, 1e6, -1e6], requires_grad=True)
    widths, heights, slopes = (value.requires_grad_() for value in shape(5))
    y, log_slope = rational_quadratic(x, widths, heights, slopes, BOUND)
    torch.testing.assert_close(y[:2], x[:2])
    (y.sum() + log_slope.sum()).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in (x, widths, heights, slopes))


def test_half_precision_is_computed_in_single() -> None:
    y, _ = rational_quadratic(points().bfloat16(), *(value.bfloat16() for value in shape(200)), BOUND)
    assert y.dtype == torch.float32
