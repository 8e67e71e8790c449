from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import CorpusMaker
from tests.recovery.damage import damage
from tests.recovery.guide_case import make_case
from tests.tiny_voice import LATENTS, Bench
from tts_kernel.recovery.choice import Wishes, choose
from tts_kernel.recovery.course import read_course
from tts_kernel.recovery.decide import Decision, decide
from tts_kernel.recovery.diagnosis import Diagnosis, diagnose
from tts_kernel.recovery.history import History, Series
from tts_kernel.recovery.journal import Journal
from tts_kernel.recovery.judgement import guide_score, robust_estimate
from tts_kernel.recovery.options import make_options
from tts_kernel.recovery.phases import Verdict
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import Run
from tts_kernel.widgets.decision import draw_damage, draw_options, draw_phase_1
from tts_kernel.widgets.decision_panel import Panel
from tts_kernel.widgets.figures import png

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_case(tmp_path_factory.mktemp("guide") / "case")


@pytest.fixture(scope="module")
def guide(case: Path) -> Diagnosis:
    return diagnose(case)


def texts(figure: object) -> str:
    legends = [text.get_text() for axis in figure.axes if axis.get_legend() for text in axis.get_legend().get_texts()]  # type: ignore[attr-defined]
    return " | ".join(legends + [axis.get_title() for axis in figure.axes])  # type: ignore[attr-defined]


def test_the_damage_is_drawn_with_best_onset_and_every_state_of_checkpoint(guide: Diagnosis) -> None:
    figure = draw_damage(guide)
    for part in ("best, 1.00", "onset, step 312,", "checkpoint, rising", "checkpoint, ruined", "train/text_loss"):
        assert part in texts(figure)
    assert png(figure).startswith(PNG)


def test_a_history_of_nothing_is_drawn_as_words(guide: Diagnosis) -> None:
    nothing = Series(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    empty = replace(guide, course=read_course(nothing), survivors=(), metric="")
    assert png(draw_damage(empty)).startswith(PNG)
    choice = choose(make_options(empty), Wishes(), None, None)
    assert png(draw_options(choice)).startswith(PNG)


def test_the_options_are_drawn_with_break_even_and_without_hours_where_none_are_known(guide: Diagnosis) -> None:
    timed = choose(make_options(guide), Wishes(), 4.4, 1.0)
    assert "break-even, 1%" in texts(draw_options(timed))
    assert draw_options(timed).axes[0].get_ylabel() == "hours"
    untimed = replace(guide, facts=replace(guide.facts, seconds_per_step=None))
    assert draw_options(choose(make_options(untimed), Wishes(), 4.4, 1.0)).axes[0].get_ylabel() == "time, restart = 1"


def test_phase_1_is_drawn_with_both_judgements(guide: Diagnosis) -> None:
    steps = np.arange(1, 61)
    values = 2 - 0.01 * steps + 0.01 * np.sin(steps)
    series = Series(steps, values, np.full(60, np.nan))
    verdict = Verdict(guide_score(values), robust_estimate(series, start=2.0), True, "")
    figure = draw_phase_1(History(Path("x"), {guide.metric: series}), guide, verdict)
    assert "go on" in texts(figure)
    said = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "guide's score 100: go on" in said


# The panel


@pytest.fixture
def decision(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Decision:
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / "runs"))
    run = Run(tmp_path / "runs" / "choice")
    run.folder.mkdir(parents=True)
    folder = shutil.copytree(case, tmp_path / "case")
    settings = Settings(run_name="choice", damaged_run=str(folder), decision="report", recipe_settings="")
    return decide(settings, run)


def test_the_sliders_move_recommendation_figure_and_table_as_the_parameters_do(decision: Decision) -> None:
    panel = Panel(decision)
    assert "Phased, from step 351,000" in panel.says.value
    before = bytes(panel.picture.value)
    panel.quality.value, panel.time.value = 2.0, 0.0
    assert "<b>Restart from the base checkpoint" in panel.says.value
    same = decision.weighed_by(time_weight=0.0, quality_weight=2.0, risk_weight=1.0, success_probability=0.0)
    assert panel.decision.choice == same.choice
    assert bytes(panel.picture.value) != before
    panel.probability.value = 0.9
    assert panel.decision.choice.named("phased").chance == 0.9
    assert "90%" in panel.table.value


def test_weights_that_are_all_zero_are_told_and_the_last_choice_stays(decision: Decision) -> None:
    panel = Panel(decision)
    panel.quality.value = panel.risk.value = 0.0
    kept = panel.decision.choice
    panel.time.value = 0.0
    assert "nothing counts" in panel.says.value
    assert panel.decision.choice == kept


def test_the_panel_says_why_nothing_can_be_started(decision: Decision) -> None:
    panel = Panel(decision)
    panel.way.value = "auto"
    panel.dry.click()
    assert "recipe_settings" in panel.note.value
    panel.start.click()
    assert panel.working is not None
    panel.working.join(20)
    assert "recipe_settings" in panel.note.value
    assert not panel.start.disabled
    assert not decision.journal.decided


@pytest.mark.slow
def test_start_carries_out_what_the_panel_says_and_writes_the_same_journal(
    tmp_path: Path, make_tiny_corpus: CorpusMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, make_tiny_corpus(latents=LATENTS))
    damage(bench, epochs=21)
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / "runs"))
    run = Run(tmp_path / "runs" / "choice")
    run.folder.mkdir()
    given = {"damaged_run": "voice", "phase_1_steps": 12, "go_on_above": 0.0, "device": "cpu"}
    panel = Panel(decide(Settings(run_name="choice", decision="report", **given), run))  # type: ignore[arg-type]
    panel.way.value = "phased"
    panel.dry.click()
    assert "choice-phase1" in panel.note.value
    assert not (tmp_path / "runs" / "choice-phase1").exists()
    panel.start.click()
    assert panel.working is not None
    panel.working.join(120)
    assert "ends at" in panel.note.value
    journal = Journal(run)
    assert (journal.decided, journal.content["by"]) == ("phased", "panel")
    assert [journal.state(name)["state"] for name in ("phase 1", "judgement", "phase 2")] == ["done"] * 3
    assert bytes(panel.progress.value).startswith(PNG)
