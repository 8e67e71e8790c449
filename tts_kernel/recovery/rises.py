"""The rises of a trend: where the level leaves its lowest by more than noise explains, and whether it comes back.

Everything is counted in bins of the trend. A rise is over when the level has come back to within what noise explains
above the low it began from, or to within a fifth of its height and of all that had been learned before. What is still
up at the end has lasted when it is old enough to be told from a spike and is not on its way down: falling so fast that
it would be back before it has been up for twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tts_kernel.recovery.trend import Trend

_SURE = 4.5  # standard errors between two levels that noise does not explain, lows being picked for being low
_LIKELY = 1.0  # standard errors of a fall that is looked for
_MATERIAL = 0.03  # of the median height above the low so far: less than that matters to nobody
_BACK = 0.2  # of its height, and of what was learned before, within which a rise has been recovered from
_FALLING = 0.1  # of its height, by which a rise has to have fallen to be on its way back
_HALF_WAY = 0.5  # of its height: below that a falling rise is on its way back
_LEAST_POINTS = 6  # of a rise that is no spike
_ALIKE = 2.5  # factor within which two heights or two waits are alike


@dataclass(frozen=True)
class Rise:
    """All but the heights are bins."""

    low: int  # the lowest before it
    left: int  # where it was last near the low
    opened: int  # where noise no longer explained it
    peak: int
    height: float  # of the peak above the low
    doubt: float  # height that noise would explain where it opened
    closed: int | None  # where it was recovered from; None: still up at the end


def find_rises(trend: Trend, first: int = 0) -> list[Rise]:
    """In order, from bin `first` on; only the last may be open."""
    level, errors = trend.level, trend.error
    found: list[Rise] = []
    low, opened, peak, doubt = first, -1, -1, 0.0
    for place in range(first, len(level)):
        above = level[place] - level[low]
        if opened < 0:
            if above <= 0:
                low = place
                continue
            doubt = explained(level, errors, first, low, place)
            if above > doubt:
                opened = peak = place
        else:
            peak = place if level[place] > level[peak] else peak
            height = level[peak] - level[low]
            learned = float(level[first : low + 1].max() - level[low])
            if above <= max(0.5 * doubt, _BACK * min(height, learned)):
                found.append(_rise(level, low, opened, peak, doubt, place))
                low, opened = (place if above > doubt else low), -1
    if opened >= 0:
        found.append(_rise(level, low, opened, peak, doubt, None))
    return found


def explained(level: np.ndarray, errors: np.ndarray, first: int, low: int, place: int) -> float:
    """The height above `low` that noise explains at `place`."""
    noise = _SURE * float(np.hypot(errors[place], errors[low]))
    return max(noise, _MATERIAL * float(np.median(level[first : low + 1]) - level[low]))


def _rise(level: np.ndarray, low: int, opened: int, peak: int, doubt: float, closed: int | None) -> Rise:
    near = np.flatnonzero(level[low : opened + 1] <= level[low] + 0.5 * doubt)
    return Rise(low, low + int(near[-1]), opened, peak, float(level[peak] - level[low]), doubt, closed)


def lasts(trend: Trend, rises: list[Rise], size: int) -> bool:
    """Whether the last of the rises is one that lasts; `size` is the points in a bin."""
    if not rises or rises[-1].closed is not None:
        return False
    last, level = rises[-1], trend.level
    end = len(level) - 1
    age = len(level) - last.left
    if age * size < _LEAST_POINTS or age < trend.reach / 2:
        return False
    middle = (last.peak + end) // 2
    like = [rise for rise in rises[:-1] if rise.closed and 1 / _ALIKE < rise.height / last.height < _ALIKE]
    if age < _ALIKE * max([(rise.closed or 0) - rise.left for rise in like], default=0):
        if _fell(trend, last.peak, end) > _FALLING * last.height and _fell(trend, middle, end) > 0:
            return False
        if len(like) > 1 and _habit(like[-2], like[-1], last) and age < 0.5 * (last.left - like[-1].left):
            return False  # its time to fall has not come
    left, fell = float(level[end] - level[last.low]), _fell(trend, middle, end)
    if left > _HALF_WAY * last.height or fell < _FALLING * left:
        return True
    return left * (end - middle) > fell * age  # too slow


def _fell(trend: Trend, begin: int, end: int) -> float:
    """By how much, 0 if noise explains it."""
    fell = float(trend.level[begin] - trend.level[end])
    return fell if fell > _LIKELY * float(np.hypot(trend.error[begin], trend.error[end])) else 0.0


def _habit(one: Rise, two: Rise, three: Rise) -> bool:
    """Whether rises come as those of warm restarts do: one after another, each back only shortly before the next."""
    wait = three.left - two.left
    return 1 / _ALIKE < wait / max(two.left - one.left, 1) < _ALIKE and (two.closed or 0) - two.left > 0.3 * wait
