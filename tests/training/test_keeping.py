"""A toy's run saved and brought back; exact resumes of a real one are in test_resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tts_kernel.data.sampler import BatchPlan, Position
from tts_kernel.models.weights import CheckpointError
from tts_kernel.runs import Run
from tts_kernel.training.guards import SpikeWatch
from tts_kernel.training.keeping import Keeper
from tts_kernel.training.outcome import LoopSettings, TrainingError
from tts_kernel.training.processes import Processes
from tts_kernel.training.progress import Interval
from tts_kernel.training.state import RunState


class Stub:
    """Takes no steps; remembers what it is given back."""

    def __init__(self) -> None:
        self.parts, self.kept = 1, {"value": 8.0}

    def state(self) -> dict[str, Any]:
        return dict(self.kept)

    def restore(self, state: dict[str, Any]) -> None:
        self.kept = dict(state)


def keeper(folder: Path, rate: float = 0.1, seed: int = 0, **settings: Any) -> Keeper:
    run = Run(folder / "run")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = nn.Linear(2, 2)
    state = RunState(
        model,
        torch.optim.AdamW(model.parameters()),
        BatchPlan(np.arange(8), np.full(8, 3), 8, 2),
        Processes(torch.device("cpu")),
        identity={"seed": settings.pop("identity", 0), "horizon": 4},
        digest=lambda count: count,
        settings={"learning_rate": rate},
    )
    updater: Any = Stub()
    return Keeper(run, state, LoopSettings(**settings), updater, Interval(), SpikeWatch())


def test_all_that_the_loop_has_in_hand_comes_back(tmp_path: Path) -> None:
    before = keeper(tmp_path)
    before.state.now.step, before.state.now.position = 3, Position(0, 0, 6)
    before.interval.add({"train/loss": 2.0})
    for _ in range(30):
        before.watch.add(3.0)
    before.watch.add(9.0)
    before.updater.restore({"value": 2.0})
    before.save()
    after = keeper(tmp_path, seed=1)
    assert after.resume()
    for one, other in zip(before.state.model.parameters(), after.state.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (after.state.now.step, after.saved_at) == (3, 3)
    assert after.interval.steps == [{"train/loss": 2.0}]
    assert after.watch.suspicious
    assert after.updater.state() == {"value": 2.0}


def test_the_guides_scaler_repeats_the_updaters_state_and_a_resume_does_not_read_it(tmp_path: Path) -> None:
    one = keeper(tmp_path)
    one.save()
    path = one.checkpoints.latest_full
    content = torch.load(path, weights_only=True)
    assert content["scaler"] == content["standing"]["updater"] == {"value": 8.0}
    after = keeper(tmp_path)
    after.restore({**content, "scaler": {"value": 1.0}})
    assert after.updater.state() == {"value": 8.0}
    one.updater.restore({})
    one.save()
    assert torch.load(path, weights_only=True)["scaler"] is None


def test_a_folder_without_a_checkpoint_is_no_resume(tmp_path: Path) -> None:
    fresh = keeper(tmp_path)
    assert not fresh.resume()
    assert fresh.saved_at == -1


def test_a_run_of_other_facts_is_refused_as_it_stands(tmp_path: Path) -> None:
    keeper(tmp_path).save()
    other = keeper(tmp_path, seed=1, identity=5)
    before = [p.clone() for p in other.state.model.parameters()]
    with pytest.raises(TrainingError, match="seed: 0 when it was saved, 5 now"):
        other.resume()
    assert all(torch.equal(a, b) for a, b in zip(before, other.state.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("rate", "on_spike", "kept"), [(0.1, "rollback", True), (0.2, "rollback", False), (0.1, "warn", False)]
)
def test_a_lowered_rate_stays_lowered_unless_another_is_asked_for(
    tmp_path: Path, rate: float, on_spike: str, kept: bool
) -> None:
    lowered = keeper(tmp_path)
    lowered.state.now.rate_scale, lowered.state.now.rollbacks = 0.25, 2
    lowered.save()
    after = keeper(tmp_path, rate=rate, on_spike=on_spike)
    after.resume()
    assert (after.state.now.rate_scale, after.state.now.rollbacks) == ((0.25, 2) if kept else (1.0, 0))


@pytest.mark.parametrize(("on_out_of_memory", "parts"), [("split", 4), ("stop", 1)])
def test_smaller_passes_are_gone_on_with_where_they_are_still_asked_for(
    tmp_path: Path, on_out_of_memory: str, parts: int
) -> None:
    split = keeper(tmp_path)
    split.state.now.parts = 4
    split.save()
    after = keeper(tmp_path, on_out_of_memory=on_out_of_memory)
    after.resume()
    assert after.updater.parts == parts


def test_the_same_step_is_saved_once_and_the_caller_told_each_time(tmp_path: Path) -> None:
    one, told = keeper(tmp_path), list[int]()
    one.after_save = lambda state: told.append(state.now.step)
    one.save_if_new()
    one.save_if_new()
    one.state.now.step = 1
    one.save_if_new()
    assert told == [0, 1]


def test_what_could_not_be_written_is_raised_unless_something_else_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    one = keeper(tmp_path)

    def unwritten() -> None:
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(one.checkpoints, "close", unwritten)
    with pytest.raises(CheckpointError, match="the disk is full"), one.closing():
        pass
    assert "the disk is full" not in heard.text
    with pytest.raises(KeyboardInterrupt), one.closing():
        raise KeyboardInterrupt
    assert "the disk is full" in heard.text
