"""One update of a generator and its critics, by a toy whose steps can be taken by hand."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.house.project import ROOT
from tts_kernel.training.adversarial import AdversarialUpdater, LossScale
from tts_kernel.training.processes import Processes


@dataclass(frozen=True)
class Toys:
    """A batch: numbers to imitate."""

    real: Tensor  # (rows, 4)
    ids: list[str] = field(default_factory=list)
    position: Any = None
    idle: bool = False

    def to(self, device: torch.device) -> Toys:
        return self


class Toy(nn.Module):
    """Two critics judge a line that should look like the batch."""

    weights: Mapping[str, float] = {"near": 3.0, "adv": 1.0, "one": 1.0, "two": 1.0}
    names = ("near", "adv", "one", "two")
    tokens = watched = ("near",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Linear(4, 4)
        self.critics = nn.ModuleDict({"one": nn.Linear(4, 1), "two": nn.Linear(4, 1)})
        self.fault = 1.0  # on the generator's loss

    def counts(self, batch: Toys) -> dict[str, int]:
        return dict.fromkeys(self.names, len(batch.real))

    def say(self, batch: Toys) -> Tensor:
        return self.generator(batch.real)

    def judge(self, batch: Toys, said: Tensor) -> dict[str, Tensor]:
        return {
            name: ((1 - critic(batch.real)).square() + critic(said.detach()).square()).sum()
            for name, critic in self.critics.items()
        }

    def please(self, batch: Toys, said: Tensor) -> dict[str, Tensor]:
        adversarial = sum((1 - critic(said)).square().sum() for critic in self.critics.values())
        return {"near": self.fault * (said - batch.real).abs().sum(), "adv": torch.as_tensor(adversarial)}


def adamw(*modules: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.AdamW(parameters, lr=0.01, betas=(0.8, 0.99), eps=1e-9, weight_decay=0.01)


def updater(toy: Any, scale: LossScale | None = None, grad_clip: float = 1e9) -> AdversarialUpdater:
    device = Processes(torch.device("cpu"))
    return AdversarialUpdater(toy, adamw(toy), device, grad_clip=grad_clip, autocast=nullcontext, scale=scale)


def batch(seed: int = 1, rows: int = 6) -> Toys:
    return Toys(torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)))


def take(update: AdversarialUpdater, *batches: Any) -> Any:
    return update(batches, update.totals(batches)[0])


def assert_same(one: nn.Module, other: nn.Module, **tolerance: Any) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], **tolerance)


def test_it_is_what_an_optimizer_for_each_network_does() -> None:
    toy = Toy()
    theirs = copy.deepcopy(toy)
    update = updater(toy)
    separate = [adamw(theirs.generator), adamw(theirs.critics["one"]), adamw(theirs.critics["two"])]
    for step in range(5):
        given = batch(step)
        take(update, given)
        said = theirs.say(given)
        judged = theirs.judge(given, said)
        for optimizer, name in zip(separate[1:], judged, strict=True):
            optimizer.zero_grad()
            (judged[name] / 6).backward()
            optimizer.step()
        pleased = theirs.please(given, said)
        separate[0].zero_grad()
        ((3.0 * pleased["near"] + pleased["adv"]) / 6).backward()
        separate[0].step()
    assert_same(toy, theirs, rtol=1e-5, atol=1e-6)


def test_losses_are_means_over_all_micro_batches() -> None:
    whole, split = Toy(), Toy()
    given = batch()
    one = take(updater(whole), given)
    other = take(updater(split), Toys(given.real[:1]), Toys(given.real[1:]))
    assert one.means == pytest.approx(other.means)
    assert_same(whole, split, rtol=1e-4, atol=1e-6)


def test_an_idle_process_adds_nothing() -> None:
    alone, accompanied = Toy(), Toy()
    given = batch()
    one = take(updater(alone), given)
    other = take(updater(accompanied), given, Toys(batch(2).real, idle=True))
    assert one.means == pytest.approx(other.means)
    assert_same(alone, accompanied, rtol=1e-4, atol=1e-6)


def test_the_metrics_tell_the_rate_and_every_networks_gradient() -> None:
    done = take(updater(Toy()), batch())
    assert done.taken
    assert set(done.extra) == {"learning_rate", "grad_norm/g", "grad_norm/one", "grad_norm/two"}
    assert done.extra["learning_rate"] == 0.01
    assert done.norm == done.extra["grad_norm/g"] > 0


def test_each_networks_gradient_is_clipped_by_itself() -> None:
    free, clipped = Toy(), Toy()
    take(updater(free), batch())
    before = copy.deepcopy(clipped)
    update = updater(clipped, grad_clip=1e-12)  # eps of AdamW then shortens the step
    take(update, batch())
    for name, value in clipped.state_dict().items():
        moved, whole = (value - before.state_dict()[name]).abs().max(), 0.01
        assert moved < 0.5 * whole
    assert (free.generator.weight - before.generator.weight).abs().max() > 0.005


def test_a_generators_gradient_that_is_not_finite_is_not_taken() -> None:
    toy = Toy()
    update = updater(toy)
    toy.fault = float("nan")
    before = copy.deepcopy(toy.generator)
    done = take(update, batch())
    assert (done.taken, done.excused) == (False, False)
    assert done.stands == "the generator's weights are as they were"
    assert_same(toy.generator, before, rtol=0, atol=0)
    assert any(parameter.grad is not None for parameter in toy.generator.parameters())  # for the report
    update.clear()
    toy.fault = 1.0
    assert take(update, batch()).taken


def test_critics_that_are_not_finite_stop_both_steps() -> None:
    toy = Toy()
    nn.init.constant_(toy.critics["one"].get_parameter("bias"), float("inf"))
    before = copy.deepcopy(toy)
    done = take(updater(toy), batch())
    assert not done.taken
    assert done.stands == "the weights are as they were"
    assert_same(toy, before, rtol=0, atol=0, equal_nan=True)


def test_an_overflow_at_the_first_step_lowers_the_scale_until_it_fits() -> None:
    toy = Toy()
    update = updater(toy, LossScale(2.0**130))  # beyond float32
    before = copy.deepcopy(toy.generator)
    scales = []
    while not (done := take(update, batch())).taken:
        assert done.excused
        assert_same(toy.generator, before, rtol=0, atol=0)
        update.clear()
        scales.append(done.extra["loss_scale"])
    assert scales[:2] == [2.0**129, 2.0**128]
    assert len(scales) < 10


def test_a_scale_changes_no_step() -> None:
    plain, scaled = Toy(), Toy()
    for step in range(3):
        take(updater(plain), batch(step))
        take(updater(scaled, LossScale(1024.0)), batch(step))
    assert_same(plain, scaled, rtol=1e-5, atol=1e-7)


def test_a_loss_that_is_no_number_is_not_the_scales_fault() -> None:
    toy = Toy()
    toy.fault = float("nan")
    update = updater(toy, LossScale(1024.0))
    assert not take(update, batch()).excused
    assert update.scale == LossScale(1024.0)


def test_the_scale_grows_again_and_is_resumed() -> None:
    scale = LossScale(8.0, patience=2)
    scale.lower()
    scale.keep()
    assert (scale.value, scale.good) == (4.0, 1)
    update = updater(Toy(), scale)
    other = updater(Toy(), LossScale())
    other.restore(update.state())
    assert other.scale == scale
    take(other, batch())
    assert other.scale == LossScale(8.0, 0, 2)


SHARED = """
import sys
import torch
from tests.training.test_adversarial import Toy, Toys, adamw, batch
from contextlib import nullcontext
from tts_kernel.training.adversarial import AdversarialUpdater
from tts_kernel.training.processes import Processes

processes = Processes.from_environment("cpu")
toy = Toy()
update = AdversarialUpdater(toy, adamw(toy), processes, grad_clip=1e9, autocast=nullcontext)
means = []
for step in range(3):
    whole = batch(step).real
    share = Toys(whole[:4] if processes.main else whole[4:])
    means.append(dict(update([share], update.totals([share])[0]).means))
torch.save({"weights": toy.state_dict(), "means": means}, f"{sys.argv[1]}.{processes.rank}")
"""


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    alone = Toy()
    update = updater(alone)
    means = [dict(take(update, batch(step)).means) for step in range(3)]
    (tmp_path / "shared.py").write_text(SHARED, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "shared.py"), str(tmp_path / "found")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        found = torch.load(tmp_path / f"found.{rank}", weights_only=True)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(found["weights"][name], value, rtol=1e-4, atol=1e-6)
        for mine, theirs in zip(means, found["means"], strict=True):
            assert theirs == pytest.approx(mine, rel=1e-5)
