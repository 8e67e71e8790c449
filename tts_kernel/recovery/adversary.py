"""The speaker classifier behind the gradient reversal: can it tell speakers at all, and does it lose the ability?

Its accuracy rises while it learns and the reversal is weak, and must then fall towards chance. Stuck at chance from the
start means that it never had anything to learn, in the guide's case a speaker mapping that does not fit the manifest.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from tts_kernel.recovery.evidence import Evidence, Facts, Finding
from tts_kernel.recovery.history import Series

_LEAST = 8  # points
_AT_CHANCE = 2.0  # times chance: an accuracy that never exceeds it was never above chance
_UNKNOWN_CHANCE = 0.01  # where the number of speakers is not known; the mapping's default is 500
_STRONG = 0.5  # of the strength that the reversal reaches
_MOVED = 0.1  # of the accuracy: less is noise


def adversary(of: Evidence) -> Finding | None:
    """None for a run without an adversary, or with too few points to judge it."""
    name = next((name for name in ("train/speaker_acc", "val/speaker_acc") if len(of.history[name].finite())), "")
    series = of.history[name].finite()
    if len(series) < _LEAST:
        return None
    chance = 1 / of.facts.speakers if of.facts.speakers else None
    level = _smooth(series)
    facts: Facts = {"highest": float(level.max()), "last": float(level[-1])}
    if chance is not None:
        facts["chance"] = chance
    against = f"chance is {chance:.3g}" if chance is not None else "chance is not known"
    if level.max() <= _AT_CHANCE * (chance if chance is not None else _UNKNOWN_CHANCE / _AT_CHANCE):
        says = (
            f"{name} was never above {level.max():.3g} ({against}): the classifier has learned nothing from the start, "
            "as where the speaker mapping does not fit the manifest"
        )
        return Finding("classifier at chance", says, 0.9 if chance is not None else 0.75, facts, "bad")
    strong = _strong(of, series)
    if strong is None:
        return None
    tenth = max(len(series) // 10, 3)
    before, after = float(series.values[strong : strong + tenth].mean()), float(level[-1])
    facts |= {"from_step": int(series.steps[strong]), "before": before}
    peak = float(level[: strong + 1].max())
    since = f"from {before:.3g} at step {int(series.steps[strong]):,}, when the reversal was strong, to {after:.3g}"
    if chance is not None and after <= _AT_CHANCE * chance:
        return Finding("speaker removed", f"{name} went {since}, near chance ({against})", 0.8, facts, "good")
    if after > before + _MOVED * before:
        says = f"{name} rose {since} ({against}): the adversary wins, the emotion vector tells more of the speaker"
        return Finding("adversary winning", says, 0.8, facts, "bad")
    if after >= (1 - _MOVED) * max(before, peak):
        says = f"{name} went {since} ({against}): it does not fall, so the reversal does not do its work"
        return Finding("speaker accuracy not falling", says, 0.75, facts, "warning")
    severity: Literal["good", "note"] = "good" if chance is not None and after < 0.5 * peak else "note"
    return Finding("speaker accuracy falling", f"{name} fell {since} ({against})", 0.75, facts, severity)


def _smooth(series: Series) -> np.ndarray:
    """(points,): means of a tenth of the run, at least of three points."""
    width = min(max(len(series) // 10, 3), len(series))
    sums = np.cumsum(np.concatenate([[0.0], series.values]))
    places = np.arange(len(series))
    first, last = np.maximum(places - width // 2, 0), np.minimum(places + width // 2 + 1, len(series))
    return (sums[last] - sums[first]) / (last - first)


def _strong(of: Evidence, series: Series) -> int | None:
    """The point from which the reversal has been strong for at least a quarter of the run; without its strength in the
    log, a third into it. None where that is not yet so."""
    strength = of.history["train/grl_lambda"].finite()
    if not len(strength):
        return len(series) // 3
    top = strength.values.max()
    if top <= 0:
        return None
    step = int(strength.steps[np.argmax(strength.values >= _STRONG * top)])
    place = int(np.searchsorted(series.steps, step))
    return place if place <= 0.75 * (len(series) - 1) else None
