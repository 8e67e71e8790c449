"""From settings to a decision, on runs that were only written; carrying out is in test_phases."""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.recovery.histories import diverging, save, write_run
from tts_kernel.data.features.folder_lock import locked
from tts_kernel.recipes.indextts2 import Settings as RecipeSettings
from tts_kernel.recipes.indextts2.damaged import Damage
from tts_kernel.recovery import decide as module
from tts_kernel.recovery.choice import ChoiceError
from tts_kernel.recovery.decide import Decision, decide
from tts_kernel.recovery.journal import Journal, JournalError
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import Run, RunError


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With `voice`, which diverged at step 3,000 and has a checkpoint from amid the rise."""
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / "runs"))
    torch.save({"model": {}}, tmp_path / "base.pth")
    settings = RecipeSettings(data=str(tmp_path), base_checkpoint=str(tmp_path / "base.pth"), epochs=3)
    folder = write_run(tmp_path / "runs" / "voice", {"train/text_loss": diverging()}, **asdict(settings))
    save(folder / "checkpoints" / "step_03500.pth", 3500)
    return tmp_path / "runs"


def decided(runs: Path, name: str = "decision", **asked: Any) -> Decision:
    run = Run(runs / name)
    run.folder.mkdir(exist_ok=True)
    facts = {"learning_rate": 1e-3, "batch_size": 4, "rows": 4000}
    return decide(Settings(**{"damaged_run": "voice", "run_name": name, **facts, **asked}), run)


def test_what_is_known_and_advised_is_in_the_journal_before_anything_is_chosen(runs: Path) -> None:
    decision = decided(runs)
    kept = json.loads((runs / "decision" / "decision.json").read_text(encoding="utf-8"))
    assert kept["known"]["run"] == str(runs / "voice")
    assert kept["known"]["shape"] == "diverged"
    assert abs(kept["known"]["onset"]["step"] - 3000) < 200
    assert kept["weighed"]["weighed"][0]["option"]["name"] == decision.recommended
    assert "chosen" not in kept


def test_auto_is_the_recommendation_and_a_name_is_that_way(runs: Path) -> None:
    auto = decided(runs)
    assert (auto.by, auto.chosen) == ("recommendation", auto.choice.recommended)
    for name in ("phased", "restart"):
        asked = decided(runs, decision=name)
        assert asked.by == "parameters"
        assert asked.chosen is not None
        assert asked.chosen.option.name == name
    with pytest.raises(ChoiceError, match="'rewind' cannot be carried out"):
        assert decided(runs, decision="rewind").chosen


def test_a_report_chooses_plans_and_does_nothing(runs: Path) -> None:
    report = decided(runs, decision="report")
    assert report.chosen is None
    assert report.plan() is None
    assert report.carry_out() is None
    assert not Journal(Run(runs / "decision")).decided


def test_other_weights_weigh_the_same_ways_out(runs: Path) -> None:
    plain = decided(runs)
    quick = plain.weighed_by(time_weight=1.0, quality_weight=0.0, risk_weight=0.0)
    good = plain.weighed_by(time_weight=0.0, quality_weight=1.0, risk_weight=0.0)
    assert quick.options is plain.options
    assert quick.choice.wishes.quality == 0
    assert quick.choice.weighed != good.choice.weighed
    assert plain.choice.wishes.time == 1
    with pytest.raises(ChoiceError, match="nothing counts"):
        plain.weighed_by(time_weight=0.0, quality_weight=0.0, risk_weight=0.0)


def test_a_plan_that_was_begun_is_gone_on_with_whatever_is_advised_now(runs: Path) -> None:
    first = decided(runs, decision="phased")
    plan = first.plan()
    assert plan is not None
    first.journal.choose("phased", "parameters", plan.to_mapping())
    again = decided(runs, decision="auto", time_weight=0.0)
    assert again.plan() == plan
    with pytest.raises(JournalError, match="'phased' was chosen by parameters and begun, now 'restart' is asked"):
        decided(runs, decision="restart").plan()


def test_only_one_process_carries_a_decision_out(runs: Path) -> None:
    decision = decided(runs, decision="restart")
    with locked(runs / "decision" / ".deciding", fcntl.LOCK_EX), pytest.raises(RunError, match="carried out already"):
        decision.carry_out()
    assert not decision.journal.decided


def test_a_decision_is_about_one_run_and_no_run_itself(runs: Path) -> None:
    decided(runs)
    write_run(runs / "other", {"train/text_loss": diverging()}, **asdict(RecipeSettings()))
    with pytest.raises(JournalError, match=r"is about .*voice, now .*other is asked"):
        decided(runs, damaged_run="other")
    with pytest.raises(RunError, match="a training run is there, no decision"):
        decided(runs, "voice")


def test_only_the_demo_is_cut_short_and_it_is_damaged_as_asked(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, Damage, str]] = []

    def damage_demo(name: str, damage: Damage, device: str) -> None:
        made.append((name, damage, device))
        (runs / "voice").rename(runs / name)

    monkeypatch.setattr(module, "damage_demo", damage_demo)
    with pytest.raises(ChoiceError, match="nothing counts"):
        decided(runs, damaged_run="", time_weight=0.0, quality_weight=0.0, risk_weight=0.0)
    assert made == [], "contradictions are told before anything is trained"
    assert decided(runs, demo_max_steps=40).settings.demo_max_steps == 0
    demo = decided(runs, "ko", damaged_run="", demo_max_steps=40, demo_damage=30.0, demo_steps=25, device="cpu")
    assert made == [("ko-damaged", Damage(30.0, 25), "cpu")]
    assert (demo.settings.demo_max_steps, demo.damaged.name) == (40, "ko-damaged")
