"""Which checkpoints a run has, for marks in its figures: from checkpoints/index.json, else by their names; no file with
tensors is opened."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tts_kernel.recovery.history import History


@dataclass(frozen=True)
class Saved:
    """One checkpoint file."""

    file: str
    kind: str  # latest_full, latest, step, best or top
    step: int
    healthy: bool = True


def saved(history: History) -> list[Saved]:
    """Those that are still there, by step. Without the index, best_model.pth is taken for the lowest validation loss
    that was logged."""
    folder = history.path / "checkpoints"
    try:
        listed = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        found = [Saved(item["file"], item["kind"], int(item["step"]), bool(item["healthy"])) for item in listed]
    except (OSError, ValueError, TypeError, KeyError):  # none, or being replaced, or another program's
        found = list(_by_name(folder, history))
    return sorted((one for one in found if (folder / one.file).is_file()), key=lambda one: one.step)


def _by_name(folder: Path, history: History) -> list[Saved]:
    found = []
    for path in sorted(folder.glob("*.pth")):
        if numbered := re.fullmatch(r"(step|top)_(\d+)\.pth", path.name):
            found.append(Saved(path.name, numbered[1], int(numbered[2])))
        elif path.name == "best_model.pth" and (step := lowest(history)) is not None:
            found.append(Saved(path.name, "best", step))
    return found


def lowest(history: History, metric: str = "val/loss") -> int | None:
    """The step of the lowest finite value after the start, which is no result of the run."""
    series = history[metric].finite()
    later = series.steps > 0
    return int(series.steps[later][np.argmin(series.values[later])]) if later.any() else None


def best(checkpoints: list[Saved]) -> Saved | None:
    """The file of the lowest validation loss."""
    return next((one for one in checkpoints if one.file == "best_model.pth"), None)


def latest(checkpoints: list[Saved]) -> Saved | None:
    """The newest file that a run can be resumed from."""
    full = [one for one in checkpoints if one.kind in ("latest_full", "step")]
    return next((one for one in full if one.kind == "latest_full"), full[-1] if full else None)
