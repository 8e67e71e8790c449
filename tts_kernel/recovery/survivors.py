"""Which checkpoints of a run are left, and in what state.

A file is opened as tensors and plain values only, never code, and its tensors stay on the disk: three stretches of each
are read, to see whether values are not finite, so that gigabytes take moments. Damage elsewhere in a file is found when
it is loaded (`training.checkpoints.file.verify`). How good the weights are is told by the loss at their step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tts_kernel.recovery.course import Course

State = Literal["healthy", "rising", "ruined", "unreadable", "unknown"]

_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
_NUMBERED = re.compile(r"(?:step|top|model_step|checkpoint)[_-]?(\d+)|epoch_\d+_step_(\d+)", re.IGNORECASE)
_STEP_BESIDE = re.compile(r"^step: (\d+)$", re.MULTILINE)
_BASE = {"text_embedding.weight", "mel_embedding.weight", "mel_head.weight"}  # of IndexTTS-2's own gpt.pth
_SAMPLE = 4096  # values at the begin, the middle and the end of a tensor
_RUINED = 0.25  # of what training had gained, and of the best loss: a loss higher by more
_APART = 2.0  # standard errors between a level and the best's
_OUTSIDE = 0.02  # of the run, beyond the last logged step


@dataclass(frozen=True)
class Survivor:
    """One checkpoint file that is still there."""

    path: Path
    kind: str  # latest_full, latest, step, best or top as training.checkpoints names them; base or other
    step: int | None
    state: State
    why: str
    loss: float | None  # of the trend at its step
    above_best: float | None  # how far that is above the best
    resumable: bool  # holds optimizer and step
    size: int  # bytes
    finite: bool = True  # as far as its weights were looked at


def find_survivors(folder: Path, course: Course | None) -> tuple[Survivor, ...]:
    """All of a folder, by step, those without one first. `course` is that of the loss they are judged by. Nothing in a
    file is executed, and none makes this fail."""
    if not folder.is_dir():
        return ()
    found = [_look_at(path, course) for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES]
    return tuple(sorted(found, key=lambda one: (-1 if one.step is None else one.step, one.path.name)))


def _look_at(path: Path, course: Course | None) -> Survivor:
    from tts_kernel.models.weights import CheckpointError, plain_names, read_checkpoint, state_of
    from tts_kernel.training.checkpoints.index import kind_of

    size = path.stat().st_size if path.is_file() else 0
    kind: str = kind_of(path.name) or ("step" if _NUMBERED.search(path.stem) else "other")
    try:
        content = read_checkpoint(path)
        state = state_of(content, str(path))
    except (CheckpointError, OSError) as error:
        said = str(error).removeprefix(f"{path}: ")
        return Survivor(path, kind, _step_of(path, {}), "unreadable", said, None, None, False, size)
    if "step" not in content and plain_names(state).keys() >= _BASE and kind == "other":
        why = "weights alone, as IndexTTS-2's gpt.pth: what a run begins from"
        return Survivor(path, "base", None, "unknown", why, None, None, False, size)
    step = _step_of(path, content)
    resumable = step is not None and isinstance(content.get("optimizer"), Mapping) and bool(content["optimizer"])
    loss, above = _above(course, step)
    lost = [name for name, value in state.items() if value.is_floating_point() and not _finite(value)]
    if lost:
        verdict: tuple[State, str] = ("ruined", f"{len(lost):,} of its tensors hold values that are not finite")
    else:
        written = content.get("written")
        verdict = state_at(course, step, not isinstance(written, Mapping) or bool(written.get("healthy", True)))
    return Survivor(path, kind, step, *verdict, loss, above, resumable, size, finite=not lost)


def _step_of(path: Path, content: Mapping[str, Any]) -> int | None:
    """What the file says, else its name, else the .yaml that CosyVoice writes beside it."""
    said = content.get("step", content.get("global_step"))
    if isinstance(said, int):
        return said
    if numbered := _NUMBERED.search(path.stem):
        return int(numbered[1] or numbered[2])
    try:
        beside = _STEP_BESIDE.search(path.with_suffix(".yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return int(beside[1]) if beside else None


def _finite(tensor: Any) -> bool:
    """Whether the values at three places of a tensor are."""
    flat = tensor.detach().reshape(-1)
    size = flat.numel()
    begins = (0, max(size - _SAMPLE, 0) // 2, max(size - _SAMPLE, 0))
    return all(bool(flat[begin : begin + _SAMPLE].isfinite().all()) for begin in begins)


def _above(course: Course | None, step: int | None) -> tuple[float | None, float | None]:
    """The loss at a step, and how far it is above the best; None where the history does not reach."""
    if course is None or course.best is None or step is None or _outside(course, step):
        return None, None
    level = course.at(step)[0]
    return level, level - course.best.value


def _outside(course: Course, step: int) -> bool:
    steps = course.series.steps
    return not len(steps) or step > steps[-1] + max(_OUTSIDE * (steps[-1] - steps[0]), 1) or step < 0


def state_at(course: Course | None, step: int | None, healthy: bool) -> tuple[State, str]:
    """By the loss at its step; `healthy` is what the file says of its own writing."""
    if course is None or course.best is None:
        return "unknown", "no history that tells how the loss went"
    if step is None:
        return "unknown", "it does not say of which step it is"
    steps, best = course.series.steps, course.best
    if course.lost and course.onset is not None and step > steps[-1]:
        return "ruined", "the loss was not finite any more"
    if _outside(course, step):
        return "unknown", f"no loss was logged near step {step:,}; the log ends at {int(steps[-1]):,}"
    level, error = course.at(step)
    above = level - best.value
    if healthy and best.first <= step <= best.last:
        return "healthy", f"as good as the best, {best.value:.4g}"
    if course.onset is not None and step > max(course.onset.first, best.step):
        gained = float(course.trend[: max(int(np.searchsorted(steps, best.step)), 1)].max()) - best.value
        if above >= _RUINED * max(gained, abs(best.value)):
            return "ruined", f"the loss was {level:.4g}, {above:.4g} above the best"
        if step > course.onset.last or above > _APART * error:
            return "rising", f"the loss was {level:.4g}, {above:.4g} above the best, and rising"
    for spell in course.spikes:
        if spell.first <= step <= spell.last:
            return "rising", f"saved within a spike, steps {spell.first:,} to {spell.last:,}"
    if course.shape == "rising" and step > best.last and above > _APART * error:
        return "rising", f"the loss was {level:.4g}, {above:.4g} above the best, and has not come back yet"
    if not healthy:
        return "rising", "saved while the loss was spiking, as it says itself"
    where = "before the damage" if course.onset is not None else "the run shows no lasting damage"
    return "healthy", f"{where}; the loss was {level:.4g}, {above:.4g} above the best"
