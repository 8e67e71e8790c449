"""The notebook through papermill's command: what it leaves, and with which exit code it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.audited import add_audio, change_rows
from tests.notebooks.pages import declared, papermill
from tts_kernel.data.audit import AuditSettings
from tts_kernel.runs import PROJECT_ROOT

NOTEBOOK = PROJECT_ROOT / "notebooks" / "00_data_audit.ipynb"


def test_every_setting_is_a_parameter_of_the_notebook_with_its_default() -> None:
    assert sorted(declared(NOTEBOOK)) == sorted(AuditSettings.__dataclass_fields__)
    assert AuditSettings(**declared(NOTEBOOK)) == AuditSettings()  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_error_fails_the_notebook_after_all_is_written(tiny_corpus: Path, tmp_path: Path) -> None:
    add_audio(tiny_corpus)
    change_rows(tiny_corpus, lambda rows: rows[0].update(prompt_id=rows[0]["target_id"]))
    given = ("-p", "data", str(tiny_corpus), "-p", "run_name", "look", "-p", "min_duration", "0.01")
    done = papermill(NOTEBOOK, tmp_path, *given)
    assert done.returncode == 1
    assert "prompt_is_target" in done.stderr
    assert "Pair the target with another clip" in done.stderr
    run = tmp_path / "runs" / "look"
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["kinds"]["prompt_is_target"]) == ("failed", 1)
    assert {"audit.json", "cases.parquet", "clips.parquet", "settings.json"} <= {path.name for path in run.iterdir()}
    assert len(list((run / "figures").glob("audit_*.png"))) == 4

    done = papermill(NOTEBOOK, tmp_path, *given, "-p", "fail_on", "never")  # the same name again
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "result.json").read_text(encoding="utf-8"))["status"] == "passed"
    assert json.loads((run / "settings.json").read_text(encoding="utf-8"))["fail_on"] == "never"


@pytest.mark.slow
def test_wrong_parameters_stop_the_notebook_before_it_makes_anything(tmp_path: Path) -> None:
    wrong = ("-p", "sampel", "24", "-p", "min_level", "loud", "-p", "fail_on", "sometimes")
    done = papermill(NOTEBOOK, tmp_path, *wrong)
    assert done.returncode == 1
    for expected in ("3 parameters", "did you mean sample?", "min_level: found 'loud'", "fail_on: found 'sometimes'"):
        assert expected in done.stderr
    assert not (tmp_path / "runs").exists()
