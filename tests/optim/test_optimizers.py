from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tts_kernel.optim.optimizers import (
    OptimizerName,
    build,
    effective_rate,
    evaluation_mode,
    parameter_groups,
    training_mode,
)
from tts_kernel.optim.schedules import learning_rate

NAMES: tuple[OptimizerName, ...] = ("adamw", "prodigy", "schedulefree")
RATES = {"adamw": 0.01, "prodigy": 1.0, "schedulefree": 0.02}


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


class Task:
    """A regression, and the loop around an optimizer as the trainer has it: the rate comes from a schedule of ours."""

    def __init__(self, name: OptimizerName, warmup: int = 5, fused: bool = True, decay: float = 0.01) -> None:
        torch.manual_seed(1)
        self.x, self.goal = torch.randn(32, 4), torch.randn(32, 2)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        self.optimizer = build(name, parameter_groups([self.net], RATES[name], decay), fused=fused)
        self.factor, self.step, self.peak = learning_rate("constant", warmup=warmup, total=100), 0, RATES[name]
        training_mode(self.optimizer)

    def train(self, steps: int) -> Task:
        for _ in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak * self.factor(self.step)
            self.optimizer.zero_grad()
            (self.net(self.x) - self.goal).square().mean().backward()
            self.optimizer.step()
            self.step += 1
        return self

    @torch.no_grad()
    def loss(self) -> float:
        evaluation_mode(self.optimizer)
        value = (self.net(self.x) - self.goal).square().mean().item()
        training_mode(self.optimizer)
        return value

    def weights(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.net.parameters()]

    def saved(self) -> dict[str, Any]:
        """As in a checkpoint: with the weights that are to be used."""
        evaluation_mode(self.optimizer)
        content = {"model": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        content = copy.deepcopy(content)
        training_mode(self.optimizer)
        return content

    def resume(self, content: dict[str, Any]) -> Task:
        self.net.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step = content["step"]
        training_mode(self.optimizer)
        return self


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_by_any_name_lowers_a_loss(name: OptimizerName) -> None:
    task = Task(name)
    before = task.loss()
    assert task.train(60).loss() < 0.9 * before


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_of_zero_at_the_first_step_of_a_warm_up_leaves_the_weights(name: OptimizerName) -> None:
    task = Task(name)
    before = task.weights()
    assert task.train(1).optimizer.param_groups[0]["lr"] == 0.0
    for value, earlier in zip(task.weights(), before, strict=True):
        torch.testing.assert_close(value, earlier, rtol=1e-6, atol=1e-8)
    task.train(5)
    assert all(value.isfinite().all() for value in task.weights())
    assert any((value != earlier).any() for value, earlier in zip(task.weights(), before, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_resume_takes_the_same_steps(name: OptimizerName) -> None:
    whole = Task(name).train(12)
    content = whole.saved()
    whole.train(8)
    resumed = Task(name).train(3).resume(content).train(8)
    assert all(torch.equal(*pair) for pair in zip(whole.weights(), resumed.weights(), strict=True))
    assert effective_rate(whole.optimizer) == effective_rate(resumed.optimizer)


def test_fused_adamw_takes_the_steps_of_the_other() -> None:
    fused, plain = Task("adamw").train(20), Task("adamw", fused=False).train(20)
    assert fused.optimizer.param_groups[0]["fused"]
    assert not plain.optimizer.param_groups[0]["fused"]
    for pair in zip(fused.weights(), plain.weights(), strict=True):
        torch.testing.assert_close(*pair)


def test_prodigy_has_the_guides_values_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = build("prodigy", parameter_groups([network()], 1.0, 0.01))
    group = optimizer.param_groups[0]
    guide = {"lr": 1.0, "weight_decay": 0.01, "d_coef": 1.0, "use_bias_correction": False, "safeguard_warmup": False}
    assert {name: group[name] for name in guide} == guide
    assert capsys.readouterr().out == ""


def test_schedule_free_has_other_weights_to_use_than_to_train_on() -> None:
    task = Task("schedulefree").train(30)
    trained_on = task.weights()
    evaluation_mode(task.optimizer)
    used = task.weights()
    evaluation_mode(task.optimizer)  # twice is once
    assert all(torch.equal(*pair) for pair in zip(used, task.weights(), strict=True))
    assert any((a != b).any() for a, b in zip(used, trained_on, strict=True))
    training_mode(task.optimizer)
    for pair in zip(task.weights(), trained_on, strict=True):
        torch.testing.assert_close(*pair)


@pytest.mark.parametrize("name", ["adamw", "prodigy"])
def test_the_modes_change_nothing_of_the_other_optimizers(name: OptimizerName) -> None:
    task = Task(name).train(3)
    before = task.weights()
    evaluation_mode(task.optimizer)
    training_mode(task.optimizer)
    assert all(torch.equal(*pair) for pair in zip(task.weights(), before, strict=True))


def test_the_effective_rate_of_schedule_free_is_the_scheduled_one() -> None:
    task = Task("schedulefree", warmup=10).train(5)
    task.optimizer.param_groups[0]["lr"] = task.peak * task.factor(5)
    assert effective_rate(task.optimizer) == pytest.approx(0.01)


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
    with pytest.raises(ValueError, match="optimizer is 'adam', expected 'adamw', 'prodigy' or 'schedulefree'"):
        build("adam", parameter_groups([network()], 0.1, 0.0))  # type: ignore[arg-type]
