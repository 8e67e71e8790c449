"""Weights that are trained on and weights that are used, where an optimizer has both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tts_kernel.optim.optimizers import build, parameter_groups, training_mode
from tts_kernel.training.used_weights import at_rest, two_kinds


def trained(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A layer after five steps, in the middle of training."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = build(name, parameter_groups([model], 0.1, 0.0))  # type: ignore[arg-type]
    training_mode(optimizer)
    for _ in range(5):
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_at_rest_a_schedule_free_model_has_other_weights_and_gets_its_own_back_to_the_bit() -> None:
    model, optimizer = trained("schedulefree")
    assert two_kinds(optimizer)
    before = weights(model)
    with at_rest(optimizer):
        assert not equal(weights(model), before)
    assert equal(weights(model), before)
    with pytest.raises(ZeroDivisionError), at_rest(optimizer):
        raise ZeroDivisionError
    assert equal(weights(model), before), "also after an error"


def test_rest_twice_is_the_same_and_training_goes_on_after_both() -> None:
    model, optimizer = trained("schedulefree")
    before = weights(model)
    with at_rest(optimizer):
        used = weights(model)
    with at_rest(optimizer):
        assert equal(weights(model), used)
    assert optimizer.param_groups[0]["train_mode"]
    assert equal(weights(model), before)


def test_any_other_optimizer_has_one_kind() -> None:
    model, optimizer = trained("adamw")
    assert not two_kinds(optimizer)
    before = weights(model)
    with at_rest(optimizer):
        assert equal(weights(model), before)
