"""How one loss went: trend and noise, best stretch, onset of a lasting divergence, spikes, plateau, jumps.

A rise lasts when the run has not come back from it at the end; that loss rises at all, fast or slowly, is enough, as in
a validation that over-fits. Of several rises the onset is that of the last one that was not recovered from, and the
best is the lowest before it: a run that diverged, came back and diverged again is judged by where it left the second
time. Two stairs without a way back in between are one divergence, which began with the first. A loss that ends in
values that are not finite has diverged. The onset is where the trend turns; where a drift begins while the loss
still falls, it is where the fall ends.

Steps may come in any order: they are sorted, and of several values of one step the one that was logged last counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tts_kernel.recovery.history import Series
from tts_kernel.recovery.jumps import find_jumps, short_spikes
from tts_kernel.recovery.rises import Rise, explained, find_rises, lasts
from tts_kernel.recovery.trend import Bins, Trend, bins_of, spread, trend_of
from tts_kernel.recovery.turning import turning_point

LEAST = 12  # points below which nothing is found
_ALIKE = 1.645  # standard errors between two levels that cannot be told apart
_BAND = 1.96  # standard errors of the trend's band
_WINDOW = 160  # bins of the stretch in which an onset is looked for
_PLATEAU = 0.1  # of the run: less is no plateau

Shape = Literal["falling", "flat", "rising", "diverged", "recovered", "unknown"]


@dataclass(frozen=True)
class Best:
    """The lowest stretch of the trend, not the luckiest point."""

    step: int
    value: float  # of the trend there
    first: int  # steps around it that cannot be told apart from it
    last: int
    luckiest_step: int  # of the lowest single point, for the record
    luckiest: float


@dataclass(frozen=True)
class Onset:
    """Where the rise that lasts begins."""

    step: int
    first: int  # about 90 % of the time it lies in first..last
    last: int
    confidence: float  # that there is one at all, 0..1: a rule of thumb from height, age and kind, not a probability


@dataclass(frozen=True)
class Spell:
    """A spike that was recovered from."""

    first: int
    last: int
    height: float


@dataclass(frozen=True)
class Jump:
    """A change of level between two logged points."""

    step: int  # the first at the new level
    height: float
    at_resume: bool  # an artefact of resuming, not of learning


@dataclass(frozen=True)
class Course:
    """What one series says. Steps are those that were logged."""

    series: Series  # its finite points, ascending
    trend: np.ndarray  # (points,)
    low: np.ndarray  # (points,) the trend's band, 95 %
    high: np.ndarray
    noise: float  # standard deviation of a point about the trend, robust
    best: Best | None
    onset: Onset | None  # None: no lasting divergence
    spikes: tuple[Spell, ...]
    plateau_from: int | None  # from here on, up to the onset if there is one, the trend moved no more than noise allows
    jumps: tuple[Jump, ...]
    lost: int  # points that were not finite
    shape: Shape

    def at(self, step: float) -> tuple[float, float]:
        """The trend and its standard error at a step, those of the nearest end outside the run; NaN without points."""
        if not len(self.series):
            return float("nan"), float("nan")
        steps = self.series.steps
        level, high = np.interp(step, steps, self.trend), np.interp(step, steps, self.high)
        return float(level), float((high - level) / _BAND)


def read_course(series: Series, *, resumes: Sequence[int] = (), warmup: int = 0) -> Course:
    """Steps before `warmup` are neither the best nor the begin of a divergence, unless there is nothing else. Fewer
    than `LEAST` finite points have the shape "unknown", and nothing is found in them but values that ended."""
    series, kept = _ascending(series)
    lost, ended = int((~kept).sum()), _ended(series, kept)
    series = Series(series.steps[kept], series.values[kept], series.times[kept])
    if len(series) < LEAST:
        level, nothing = series.values, np.full(len(series), np.nan)
        shape: Shape = "diverged" if ended else "unknown"
        return Course(series, level, nothing, nothing, float("nan"), None, ended, (), None, (), lost, shape)
    bins = bins_of(series.steps, series.values)
    trend = trend_of(bins.values)
    first = int(np.searchsorted(bins.steps, warmup))
    first = first if len(bins) - first >= LEAST else 0
    rises = find_rises(trend, first)
    onset = ended
    if rises and rises[-1].closed is None and (ended or lasts(trend, rises, bins.size)):
        onset = _onset(series, bins, trend, rises, first)
    stop = len(bins) - 1
    if onset is not None:
        stop = max(first, int(np.searchsorted(bins.steps, onset.step, side="right")) - 1)
    points = np.arange(len(series))
    middles = bins.starts + (np.diff(np.append(bins.starts, len(series))) - 1) / 2
    level, error = np.interp(points, middles, trend.level), np.interp(points, middles, trend.error)
    residuals = series.values - level
    noise = spread(residuals)
    plateau = _plateau(bins, trend, first, stop)
    return Course(
        series,
        level,
        level - _BAND * error,
        level + _BAND * error,
        noise,
        _best(series, bins, trend, first, stop),
        onset,
        _spells(series, bins, trend, rises, short_spikes(residuals, noise), onset),
        plateau,
        _jumps(series, bins, trend, resumes),
        lost,
        _shape(trend, rises, onset, plateau, first),
    )


def _ascending(series: Series) -> tuple[Series, np.ndarray]:
    """By step, the last logged of each, and which of them are finite."""
    steps = np.asarray(series.steps)
    order = np.argsort(steps, kind="stable")
    order = order[np.append(np.diff(steps[order]) != 0, True)] if len(order) else order
    values = np.asarray(series.values, np.float64)[order]
    return Series(steps[order], values, np.asarray(series.times)[order]), np.isfinite(values)


def _ended(series: Series, kept: np.ndarray) -> Onset | None:
    """Values that are not finite to the end, after some that were."""
    if not kept.any() or kept[-1]:
        return None
    last = int(np.flatnonzero(kept)[-1])
    steps, gone = series.steps, len(kept) - 1 - last
    return Onset(int(steps[last + 1]), int(steps[last]), int(steps[last + 1]), 1 - 0.5**gone)


def _onset(series: Series, bins: Bins, trend: Trend, rises: list[Rise], first: int) -> Onset:
    """Looked for from well before the trend left its low to where it had risen half of its height."""
    rise = rises[-1]
    level = trend.level
    half = rise.opened + int(np.argmax(level[rise.opened :] >= level[rise.low] + 0.5 * rise.height))
    right = min(half + max(trend.reach, half - rise.left) // 4, len(bins) - 1)
    floor = max([first, *(earlier.closed or 0 for earlier in rises[:-1])])
    left = max(floor, rise.left - max(right - rise.left, 2 * trend.reach))
    begin, end = bins.starts[left], min(bins.starts[right] + bins.size, len(series))
    window = bins_of(series.steps[begin:end], series.values[begin:end], _WINDOW)
    memory = max(1.0, trend.memory * bins.size / window.size)
    early, likely, late = turning_point(window.steps, window.values, memory)
    steps = series.steps
    step, low, high = (int(steps[np.argmin(np.abs(steps - place))]) for place in (likely, early, late))
    sure = 1 - np.exp(-rise.height / rise.doubt) if rise.doubt > 0 else 1.0
    old = 1 - np.exp(-(len(bins) - rise.left) / trend.reach)
    return Onset(step, low, high, round(float(np.clip(sure * old, 0.05, 0.99)), 2))


def _best(series: Series, bins: Bins, trend: Trend, first: int, stop: int) -> Best:
    """Of the trend from bin `first` to bin `stop`."""
    level, errors = trend.level, trend.error
    place = first + int(np.argmin(level[first : stop + 1]))
    apart = np.abs(level - level[place]) > _ALIKE * np.hypot(errors, errors[place])
    before, after = np.flatnonzero(apart[first:place]), np.flatnonzero(apart[place : stop + 1])
    left = first + int(before[-1]) + 1 if len(before) else first
    right = place + int(after[0]) - 1 if len(after) else stop
    luckiest = int(np.argmin(series.values))
    steps, last = series.steps, min(bins.starts[right] + bins.size, len(series)) - 1
    middle = min(bins.starts[place] + bins.size // 2, len(series) - 1)
    return Best(
        int(steps[middle]),
        float(level[place]),
        int(steps[bins.starts[left]]),
        int(steps[last]),
        int(steps[luckiest]),
        float(series.values[luckiest]),
    )


def _plateau(bins: Bins, trend: Trend, first: int, stop: int) -> int | None:
    """The earliest bin from which the trend stays, up to bin `stop`, within what noise explains."""
    level, errors = trend.level[first : stop + 1], trend.error[first : stop + 1]
    if not len(level):
        return None
    lowest, highest = (fold.accumulate(level[::-1])[::-1] for fold in (np.minimum, np.maximum))
    allowed = max(explained(level, errors, 0, len(level) // 2, -1), 1e-9 * float(np.abs(level).max()))
    start = int(np.argmax(highest - lowest <= allowed))
    if len(level) - start < _PLATEAU * len(bins):
        return None
    return int(bins.steps[first + start])


def _spells(
    series: Series,
    bins: Bins,
    trend: Trend,
    rises: list[Rise],
    short: list[tuple[int, int, float]],
    onset: Onset | None,
) -> tuple[Spell, ...]:
    """Rises of the trend that were recovered from and spikes that it smooths over, those that overlap as one."""
    steps, found = series.steps, list[Spell]()
    middles = np.median(
        np.lib.stride_tricks.sliding_window_view(bins.values, 3), axis=1
    )  # of which the trend makes less
    for rise in rises:
        if rise.closed is not None:
            height = float(middles[rise.left : rise.closed].max() - trend.level[rise.low])
            found.append(Spell(int(steps[bins.starts[rise.left]]), int(steps[bins.starts[rise.closed]]), height))
    found += [Spell(int(steps[begin]), int(steps[end]), height) for begin, end, height in short]
    merged: list[Spell] = []
    for spell in sorted(found, key=lambda one: one.first):
        if merged and spell.first <= merged[-1].last:
            last = merged.pop()
            spell = Spell(last.first, max(last.last, spell.last), max(last.height, spell.height))
        merged.append(spell)
    return tuple(spell for spell in merged if onset is None or spell.last <= onset.step)


def _jumps(series: Series, bins: Bins, trend: Trend, resumes: Sequence[int]) -> tuple[Jump, ...]:
    """A jump is at a resume when the run went on between the bins on its two sides, or in them."""
    edges = np.append(series.steps[bins.starts], series.steps[-1] + 1)
    places = np.searchsorted(edges, np.asarray(resumes, np.int64), side="right")  # the bin after the one it is in
    suspects = np.union1d(places, places - 1)
    return tuple(
        Jump(int(edges[place]), height, bool(np.isin(place, suspects)))
        for place, height in find_jumps(bins.values, trend, suspects)
    )


def _shape(trend: Trend, rises: list[Rise], onset: Onset | None, plateau: int | None, first: int) -> Shape:
    if onset is not None:
        return "diverged"
    if rises and rises[-1].closed is None:
        return "rising"
    level = trend.level
    drop = float(np.median(level[first:]) - level[first:].min())
    if any(rise.height > drop for rise in rises):
        return "recovered"
    return "falling" if plateau is None else "flat"
