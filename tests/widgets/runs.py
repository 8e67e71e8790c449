"""Run folders to look at: metrics of a course that is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tts_kernel.runs import Run

STEPS = range(0, 500, 10)


def metrics(step: int) -> dict[str, Any]:
    """One line of a healthy stage-2 run."""
    loss = 1 + 3 * math.exp(-step / 100)
    return {
        "train/text_loss": loss,
        "train/mel_loss": loss + 2,
        "train/gpt_loss": loss + 1,
        "train/speaker_acc": 0.5,
        "train/grl_lambda": step / 500,
        "train/lr": 1e-4,
        "train/grad_norm": 1.0,
        "train/clipped": 0.25,
        "train/skipped": 0.0,
        "train/tokens_per_second": 4000.0,
        "train/memory_gb": 2.0,
        "train/eta_seconds": 3725.0 - step,
        "val/loss": loss + 1.5,
        "val/mel_loss": loss + 2.1,
        "val/speaker_acc": 0.4,
    }


def make_run(folder: Path, change: dict[int, dict[str, Any]] | None = None, *, only: tuple[str, ...] = ()) -> Run:
    """A run folder, with some steps changed, and of the metrics those that start with one of `only`."""
    run = Run(folder)
    run.checkpoints.mkdir(parents=True)
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in STEPS:
            logged = metrics(step) | (change or {}).get(step, {})
            logged = {name: value for name, value in logged.items() if not only or name.startswith(only)}
            file.write(json.dumps({"step": step, "time": 1.7e9 + step, **logged}) + "\n")
    (folder / "speaker_mapping.json").write_text('{"a": 0, "b": 1}', encoding="utf-8")
    return run


def add_checkpoints(run: Run, *listed: tuple[str, str, int, bool], index: bool = True) -> None:
    """(file, kind, step, healthy) each; the files are empty."""
    records = [
        {"file": file, "kind": kind, "step": step, "number": 1, "healthy": healthy, "metrics": {}, "time": 0.0}
        for file, kind, step, healthy in listed
    ]
    for record in records:
        (run.checkpoints / record["file"]).touch()
    if index:
        (run.checkpoints / "index.json").write_text(json.dumps(records), encoding="utf-8")
