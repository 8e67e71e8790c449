"""An update at its rate; one that is not finite is refused, whole and told. By a stub, and in whole runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.tiny_voice import CONFIG, Bench, differing
from tests.training.loop import LONG, at_step, before_update, change_sums, spoil
from tts_kernel.data.batch import Batch
from tts_kernel.recipes.indextts2.objective import PairObjective
from tts_kernel.runs import Run
from tts_kernel.training.guarded import GuardedUpdater
from tts_kernel.training.outcome import LoopSettings, TrainingError
from tts_kernel.training.processes import Processes
from tts_kernel.training.state import Standing
from tts_kernel.training.update import Updated

NAN = float("nan")
TAKEN = Updated(means={"mel": 1.0}, tokens=3, norm=0.5, rate=0.1, taken=True)
BAD = replace(TAKEN, means={"mel": NAN}, norm=NAN, taken=False)
BATCH: Any = SimpleNamespace(idle=False, position=None, facts=lambda: [{"id": "clip_17"}])


class Stub:
    """Takes no steps, and says what it is told to say."""

    def __init__(self, *answers: Updated | Exception) -> None:
        self.answers, self.parts, self.cleared = list(answers), 1, 0

    def __call__(self, micro_batches: Sequence[Any], totals: Mapping[str, int]) -> Updated:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def clear(self) -> None:
        self.cleared += 1

    def advice(self, batch_size: int, grad_accumulation: int) -> str:
        return f"half of {batch_size} x {grad_accumulation}"


def guarded(folder: Path, *answers: Updated | Exception, **settings: Any) -> tuple[GuardedUpdater, Any, Stub]:
    model = torch.nn.Linear(2, 2)
    state: Any = SimpleNamespace(
        now=Standing(),
        model=model,
        optimizer=torch.optim.SGD([{"params": [model.weight], "lr": 0.4}, {"params": [model.bias], "lr": 0.2}]),
        plan=SimpleNamespace(batch_size=6),
        processes=Processes(torch.device("cpu")),
    )
    stub: Any = Stub(*answers)
    return GuardedUpdater(stub, state, lambda step: 1 / (1 + step), Run(folder), LoopSettings(**settings)), state, stub


def test_every_group_has_the_schedules_share_of_its_own_peak_lowered_by_rollbacks(tmp_path: Path) -> None:
    update, state, _ = guarded(tmp_path, TAKEN, TAKEN, TAKEN)
    rates = []
    for scale in (1.0, 1.0, 0.5):
        state.now.rate_scale = scale
        update([BATCH], {})
        rates.append([group["lr"] for group in state.optimizer.param_groups])
    assert rates == [pytest.approx([0.4, 0.2]), pytest.approx([0.2, 0.1]), pytest.approx([0.4 / 6, 0.2 / 6])]
    assert state.now.step == 3


def test_a_step_that_is_not_taken_counts_as_a_step_and_one_that_is_taken_ends_the_row(tmp_path: Path) -> None:
    update, state, stub = guarded(tmp_path, BAD, BAD, TAKEN, BAD, max_bad_steps=3)
    counted = []
    for _ in range(4):
        update([BATCH], {})
        counted.append((state.now.step, state.now.bad_steps))
    assert counted == [(1, 1), (2, 2), (3, 0), (4, 1)]
    assert stub.cleared == 3
    assert sorted(path.name for path in (tmp_path / "bad_steps").iterdir()) == [
        f"step_{number:05d}.json" for number in (1, 2, 4)
    ]


def test_a_step_refused_for_its_loss_scale_is_no_bad_one(tmp_path: Path) -> None:
    update, state, stub = guarded(tmp_path, replace(BAD, excused=True), max_bad_steps=1)
    update([BATCH], {})
    assert (state.now.bad_steps, stub.cleared) == (0, 1)
    assert not (tmp_path / "bad_steps").exists()


def test_the_last_of_too_many_bad_steps_in_a_row_is_written_too(tmp_path: Path) -> None:
    update, _, _ = guarded(tmp_path, BAD, BAD, max_bad_steps=2)
    update([BATCH], {})
    with pytest.raises(TrainingError, match=r"clip_17.* 2 in a row \(max_bad_steps\)"):
        update([BATCH], {})
    assert json.loads((tmp_path / "bad_steps" / "step_00002.json").read_text(encoding="utf-8"))["losses"] == {
        "mel": None
    }


def test_out_of_memory_names_the_step_and_the_updaters_advice(tmp_path: Path) -> None:
    update, state, _ = guarded(tmp_path, torch.OutOfMemoryError("CUDA out of memory"), grad_accumulation=4)
    with pytest.raises(TrainingError, match=r"step 1: out of GPU memory at batch_size 6; .* with half of 6 x 4"):
        update([BATCH], {})
    assert state.now.step == 0


# In whole runs


def weights_by_step(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The trained weights as they are before each update."""
    found: list[dict[str, torch.Tensor]] = []
    before_update(
        monkeypatch,
        lambda updater: found.append({n: p.detach().clone() for n, p in updater.objective.model.named_parameters()}),
    )
    return found


def test_a_bad_update_is_not_taken_and_all_there_is_to_know_is_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    spoil(monkeypatch, {1})
    weights = weights_by_step(monkeypatch)
    outcome = bench.train(**{**LONG, "log_every": 1})
    assert (outcome.status, outcome.step) == ("finished", 9)
    assert not differing(weights[1], weights[2])
    assert differing(weights[2], weights[3])
    assert bench.run().series("train/skipped") == ([*range(1, 10)], [0.0, 1.0, *[0.0] * 7])
    facts = json.loads((bench.run().folder / "bad_steps" / "step_00002.json").read_text(encoding="utf-8"))
    assert facts["step"] == 2
    assert facts["losses"]["mel"] is None
    assert math.isfinite(facts["losses"]["text"])
    assert facts["gradient_norm"] is None
    assert len(facts["pairs"]) == 10
    assert all(pair["text_tokens"] > 0 and pair["codes"] > 0 for pair in facts["pairs"])
    assert facts["parameters"]["mel_head.bias"] == CONFIG.number_mel_codes
    assert "step 2: the loss or its gradient is not finite" in heard.text
    assert facts["pairs"][0]["id"] in heard.text


def test_a_gradient_alone_that_is_not_finite_is_not_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]

    def poison(objective: PairObjective, batch: Batch, sums: dict[str, Any]) -> None:
        calls[0] += 1
        if calls[0] == 4:  # the second update's second micro-batch
            handle = objective.model.mel_head.bias.register_hook(lambda gradient: gradient * NAN)
            at_step(monkeypatch, lambda step: handle.remove())

    change_sums(monkeypatch, poison)
    weights = weights_by_step(monkeypatch)
    assert bench.train(epochs=2, log_every=1).status == "finished"
    assert not differing(weights[1], weights[2])
    facts = json.loads((bench.run().folder / "bad_steps" / "step_00002.json").read_text(encoding="utf-8"))
    assert all(math.isfinite(value) for value in facts["losses"].values())
    assert facts["parameters"] == {"mel_head.bias": CONFIG.number_mel_codes}


def test_too_many_bad_updates_in_a_row_stop_the_run_with_its_checkpoint_untouched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {4, 5, 6})
    with pytest.raises(TrainingError, match=r"step 7: .*3 in a row \(max_bad_steps\).*lower learning_rate"):
        bench.train(**LONG)
    assert bench.saved()["step"] == 4
    assert all(value.isfinite().all() for value in bench.saved()["model"].values() if value.is_floating_point())


def test_bad_updates_that_are_not_in_a_row_go_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {1, 2, 4, 5, 7})
    assert bench.train(**LONG).status == "finished"
    assert sorted(path.name for path in (bench.run().folder / "bad_steps").iterdir()) == [
        f"step_{number:05d}.json" for number in (2, 3, 5, 6, 8)
    ]


def test_a_refused_update_leaves_the_statistics_of_norms_as_they_were(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forward pass changes them, and they would stay spoilt for ever."""

    def spoil_vector(objective: PairObjective, batch: Batch, sums: dict[str, Any]) -> None:
        norm = objective.model.speaker_classifier.norm
        norm.running_mean.data.fill_(NAN)
        sums["mel"] = sums["mel"] * NAN

    now = [0]
    at_step(monkeypatch, lambda step: now.__setitem__(0, step))
    change_sums(
        monkeypatch, lambda objective, batch, sums: spoil_vector(objective, batch, sums) if now[0] == 1 else None
    )
    assert bench.train(**LONG).status == "finished"
    assert bench.saved()["model"]["speaker_classifier.norm.running_mean"].isfinite().all()
