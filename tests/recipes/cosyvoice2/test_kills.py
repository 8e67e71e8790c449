"""A run that is killed while it trains, in a process of its own, and the session after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.recipes.cosyvoice2.bench import Bench
from tts_kernel.runs import PROJECT_ROOT, Run

SETTINGS: dict[str, Any] = {
    "llm_epochs": 4,
    "flow_epochs": 4,
    "grad_accumulation": 1,
    "lora_dropout": 0.2,
    "validate_every": 2,
    "save_every": 3,
    "keep_best": 2,
}


def kill(bench: Bench, model: str, step: int) -> None:
    """Go on with the run "killed" until `model` has logged `step`."""
    path, log = bench.folder / "killed.yaml", bench.run("killed").folder / model / "metrics.jsonl"
    settings = bench.settings(run_name="killed", **SETTINGS)
    path.write_text(yaml.safe_dump({"recipe": "cosyvoice2", **asdict(settings)}), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "tts_kernel.train", str(path)],
        cwd=PROJECT_ROOT,
        env={**os.environ, "TTS_KERNEL_RUNS": str(bench.folder / "runs"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 250
        while not (log.is_file() and f'"step": {step},' in log.read_text(encoding="utf-8")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, f"{model} did not come to step {step}"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)


def logged(part: Run) -> list[dict[str, Any]]:
    """Every line that was ever logged, also those that a resume took back."""
    return [json.loads(line) for line in (part.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def steps(part: Run) -> list[int]:
    return [record["step"] for record in logged(part) if "train/loss" in record]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_either_model_a_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    kill(bench, "llm", 8)
    parts = {model: Run(bench.run("killed").folder / model) for model in ("llm", "flow")}
    assert not parts["flow"].folder.exists()
    best = saved(parts["llm"], "checkpoints/best_model.pth")["metrics"]["val/loss"]
    kill(bench, "flow", 8)
    assert parts["llm"].result()["best"] <= best, "the best was lost"
    done = (parts["llm"].folder / "result.json").read_text(encoding="utf-8")
    trained = steps(parts["llm"])
    bench.train("killed", **SETTINGS)
    assert steps(parts["llm"]) == trained, "the finished model was trained again"
    assert (parts["llm"].folder / "result.json").read_text(encoding="utf-8") == done
    bench.train("whole", **SETTINGS)
    for model, part in parts.items():
        whole = bench.run("whole").part(model)
        for metric in ("val/loss", "train/loss"):
            ours, theirs = part.series(metric), whole.series(metric)
            assert dict(zip(*ours, strict=True)) == pytest.approx(dict(zip(*theirs, strict=True)), rel=1e-5)
        gone_on = next(record["resumed_at"] for record in logged(part) if "resumed_at" in record)
        assert gone_on in (3, 6, 9), "not from a checkpoint between the start and the kill"
        for file in (whole.result()["whole"], "checkpoints/best_model.pth"):
            torch.testing.assert_close(weights(part, file), weights(whole, file), rtol=1e-4, atol=1e-5)


def saved(part: Run, file: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(part.folder / file, weights_only=True)
    return content


def weights(part: Run, file: str) -> dict[str, torch.Tensor]:
    content = saved(part, file)
    return content.get("model", content)
