"""What a person meets who types a wrong parameter: the notebook itself, through papermill's command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tts_kernel.recipes.indextts2.settings import Settings
from tts_kernel.runs import PROJECT_ROOT

NOTEBOOK = PROJECT_ROOT / "notebooks" / "02_stage2_grl.ipynb"


@pytest.mark.slow
def test_wrong_parameters_stop_the_notebook_before_it_makes_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), "out.ipynb", "--no-progress-bar"]
    wrong = ["-p", "batch_sise", "24", "-p", "learning_rate", "fast", "-p", "grad_clip", "0"]
    runs = tmp_path / "runs"
    done = subprocess.run(
        [*command, *wrong],
        cwd=tmp_path,
        env={**os.environ, "TTS_KERNEL_RUNS": str(runs)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    for expected in ("3 parameters", "did you mean batch_size?", "learning_rate: found 'fast'", "grad_clip: found 0"):
        assert expected in done.stderr
    assert not runs.exists()
    assert (tmp_path / "out.ipynb").is_file()


def test_every_setting_is_a_parameter_of_the_notebook_and_none_is_more() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (source,) = (c["source"] for c in cells if "parameters" in c["metadata"].get("tags", []))
    names = [line.split(":")[0] for line in source if line.strip()]
    assert sorted(names) == sorted(Settings.__dataclass_fields__)
