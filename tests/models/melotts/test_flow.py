from __future__ import annotations

import torch
from torch import Tensor

from tests.models.melotts.tiny_models import CONFIG, speaker, synthesizer, without_gradient
from tts_kernel.models.melotts.flow import TransformerFlow
from tts_kernel.models.melotts.layers import real_positions


def latents(rows: int = 3, n: int = 9) -> Tensor:
    return torch.randn(rows, 6, n, generator=torch.Generator().manual_seed(4))


def test_the_inverse_undoes_it() -> None:
    flow, mask = synthesizer().flow, real_positions(torch.tensor([9, 5, 7]), 9)
    z = latents() * mask
    there = flow(z, mask, speaker())
    assert not torch.allclose(there, z, atol=0.1)
    torch.testing.assert_close(flow.inverse(there, mask, speaker()), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(flow(flow.inverse(z, mask, speaker()), mask, speaker()), z, rtol=1e-4, atol=1e-4)


def test_it_keeps_volumes() -> None:
    flow, mask = synthesizer().flow, torch.ones(1, 1, 3, dtype=torch.bool)
    jacobian = torch.autograd.functional.jacobian(
        lambda flat: flow(flat.view(1, 6, 3), mask, speaker(1)).flatten(), latents(1, 3).flatten()
    )
    assert not torch.allclose(jacobian.abs(), torch.eye(18), atol=0.1)
    torch.testing.assert_close(jacobian.slogdet().logabsdet, torch.tensor(0.0), rtol=0, atol=1e-4)


def test_padding_changes_no_real_frame_and_stays_zero() -> None:
    flow, mask = synthesizer().flow, real_positions(torch.tensor([9, 5, 7]), 9)
    z = latents() * mask
    for apply in (flow, flow.inverse):
        both = apply(z, mask, speaker())
        torch.testing.assert_close(both[1:2, :, :5], apply(z[1:2, :, :5], mask[1:2, :, :5], speaker()[1:2]))
        assert not both[1, :, 5:].any()


def test_a_fresh_flow_keeps_every_value() -> None:
    z, mask = latents(), torch.ones(3, 1, 9, dtype=torch.bool)
    assert torch.equal(TransformerFlow(CONFIG).eval()(z, mask, speaker()), z)


def test_every_parameter_learns() -> None:
    flow, mask = synthesizer().flow, torch.ones(3, 1, 9, dtype=torch.bool)
    flow(latents(), mask, speaker()).square().sum().backward()
    assert [name for name in without_gradient(flow) if not name.endswith("conv_k.bias")] == []
