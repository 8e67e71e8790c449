"""Run folders with curves that are known, and checkpoints of a few values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

STEPS = np.arange(10, 5001, 10)


def noise(seed: int, size: float = 0.02) -> np.ndarray:
    """(500,), one for each of STEPS."""
    return size * np.random.default_rng(seed).standard_normal(len(STEPS))


def falling(seed: int = 0) -> np.ndarray:
    """(500,): a healthy loss."""
    return 1 + 3 * np.exp(-STEPS / 1000) + noise(seed)


def diverging(begin: int = 3000, seed: int = 0) -> np.ndarray:
    """(500,): healthy up to a step, then rising without an end."""
    return falling(seed) + np.clip(STEPS - begin, 0, None) / 1000


def write_run(folder: Path, metrics: Mapping[str, Sequence[float] | np.ndarray], **settings: Any) -> Path:
    """A run folder with these values at STEPS, or at as many of them as there are; NaN is logged as null."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = [{"step": int(step), "time": 1.7e9 + 0.5 * step} for step in STEPS]
    for name, values in metrics.items():
        for row, value in zip(rows, values, strict=False):
            row[name] = float(value) if np.isfinite(value) else None
    text = "".join(json.dumps(row) + "\n" for row in rows if len(row) > 2)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    if settings:
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def save(path: Path, step: int | None, *, value: float = 1.0, full: bool = True, **more: Any) -> Path:
    """A checkpoint with all weights at `value`; `full` with what a resume needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"model": {"weight": torch.full((3, 2), value)}, **more}
    content |= {} if step is None else {"step": step}
    content |= {"optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}} if full else {}
    torch.save(content, path)
    return path
