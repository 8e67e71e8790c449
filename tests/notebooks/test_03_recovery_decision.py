"""The notebook through papermill's command, on a damaged run of a tiny model and on the guide's case."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CorpusMaker
from tests.notebooks.pages import declared, papermill
from tests.recovery.damage import contents, damage
from tests.recovery.guide_case import make_case
from tests.tiny_voice import LATENTS, Bench
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import PROJECT_ROOT

NOTEBOOK = PROJECT_ROOT / "notebooks" / "03_recovery_decision.ipynb"


def execute(folder: Path, **parameters: object) -> subprocess.CompletedProcess[str]:
    words = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    return papermill(NOTEBOOK, folder, *words, seconds=300.0)


def test_every_setting_is_a_parameter_of_the_notebook_with_its_default() -> None:
    assert sorted(declared(NOTEBOOK)) == sorted(Settings.__dataclass_fields__)
    assert Settings(**declared(NOTEBOOK)) == Settings()  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_report_of_the_guides_case_leaves_figures_and_journal_and_touches_nothing(tmp_path: Path) -> None:
    case = make_case(tmp_path / "case")
    before = contents(case)
    done = execute(tmp_path, damaged_run=case, run_name="report", decision="report")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "report"
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["shape"], result["recommended"]) == ("report", "diverged", "phased")
    assert {"best lost", "divergence", "rate too high", "validation missing"} <= set(result["findings"])
    known = json.loads((run / "decision.json").read_text(encoding="utf-8"))["known"]
    assert 298_800 <= known["onset"]["step"] <= 351_000
    assert sorted(path.name for path in (run / "figures").iterdir()) == ["damage.png", "options.png"]
    assert contents(case) == before


@pytest.mark.slow
def test_phase_1_judged_and_the_restart_behind_it(tmp_path: Path, make_tiny_corpus: CorpusMaker) -> None:
    bench = Bench(tmp_path, make_tiny_corpus(latents=LATENTS))
    damage(bench, epochs=21)
    given = {"damaged_run": "voice", "run_name": "go", "decision": "phased", "go_on_above": 1.0, "device": "cpu"}
    done = execute(tmp_path, **given, phase_1_steps=20)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "go"
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["chosen"], result["runs"]) == ("carried out", "phased", ["go-phase1", "voice"])
    assert (run / "figures" / "phase_1.png").exists()
    assert len(list((tmp_path / "runs").glob("voice-backup-*"))) == 1


@pytest.mark.slow
def test_a_misspelt_parameter_stops_before_anything_is_read(tmp_path: Path) -> None:
    done = execute(tmp_path, damaged_run="x", decison="restart")
    assert done.returncode != 0
    assert "decison: not a parameter; did you mean decision?" in done.stderr
