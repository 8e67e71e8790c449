"""Two processes of one machine, as `processes: 2` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from tests.recipes.cosyvoice2.bench import Bench
from tts_kernel.runs import PROJECT_ROOT, Run


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_with_twice_the_accumulation(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for processes in (1, 2):
        name = f"of{processes}"
        settings = bench.settings(
            run_name=name, processes=processes, grad_accumulation=2 // processes, lora_dropout=0.0, model="llm"
        )
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"recipe": "cosyvoice2", **asdict(settings)}), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "tts_kernel.train", str(path)],
            cwd=PROJECT_ROOT,
            env={**os.environ, "TTS_KERNEL_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    alone, both = (Run(tmp_path / "runs" / name / "llm") for name in ("of1", "of2"))
    assert both.series("val/loss")[0] == alone.series("val/loss")[0]
    assert both.series("val/loss")[1] == pytest.approx(alone.series("val/loss")[1], rel=1e-4)
    assert both.series("train/loss")[1] == pytest.approx(alone.series("train/loss")[1], rel=1e-4)
    assert (both.folder / both.result()["whole"]).is_file()
