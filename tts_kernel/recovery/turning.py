"""Where a stretch of a curve turns from falling or flat to rising, with an interval.

Every place is tried as the turn, with every shape of a rise: at once, steadily, faster and faster, at once and on. The
probability of a place is what the data leave to it over all shapes, noise of unknown size (Bayesian information
criterion); the turn is the median, the interval its 90 %.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SHAPES = ("at once", "steadily", "faster", "at once and on")
# No shape is quite right. Both were set on simulated histories, so that the interval holds the onset nine times of ten.
_INEXACT = 0.07  # of the stretch's deviation, by which every shape is wrong
_DOUBT = 3.0  # times as much memory as the best fit's residuals show
_QUANTILES = (0.05, 0.5, 0.95)


def turning_point(steps: np.ndarray, values: np.ndarray, memory: float) -> tuple[float, float, float]:
    """(bins,) of the stretch, at least 4 -> earliest, likeliest and latest step of the turn. `memory` is as in `Trend`:
    correlated noise tells less."""
    values = _tame(values)
    scale = values.std()
    if scale == 0:
        return float(steps[0]), float(steps[0]), float(steps[-1])
    values = (values - values.mean()) / scale
    span = float(steps[-1] - steps[0]) or 1.0
    times = (steps - steps[0]) / span
    fits = [_fits(times, values, shape, sloped) for shape in SHAPES for sloped in (False, True)]
    likeliest = min(fits, key=lambda fit: fit.costs.min())
    count = len(values) / max(memory, _DOUBT * _memory(likeliest.residuals))
    floor = len(values) * _INEXACT**2
    turns = np.concatenate([fit.turns for fit in fits])
    log = np.concatenate([-0.5 * count * np.log(fit.costs + floor) - 0.5 * fit.width * np.log(count) for fit in fits])
    if not np.isfinite(log).any():  # nothing in it rises
        return float(steps[0]), float(steps[int(values.argmin())]), float(steps[-1])
    order = np.argsort(turns)
    weights = np.exp(log[order] - log.max())
    passed = np.cumsum(weights) / weights.sum()
    low, middle, high = (turns[order][np.searchsorted(passed, part)] for part in _QUANTILES)
    step = 1.0 / len(times)  # no finer than its bins
    low, high = min(low, middle - step), max(high, middle + step)
    early, likely, late = (float(steps[0] + span * np.clip(turn, 0, 1)) for turn in (low, middle, high))
    return early, likely, late


def _tame(values: np.ndarray) -> np.ndarray:
    """Outliers drawn in to three standard deviations from the median of seven, which keeps a step where it is."""
    if len(values) < 7:
        return values
    middles = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, 3, mode="edge"), 7), axis=1)
    apart = values - middles
    limit = 3 * 1.4826 * float(np.median(np.abs(apart)))
    return middles + np.clip(apart, -limit, limit) if limit > 0 else values


class _Fit(NamedTuple):
    """Of one shape at every turn."""

    turns: np.ndarray  # (turns,) where each fit is lowest before it rises
    costs: np.ndarray  # (turns,) squares it leaves; infinite where it does not rise
    residuals: np.ndarray  # (bins,) of the best of them
    width: int  # numbers fitted


def _fits(times: np.ndarray, values: np.ndarray, shape: str, sloped: bool) -> _Fit:
    """Least squares for every turn at once: a level or a falling line, plus the rise."""
    turns = times[:-2]  # two bins at least rise
    since = np.clip(times - turns[:, None], 0, None)  # (turns, bins)
    after = (since > 0).astype(float)
    parts = {"at once": [after], "steadily": [since], "faster": [since**2], "at once and on": [after, since]}[shape]
    before = [np.ones_like(since), np.broadcast_to(times, since.shape)] if sloped else [np.ones_like(since)]
    design = np.stack([*before, *parts], axis=-1)
    width = design.shape[-1]
    gram = np.einsum("tbi,tbj->tij", design, design) + 1e-9 * np.eye(width)
    found = np.linalg.solve(gram, np.einsum("tbi,b->ti", design, values)[..., None])[..., 0]  # (turns, width)
    residuals = values - np.einsum("tbi,ti->tb", design, found)
    slope, rise = (found[:, 1] if sloped else np.zeros(len(turns))), found[:, len(before)]
    rises = (slope <= 0) & (rise > (-slope if shape == "steadily" else 0))
    if shape == "faster":  # falls on for a while
        turns = turns - slope / (2 * np.where(rises, rise, np.inf))
    costs = np.where(rises, (residuals**2).sum(axis=1), np.inf)
    return _Fit(turns, costs, residuals[int(costs.argmin())], width)


def _memory(residuals: np.ndarray) -> float:
    """As in `Trend`, of what a fit leaves: more than the noise's own where the shape is not quite right."""
    power = float((residuals**2).sum())
    likeness = float((residuals[1:] * residuals[:-1]).sum()) / power if power > 0 else 0.0
    likeness = min(max(likeness, 0.0), 0.9)
    return (1 + likeness) / (1 - likeness)
