from __future__ import annotations

import torch
from torch import Tensor

from tests.parity import fill
from tts_kernel.models.melotts.duration_flows import DurationFlow, SeparableConvolutions
from tts_kernel.models.melotts.layers import real_positions


def flow() -> DurationFlow:
    model = DurationFlow(8)
    fill.fill(model)
    return model


def given(rows: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(6)
    z, condition = (torch.randn(rows, channels, n, generator=random) for channels in (2, 8))
    return z, torch.ones(rows, 1, n, dtype=torch.bool), condition


def test_the_inverse_undoes_it() -> None:
    z, mask, condition = given(2, 9)
    model = flow().double()
    there, _ = model(z.double(), mask, condition.double())
    assert not torch.allclose(there.float(), z, atol=0.1)
    back = model.inverse(there, mask, condition.double())
    # Splines are computed in float32, and some are nearly flat.
    torch.testing.assert_close(back.float(), z, rtol=0, atol=0.02)
    torch.testing.assert_close(model(back, mask, condition.double())[0], there, rtol=0, atol=1e-4)


def test_the_log_determinant_is_the_jacobians() -> None:
    z, mask, condition = given(1, 3)
    model = flow()
    jacobian = torch.autograd.functional.jacobian(lambda flat: model(flat.view(1, 2, 3), mask, condition)[0], z)
    expected = jacobian.view(6, 6).slogdet().logabsdet
    torch.testing.assert_close(model(z, mask, condition)[1][0], expected, rtol=1e-3, atol=1e-3)


def test_padding_adds_nothing_and_changes_no_real_position() -> None:
    z, _, condition = given(2, 9)
    mask = real_positions(torch.tensor([9, 5]), 9)
    model = flow()
    there, log_determinant = model(z * mask, mask, condition)
    alone, its_own = model(z[1:, :, :5], mask[1:, :, :5], condition[1:, :, :5])
    torch.testing.assert_close(there[1:, :, :5], alone)
    torch.testing.assert_close(log_determinant[1:], its_own)
    assert not there[1, :, 5:].any()


def test_convolutions_reach_as_far_as_their_dilations() -> None:
    model = SeparableConvolutions(8).eval()
    fill.fill(model)
    x = torch.randn(1, 8, 41, generator=torch.Generator().manual_seed(1)).requires_grad_()
    model(x, torch.ones(1, 1, 41, dtype=torch.bool))[0, :, 20].sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(dim=0).nonzero()[:, 0]
    assert (int(reached.min()), int(reached.max())) == (20 - 13, 20 + 13)  # 1 + 3 + 9
