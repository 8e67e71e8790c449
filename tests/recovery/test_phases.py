"""Real runs of a tiny model: damaged, judged and carried on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.recovery.damage import DAMAGED, contents, damage
from tests.tiny import make_tiny
from tests.tiny_voice import LATENTS, Bench
from tts_kernel.recipes.indextts2.objective import PairObjective
from tts_kernel.recovery import backup, phases
from tts_kernel.recovery.backup import BackupError
from tts_kernel.recovery.choice import ChoiceError
from tts_kernel.recovery.decide import Decision, decide
from tts_kernel.recovery.history import History, Series
from tts_kernel.recovery.journal import Journal, JournalError
from tts_kernel.recovery.phases import judge
from tts_kernel.recovery.plan import Plan
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import Run, RunError
from tts_kernel.settings import SettingsError
from tts_kernel.training.launch.hold import held
from tts_kernel.training.outcome import RunInterrupted

SMALL: dict[str, Any] = {"damaged_run": "voice", "phase_1_steps": 12, "device": "cpu"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Trained and damaged once; every test works on a copy of its runs."""
    folder = tmp_path_factory.mktemp("damaged")
    made = Bench(folder, make_tiny(folder / "corpus", latents=LATENTS))
    damage(made, epochs=21)  # three steps are left of what was planned
    return made


@pytest.fixture
def runs(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(bench.folder / "runs", tmp_path / "runs")
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def decided(runs: Path, name: str = "decision", **changes: Any) -> Decision:
    run = Run(runs / name)
    run.folder.mkdir(exist_ok=True)
    return decide(Settings(**{**SMALL, "run_name": name, **changes}), run)


def test_the_diagnosis_of_a_real_damaged_run_is_right(runs: Path) -> None:
    diagnosis = decided(runs).damaged.diagnosis
    assert diagnosis.course.shape == "diverged"
    assert diagnosis.course.onset is not None
    assert 25 <= diagnosis.course.onset.step <= 35
    assert {one.step for one in diagnosis.survivors} == {40, 50, 60}
    assert all(one.state in ("rising", "ruined") for one in diagnosis.survivors)


def test_phase_1_that_passes_is_followed_by_phase_2_and_the_damaged_run_stays_as_it_was(runs: Path) -> None:
    before = contents(runs / "voice")
    decision = decided(runs, decision="phased", go_on_above=0.0)
    ending = decision.carry_out()
    assert ending is not None
    assert ending.runs == ("decision-phase1", "decision-phase2")
    assert contents(runs / "voice") == before
    first, second = (json.loads((runs / name / "settings.json").read_text(encoding="utf-8")) for name in ending.runs)
    rate = decision.damaged.diagnosis.facts.learning_rate
    assert rate == 1.0
    well = 1e-3  # before the damage, by the log
    assert (first["learning_rate"], second["learning_rate"]) == pytest.approx((well / 4, well / 2))
    assert (first["max_steps"], second["max_steps"], first["grad_clip"]) == (12, 12, 0.5)
    assert first["base_checkpoint"] == str(decision.choice.named("phased").option.start.path)  # type: ignore[union-attr]
    assert second["base_checkpoint"].endswith("decision-phase1/checkpoints/latest.pth")
    journal = Journal(decision.run).content
    assert (journal["chosen"], journal["by"]) == ("phased", "parameters")
    assert [journal["steps"][name]["state"] for name in ("phase 1", "judgement", "phase 2")] == ["done"] * 3
    assert journal["came_of_it"]["loss"] == pytest.approx(ending.loss)


def test_phase_1_that_fails_is_followed_by_a_restart_and_the_old_run_lies_in_the_backup_byte_for_byte(
    runs: Path,
) -> None:
    before = contents(runs / "voice")
    decision = decided(runs, decision="phased", go_on_above=1.0)
    ending = decision.carry_out()
    assert ending is not None
    assert ending.runs == ("decision-phase1", "voice")
    (old,) = runs.glob("voice-backup-*")
    assert contents(old) == before
    anew = json.loads((runs / "voice" / "settings.json").read_text(encoding="utf-8"))
    assert (anew["learning_rate"], anew["batch_size"], anew["max_steps"]) == (pytest.approx(1e-3), 10, 32)
    assert anew["base_checkpoint"] == json.loads((old / "settings.json").read_text())["base_checkpoint"]
    assert Run(runs / "voice").last("val/loss") > 0


def test_a_dry_run_names_every_step_and_touches_nothing(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = contents(runs / "voice")
    decision = decided(runs, decision="phased", dry_run=True)
    known = contents(runs)
    with caplog.at_level("INFO", logger="tts_kernel"):
        assert decision.carry_out() is None
    plan = decision.plan()
    assert plan is not None
    lines = "\n".join(plan.lines())
    for part in ("decision-phase1", "decision-phase2", "voice-backup-", "train restart"):
        assert part in lines
    assert contents(runs) == known
    assert contents(runs / "voice") == before
    assert not decision.journal.decided


@contextmanager
def killed(run: Run, leg: str) -> Iterator[None]:
    """Ends phase 2 before its first step, as a signal would."""
    if leg == "phase 2":
        raise RunInterrupted("stopped by a test")
    yield


def test_a_decision_that_was_stopped_goes_on_where_it_stood(runs: Path) -> None:
    decision = decided(runs, decision="phased", go_on_above=0.0)
    with pytest.raises(RunInterrupted):
        decision.carry_out(killed)
    first = contents(runs / "decision-phase1")
    again = decided(runs, decision="auto", go_on_above=0.0)  # what was chosen is gone on with
    ending = again.carry_out()
    assert ending is not None
    assert ending.runs == ("decision-phase1", "decision-phase2")
    assert contents(runs / "decision-phase1") == first, "phase 1 was trained again"
    done = contents(runs)
    assert decided(runs, decision="phased", go_on_above=1.0).carry_out() == ending  # what was judged stays
    assert contents(runs) == done
    with pytest.raises(JournalError, match=r"'phased' was chosen by parameters and begun, now 'restart' is asked"):
        decided(runs, decision="restart").carry_out()


@pytest.mark.parametrize("after", ["before the move", "after the move"])
def test_a_restart_killed_around_its_move_finishes_it_once(
    runs: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    before = contents(runs / "voice")
    move = backup.Move.carry_out

    def die(self: backup.Move) -> None:
        if after == "after the move":
            move(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(backup.Move, "carry_out", die)
        with pytest.raises(KeyboardInterrupt):
            decided(runs, decision="restart").carry_out()
    ending = decided(runs, decision="restart").carry_out()
    assert ending is not None
    (old,) = runs.glob("voice-backup-*")
    assert contents(old) == before
    assert ending.runs == ("voice",)


def test_a_rewind_starts_from_the_healthy_checkpoint_in_a_run_of_its_own(bench: Bench, runs: Path) -> None:
    shutil.copy(bench.folder / "step_00020.pth", runs / "voice" / "checkpoints")
    start = decided(runs).choice.named("rewind").option.start
    assert start is not None
    assert (start.step, start.state) == (20, "healthy")
    ending = decided(runs, "other", decision="rewind").carry_out()
    assert ending is not None
    assert ending.runs == ("other-rewind",)


def test_continuing_goes_on_beside_the_damaged_run_at_one_rate_however_often_it_is_stopped(runs: Path) -> None:
    before = contents(runs / "voice")

    @contextmanager
    def stopped(run: Run, leg: str) -> Iterator[None]:
        raise RunInterrupted("stopped by a test")
        yield

    for _ in range(2):
        with pytest.raises(RunInterrupted):
            decided(runs, decision="continue").carry_out(stopped)
    ending = decided(runs, decision="continue").carry_out()
    assert ending is not None
    assert ending.runs == ("decision-continue",)
    assert contents(runs / "voice") == before
    own = json.loads((runs / "decision-continue" / "settings.json").read_text(encoding="utf-8"))
    assert own["learning_rate"] == pytest.approx(5e-4)  # half of what the run was well at
    steps = Run(runs / "decision-continue").series("train/gpt_loss")[0]
    assert (steps[0], steps[-1]) == (DAMAGED + 1, 63)  # the plan's end


def test_phase_1_that_explodes_has_failed_and_the_restart_follows(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = PairObjective.forward

    def forward(self: PairObjective, batch: Any) -> dict[str, Any]:
        sums = own(self, batch)
        wrong = self.model.training and float(self.model.final_norm.weight.detach().mean()) > 1.2  # the damaged weights
        return {name: value * float("nan") for name, value in sums.items()} if wrong else sums

    monkeypatch.setattr(PairObjective, "forward", forward)
    monkeypatch.setattr(phases, "judge", lambda *rest: pytest.fail("there is nothing to judge"))
    wrong = torch.load(runs / "voice" / "checkpoints" / "step_00050.pth", weights_only=True)
    wrong["model"]["final_norm.weight"] += 5
    torch.save(wrong, runs / "voice" / "checkpoints" / "step_00050.pth")
    for name in ("step_00040.pth", "step_00060.pth", "latest.pth", "latest_full.pth"):
        (runs / "voice" / "checkpoints" / name).unlink()
    decision = decided(runs, decision="phased")
    ending = decision.carry_out()
    assert ending is not None
    assert ending.runs == ("decision-phase1", "voice")
    verdict = decided(runs).verdict
    assert verdict is not None
    assert not verdict.go_on
    assert "phase 1 failed" in verdict.says


def test_a_run_outside_runs_is_restarted_beside_the_decision(tmp_path: Path, runs: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "voice"
    shutil.copytree(runs / "voice", elsewhere)
    before = contents(runs / "voice")
    ending = decided(runs, damaged_run=str(elsewhere), decision="restart").carry_out()
    assert ending is not None
    assert ending.runs == ("decision-restart",)
    assert contents(runs / "voice") == before
    (backup_folder,) = (elsewhere / "checkpoints").glob("backup-*")
    assert "latest_full.pth" in [path.name for path in backup_folder.iterdir()]


def test_a_decision_keeps_to_its_own_folder_and_its_own_run(runs: Path) -> None:
    with pytest.raises(RunError, match="a training run is there, no decision"):
        decided(runs, "voice", decision="report")
    decided(runs, decision="report")
    shutil.copytree(runs / "voice", runs / "other")
    with pytest.raises(JournalError, match=r"is about .*voice, now .*other is asked"):
        decided(runs, damaged_run="other", decision="report")


def test_the_demos_run_never_takes_the_place_of_another(runs: Path) -> None:
    shutil.copytree(runs / "voice", runs / "ko-damaged")
    before = contents(runs / "ko-damaged")
    with pytest.raises(RunError, match="is there and is no demo"):
        decided(runs, "ko", damaged_run="")
    assert contents(runs / "ko-damaged") == before


def test_what_is_not_there_is_told_before_anything_is_advised(runs: Path) -> None:
    with pytest.raises(SettingsError, match=r"(?s)damaged_run: found .*gone.*checkpoints: found .*nowhere"):
        decided(runs, damaged_run="gone", checkpoints="nowhere")
    with pytest.raises(SettingsError, match=r"metric: found 'train/txt_loss'.*it has .*train/text_loss"):
        decided(runs, "second", metric="train/txt_loss")


def test_unreadable_settings_allow_a_report_and_nothing_else(runs: Path) -> None:
    (runs / "voice" / "settings.json").write_text("", encoding="utf-8")
    assert decided(runs, decision="report").carry_out() is None
    with pytest.raises(ChoiceError, match=r"settings\.json cannot be used"):
        decided(runs, decision="phased").carry_out()


def test_a_live_run_is_diagnosed_and_not_touched(runs: Path) -> None:
    before = contents(runs / "voice" / "checkpoints")
    with held(Run(runs / "voice")):
        decision = decided(runs, decision="restart")
        assert decision.damaged.diagnosis.alive
        for way in ("restart", "phased", "continue"):
            with pytest.raises(RunError, match="live process; stop it first"):
                decided(runs, decision=way).carry_out()
    assert contents(runs / "voice" / "checkpoints") == before
    assert not decision.journal.decided


def test_a_restart_without_its_base_is_refused_before_anything_moves(runs: Path) -> None:
    decision = decided(runs, decision="restart", base_checkpoint=str(runs / "gone.pth"))
    with pytest.raises(ChoiceError, match=r"gone\.pth: no such file"):
        decision.carry_out()
    assert not list(runs.glob("voice-backup-*"))


def test_too_little_disk_for_a_restart_is_told_before_phase_1(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(runs)
    monkeypatch.setattr(backup.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    decision = decided(runs, decision="phased")
    with pytest.raises(BackupError, match="Make room"):
        decision.carry_out()
    assert not (runs / "decision-phase1").exists()


def test_another_programs_run_is_reported_and_not_trained_from_without_recipe_settings(
    tmp_path: Path, runs: Path
) -> None:
    log = tmp_path / "theirs" / "train.csv"
    log.parent.mkdir()
    rows = [f"{step},{3 - step / 100}" for step in range(100)]
    log.write_text("step,train/loss\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert decided(runs, damaged_run=str(log), decision="report").carry_out() is None
    with pytest.raises(ChoiceError, match="recipe_settings"):
        decided(runs, "second", damaged_run=str(log), decision="restart").carry_out()


def test_the_journal_of_a_killed_process_can_be_read(runs: Path) -> None:
    """The file is replaced whole: a leftover beside it changes nothing."""
    decision = decided(runs, decision="report")
    (decision.run.folder / f".decision.json.{os.getpid() + 1}").write_text("{", encoding="utf-8")
    assert decided(runs, decision="report").journal.content["known"]["shape"] == "diverged"


# The judgement of phase 1


def judged(values: np.ndarray, **asked: Any) -> phases.Verdict:
    steps = 10 * np.arange(1, len(values) + 1)
    history = History(Path("run"), {"train/loss": Series(steps, values, np.full(len(values), np.nan))})
    plan = Plan("phased", "Phased", "train/loss", 1.8, 0.9, None, None, (), (), ())
    return judge(history, plan, Settings(**asked))


def noisy(level: np.ndarray) -> np.ndarray:
    return level + 0.02 * np.random.default_rng(1).standard_normal(len(level))


def test_either_rule_can_count_and_the_verdict_names_it() -> None:
    stays = noisy(np.full(60, 1.8))
    stays[-1], stays[-50] = 1.7, 1.9  # its last point lies below the first of its fifty
    robust, guide = judged(stays), judged(stays, judged_by="guide")
    assert robust.score == guide.score
    assert (robust.go_on, guide.go_on) == (False, True)
    assert "by the guide one it goes on (from 50%)" in guide.says
    assert "by the robust one it ends here" in robust.says
    assert not judged(stays, judged_by="guide", go_on_above=1.0).go_on


def test_a_score_by_too_few_points_says_so() -> None:
    falls = noisy(np.linspace(1.8, 1.2, 60))
    assert "by fewer points than the 50" in judged(falls[:20]).says
    assert "by fewer points" not in judged(falls).says
