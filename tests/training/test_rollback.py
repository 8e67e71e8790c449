"""Where a rollback goes back to, by a folder that only answers, and whole runs that spike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.tiny_voice import Bench
from tests.training.loop import at_step, before_update, spoil
from tts_kernel.models.weights import CheckpointError
from tts_kernel.training.guards import MOST_ROLLBACKS, Spike
from tts_kernel.training.outcome import TrainingError
from tts_kernel.training.rollback import content_before, roll_back
from tts_kernel.training.state import Standing
from tts_kernel.training.trainer import Trainer
from tts_kernel.training.update import Updater

SPIKE = Spike(value=6.0, usual=3.0, spread=0.1, updates=5)


class Saved:
    """Healthy checkpoints of these steps."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def read_last_good(self, before: int) -> dict[str, int]:
        usable = [step for step in self.steps if step < before]
        if not usable:
            raise CheckpointError("none that is whole")
        return {"step": max(usable)}


def goes_to(now: Standing, *steps: int) -> int:
    saved: Any = Saved(*steps)
    return content_before(now.step - SPIKE.updates + 1, SPIKE, now, saved)["step"]


def test_the_newest_checkpoint_whose_weights_were_judged_is_gone_back_to() -> None:
    """Update 34 is the first out of range: its loss is that of the weights of step 33, the one before of step 32."""
    now = Standing(step=38)
    assert goes_to(now, 20, 31, 32, 33, 34) == 32
    assert goes_to(now, 20, 33, 34) == 20


def test_a_spike_at_the_same_place_goes_back_further_and_one_later_on_does_not() -> None:
    now = Standing(step=38, rollbacks=1, spiked_at=34, rolled_back_to=30)
    assert goes_to(now, 10, 20, 30) == 20
    later = Standing(step=138, rollbacks=1, spiked_at=34, rolled_back_to=30)
    assert goes_to(later, 10, 20, 30, 130) == 130


def test_where_nothing_is_older_the_same_checkpoint_is_tried_at_a_lower_rate() -> None:
    assert goes_to(Standing(step=38, rollbacks=1, spiked_at=34, rolled_back_to=30), 30) == 30


def test_without_a_good_checkpoint_the_error_says_what_to_change() -> None:
    with pytest.raises(TrainingError, match=r"step 38: the loss is 6.*none that is whole.*save_every"):
        goes_to(Standing(step=38), 33, 34)


def test_each_rollback_lowers_the_rate_once_more_and_the_last_is_refused_before_anything_is_read() -> None:
    told: list[str] = []
    state = SimpleNamespace(now=Standing(step=38))
    keeper: Any = SimpleNamespace(state=state, checkpoints=Saved(20), settle=lambda: told.append("settled"))

    def restore(content: dict[str, int]) -> None:
        told.append(f"restored {content['step']}")
        state.now = Standing(step=content["step"])  # what was saved knows of no rollback

    keeper.restore = restore
    roll_back(SPIKE, keeper, 0.5)
    assert (state.now.rollbacks, state.now.rate_scale) == (1, 0.5)
    assert (state.now.spiked_at, state.now.rolled_back_to) == (34, 20)
    state.now.step = 38
    roll_back(SPIKE, keeper, 0.5)
    assert (state.now.rollbacks, state.now.rate_scale) == (2, 0.25)
    assert told == ["settled", "restored 20"] * 2
    state.now.rollbacks = MOST_ROLLBACKS
    with pytest.raises(TrainingError, match=f"for the {MOST_ROLLBACKS + 1}th time"):
        roll_back(SPIKE, keeper, 0.5)
    assert len(told) == 4


# In whole runs


SPIKY: dict[str, Any] = {
    "epochs": 20,
    "save_every": 5,
    "keep_checkpoints": 2,
    "log_every": 1,
    "grl_schedule": "constant",
}


def test_a_spike_rolls_back_to_a_checkpoint_from_before_it_at_a_lower_rate(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    rates: list[float] = []
    before_update(monkeypatch, lambda updater: rates.append(updater.optimizer.param_groups[0]["lr"]))
    once = set(range(33, 60))
    spoil(monkeypatch, once, by=20.0)
    at_step(monkeypatch, lambda step: once.clear() if len(rates) >= 38 else None)  # it is over after the rollback
    outcome = bench.train(**SPIKY, on_spike="rollback", rollback_rate=0.25, schedule="constant")
    assert (outcome.status, outcome.step) == ("finished", 60)
    # The spike is sure in update 38; the checkpoint of step 35 was written within it, that of step 30 was not.
    assert "rolled back to step 30" in heard.text
    assert rates[:38] == [1e-3] * 38
    assert rates[38:] == [2.5e-4] * 30
    assert bench.saved()["standing"]["rollbacks"] == 1
    steps = bench.run().series("train/mel_loss")[0]
    assert steps == sorted(set(steps)), "what the rollback took back does not count twice"


def test_by_default_a_spike_is_told_and_nothing_else_happens(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    spoil(monkeypatch, set(range(33, 60)), by=20.0)
    outcome = bench.train(**SPIKY)
    assert (outcome.status, outcome.step) == ("finished", 60)
    assert heard.text.count("the loss is ") == 1
    assert bench.saved()["standing"]["rollbacks"] == 0


def test_a_run_that_spikes_again_and_again_stops(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, set(range(33, 60)), by=20.0)
    with pytest.raises(TrainingError, match=f"for the {MOST_ROLLBACKS + 1}th time"):
        bench.train(**SPIKY, on_spike="rollback")


def test_a_spike_before_the_first_checkpoint_stops_with_advice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, set(range(33, 60)), by=20.0)
    with pytest.raises(TrainingError, match=r"no good checkpoint to go back to.*save_every"):
        bench.train(**{**SPIKY, "save_every": 100}, on_spike="rollback")


def test_damage_done_just_before_a_save_is_not_rolled_back_to(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    """The weights of step 40 are spoilt, and nothing can tell before update 41's loss: the file of step 40 says that it
    is healthy."""
    spoilt: list[int] = []

    def damage(updater: Updater) -> None:
        if updater.optimizer.state and not spoilt and len(steps) == 40:
            spoilt.append(40)
            with torch.no_grad():
                updater.objective.model.get_parameter("mel_head.weight").mul_(40.0)

    steps: list[int] = []
    at_step(monkeypatch, lambda step: steps.append(step))
    own = Updater.__call__

    def update(self: Updater, *arguments: Any) -> Any:
        done = own(self, *arguments)
        damage(self)
        return done

    monkeypatch.setattr(Updater, "__call__", update)
    outcome = bench.train(**{**SPIKY, "save_every": 20, "keep_checkpoints": 1}, on_spike="rollback")
    assert (outcome.status, outcome.step) == ("finished", 60)
    assert spoilt
    assert "rolled back to step 20" in heard.text
    assert bench.saved()["standing"]["rollbacks"] == 1


def test_a_run_killed_right_after_a_rollback_goes_on_from_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, set(range(33, 60)), by=20.0)
    own = Trainer._roll_back

    def killed(self: Trainer, spike: Spike) -> None:
        own(self, spike)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_roll_back", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.train(**SPIKY, on_spike="rollback")
    saved = bench.saved()
    assert (saved["step"], saved["standing"]["rollbacks"], saved["standing"]["rate_scale"]) == (30, 1, 0.5)
