"""A tiny run that was damaged: a healthy start, a rate far too high, and the good checkpoints gone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tests.tiny_voice import Bench
from tts_kernel.runs import Run

HEALTHY, DAMAGED = 30, 60  # steps


def damage(bench: Bench, name: str = "voice", **changes: Any) -> Run:
    """Sixty updates, the second half at 1,000 times the rate; checkpoints of steps 40, 50 and 60 are left, the
    others lie beside the runs."""
    common: dict[str, Any] = {
        "stage": 3,
        "train_manifest": "gpt_pairs_train.jsonl",
        "epochs": 30,
        "schedule": "constant",
        "validate_every": 10,
        "save_every": 10,
        "keep_checkpoints": 20,
        "on_spike": "ignore",
        "run_name": name,
        **changes,
    }
    bench.train(name, max_steps=HEALTHY, **common)
    bench.train(name, max_steps=DAMAGED, **{**common, "learning_rate": 1.0})
    run = bench.run(name)
    for path in run.checkpoints.glob("*.pth"):
        if path.name.startswith(("best", "top")) or path.name in ("step_00010.pth", "step_00020.pth", "step_00030.pth"):
            path.rename(bench.folder / path.name)
    return run


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file below, by its path; without locks."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", ".start")
    }
