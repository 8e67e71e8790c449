from __future__ import annotations

import pytest
import torch
from torch import nn

from tts_kernel.optim.optimizers import build, effective_rate, parameter_groups


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Embedding(3, 4))


def test_matrices_decay_and_vectors_do_not() -> None:
    groups = parameter_groups([network()], 0.1, 0.05)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.05), (0.1, 0.0)]
    assert [[parameter.ndim for parameter in group["params"]] for group in groups] == [[2, 2], [1, 1, 1]]


def test_every_trainable_parameter_of_every_module_is_there_once() -> None:
    modules = [network(), nn.Linear(2, 2)]
    grouped = [parameter for group in parameter_groups(modules, 0.1, 0.05) for parameter in group["params"]]
    expected = [parameter for module in modules for parameter in module.parameters()]
    assert len(grouped) == len(expected)
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in expected}


def test_frozen_parameters_are_left_out() -> None:
    net = network()
    net[0].requires_grad_(False)
    grouped = {id(parameter) for group in parameter_groups([net], 0.1, 0.05) for parameter in group["params"]}
    assert grouped == {id(parameter) for parameter in [*net[1].parameters(), *net[2].parameters()]}


def test_a_group_without_parameters_is_left_out() -> None:
    assert [group["weight_decay"] for group in parameter_groups([nn.LayerNorm(4)], 0.1, 0.05)] == [0.0]
    assert [group["weight_decay"] for group in parameter_groups([nn.Embedding(3, 4)], 0.1, 0.05)] == [0.05]
    assert parameter_groups([network().requires_grad_(False)], 0.1, 0.05) == []


@pytest.mark.parametrize("name", ["adamw", "prodigy"])
def test_without_a_gradient_only_matrices_shrink(name: str) -> None:
    net = network()
    nn.init.ones_(net[0].bias)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = build(name, parameter_groups([net], 1.0, 0.5))  # type: ignore[arg-type]
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in net.state_dict().items():
        factor = 1 - effective_rate(optimizer) * 0.5 if before[key].ndim == 2 else 1.0
        torch.testing.assert_close(value, before[key] * factor, rtol=1e-6, atol=0)
    assert effective_rate(optimizer) > 0


@pytest.mark.parametrize("name", ["adamw", "prodigy"])
def test_an_optimizer_by_either_name_lowers_a_loss(name: str) -> None:
    net, x, goal = nn.Linear(4, 2), torch.randn(32, 4), torch.randn(32, 2)
    optimizer = build(name, parameter_groups([net], 1.0 if name == "prodigy" else 0.01, 0.0))  # type: ignore[arg-type]
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (net(x) - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_two_groups_of_two_rates_keep_theirs() -> None:
    body, head = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = build("adamw", [*parameter_groups([body], 0.1, 0.0), *parameter_groups([head], 0.5, 0.0)])
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1, 0.5, 0.5]


def test_the_effective_rate_of_adamw_is_the_scheduled_one() -> None:
    optimizer = build("adamw", parameter_groups([network()], 0.25, 0.0))
    optimizer.param_groups[0]["lr"] = 0.125
    assert effective_rate(optimizer) == 0.125


@pytest.mark.parametrize("d_coef", [1.0, 2.0])
def test_the_effective_rate_of_prodigy_is_its_estimate_times_the_scheduled_one(d_coef: float) -> None:
    weight = nn.Parameter(torch.tensor([[3.0, -2.0]]))
    holder = nn.ParameterList([weight])
    optimizer = build("prodigy", parameter_groups([holder], 1.0, 0.0), d_coef)
    start = effective_rate(optimizer)
    for _ in range(20):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    estimate = optimizer.param_groups[0]["d"]
    assert effective_rate(optimizer) == estimate > 10 * start, "Prodigy has not raised its estimate"
    optimizer.param_groups[0]["lr"] = 0.5
    assert effective_rate(optimizer) == pytest.approx(0.5 * estimate)
    assert optimizer.param_groups[0]["d_coef"] == d_coef


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="optimizer is 'adam', expected 'adamw' or 'prodigy'"):
        build("adam", parameter_groups([network()], 0.1, 0.0))  # type: ignore[arg-type]
