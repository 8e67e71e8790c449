"""The notebook through papermill's command: what it leaves, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tts_kernel.data.pipeline.settings import CountSettings
from tts_kernel.runs import PROJECT_ROOT

NOTEBOOK = PROJECT_ROOT / "notebooks" / "01_batch_count.ipynb"
PARAMETERS = PROJECT_ROOT / "parameters" / "01_batch_count"


def test_every_setting_is_a_parameter_of_the_notebook_with_its_default() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (source,) = (cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    declared: dict[str, object] = {}
    exec("".join(source), declared)
    names = [line.split(":")[0] for line in source if line.strip()]
    assert sorted(names) == sorted(CountSettings.__dataclass_fields__)
    assert CountSettings(**{name: declared[name] for name in names}) == CountSettings()  # type: ignore[arg-type]


def papermill(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), "out.ipynb", "--no-progress-bar", *words]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "TTS_KERNEL_RUNS": str(folder / "runs"), "TTS_KERNEL_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_the_guides_case_passes_and_its_trap_fails_after_all_is_written(tmp_path: Path) -> None:
    done = papermill(tmp_path, "-f", str(PARAMETERS / "guide_266.yaml"), "-p", "run_name", "guide")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "guide"
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["utterances"]) == ("passed", 266)
    assert 235 <= result["batches"] <= 245
    assert len(list((run / "figures").glob("batches_*.png"))) == 3

    given = ("-f", str(PARAMETERS / "guide_trap.yaml"), "-p", "run_name", "trap", "-p", "on_refusal", "fail")
    done = papermill(tmp_path, *given)
    assert done.returncode == 1
    assert "token_max_length is 0" in done.stderr
    result = json.loads((tmp_path / "runs" / "trap" / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["batches"]) == ("failed", 0)
    assert "keeps them" in result["verdict"]


@pytest.mark.slow
def test_wrong_parameters_stop_the_notebook_before_it_makes_anything(tmp_path: Path) -> None:
    done = papermill(tmp_path, "-p", "max_frames", "24", "-p", "min_length", "short", "-p", "on_refusal", "sometimes")
    assert done.returncode == 1
    for expected in ("3 parameters", "max_frames: not a parameter", "min_length: found 'short'", "found 'sometimes'"):
        assert expected in done.stderr
    assert not (tmp_path / "runs").exists()
