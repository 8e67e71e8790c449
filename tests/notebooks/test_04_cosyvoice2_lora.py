"""What a person meets who opens the notebook: every setting, and wrong ones refused before anything is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tts_kernel.recipes.cosyvoice2 import Settings
from tts_kernel.runs import PROJECT_ROOT

NOTEBOOK = PROJECT_ROOT / "notebooks" / "04_cosyvoice2_lora.ipynb"
PARAMETERS = PROJECT_ROOT / "parameters" / "04_cosyvoice2_lora"


def declared() -> dict[str, object]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (source,) = (cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    values: dict[str, object] = {}
    exec("".join(source), values)
    return {line.split(":")[0]: values[line.split(":")[0]] for line in source if line.strip()}


def test_every_setting_is_a_parameter_of_the_notebook_and_none_is_more() -> None:
    assert list(declared()) == list(Settings.__dataclass_fields__)
    Settings(**declared())  # type: ignore[arg-type]


def test_the_guides_files_have_the_guides_values() -> None:
    guide = {name: yaml.safe_load((PARAMETERS / f"guide_{name}.yaml").read_text()) for name in ("llm", "flow")}
    for name, epochs in (("llm", 30), ("flow", 84)):
        own = Settings(**{**declared(), **guide[name]})  # type: ignore[arg-type]
        assert own.models == (name,)
        assert own.epochs(name) == epochs  # type: ignore[arg-type]
        assert (own.learning_rate, own.warmup_steps, own.grad_accumulation) == (1e-5, 200, 8)
        assert (own.log_every, own.save_every, own.schedule) == (1, 100, "warmuplr")
        assert own.patience > 0


@pytest.mark.slow
def test_wrong_parameters_stop_the_notebook_before_it_makes_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), "out.ipynb", "--no-progress-bar"]
    wrong = ["-p", "ranks", "24", "-p", "learning_rate", "fast", "-p", "model", "hift"]
    done = subprocess.run(
        [*command, *wrong],
        cwd=tmp_path,
        env={**os.environ, "TTS_KERNEL_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    for expected in ("3 parameters", "did you mean rank?", "learning_rate: found 'fast'", "model: found 'hift'"):
        assert expected in done.stderr
    assert not (tmp_path / "runs").exists()
