"""The level of a noisy curve and how well it is known: thinning, a robust smoother, the noise left about it.

The smoother is local linear regression with tricube weights, repeated with bisquare weights on what it leaves, so that
neither spikes nor heavy tails move it (Cleveland 1979, JASA 74, 829-836). Its window is a share of the run and narrows
towards the first point, where a loss falls fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST = 1000  # bins that a curve is thinned to before anything is computed
REACH = 0.04  # half the smoother's window, as a share of the bins
_ROUNDS = 4  # of robust weights
_NARROWER = (0.5, 0.25)  # windows that are tried after it, as shares of it
_SLOW = 0.7  # of the slow noise's variance that is believed: half of the time it is found too large
_LEAST = 8  # bins of half a narrower window
_APART = 6.0  # standard errors between the levels of two windows that noise does not explain
_EXACT = 1e-12  # of the largest value: finer differences are rounding, not learning
_NORMAL = 1.4826  # standard deviation of normal noise over its median absolute deviation


@dataclass(frozen=True)
class Bins:
    """Neighbouring points taken together. All but `size` are (bins,)."""

    steps: np.ndarray  # median step of each, float64
    values: np.ndarray  # median value
    starts: np.ndarray  # place of each bin's first point
    size: int  # points in a bin; the last one may have fewer

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class Trend:
    """Of `Bins`. All but the last three are (bins,)."""

    level: np.ndarray
    gain: np.ndarray  # standard error of the level over that of independent noise in one bin
    noise: float  # standard deviation of a bin about the level, robust
    memory: float  # bins of correlated noise that tell as much as one of independent noise, at least 1
    reach: int  # half the window, in bins

    @property
    def error(self) -> np.ndarray:
        """(bins,) standard error of the level."""
        return self.gain * (self.noise * np.sqrt(self.memory))


def spread(residuals: np.ndarray) -> float:
    """Standard deviation by the median absolute deviation; 0 for nothing."""
    return float(_NORMAL * np.median(np.abs(residuals - np.median(residuals)))) if len(residuals) else 0.0


def bins_of(steps: np.ndarray, values: np.ndarray, most: int = MOST) -> Bins:
    """(points,), finite -> at most `most` bins of equally many neighbours, each with its medians."""
    size = max(1, -(-len(values) // most))
    starts = np.arange(0, len(values), size)
    if size == 1:
        return Bins(steps.astype(np.float64), values.astype(np.float64), starts, 1)
    whole = len(values) // size * size
    middles = [np.median(column[:whole].reshape(-1, size), axis=1) for column in (steps, values)]
    if whole < len(values):
        middles = [np.append(middles[i], np.median(column[whole:])) for i, column in enumerate((steps, values))]
    return Bins(middles[0], middles[1], starts, size)


def trend_of(values: np.ndarray) -> Trend:
    """(bins,), at least one -> its trend. Where a narrower window leads to another level than noise explains, the
    wider one has smoothed something over, and the narrower one counts (Lepski's rule)."""
    count = len(values)
    reach = max(4, round(REACH * count))
    level, gain = _smooth(values, reach)
    residuals = values - level
    noise = max(spread(residuals), _EXACT * float(np.abs(values).max()))
    memory = _memory(values, residuals, noise, reach)
    for part in _NARROWER:
        if round(part * reach) < _LEAST:
            break
        narrow, narrow_gain = _smooth(values, round(part * reach))
        apart = np.abs(narrow - level) > _APART * noise * np.sqrt(memory) * narrow_gain
        apart = np.convolve(apart, np.ones(reach + 1), "same") > 0.5  # and for half a window around it
        level, gain = np.where(apart, narrow, level), np.where(apart, narrow_gain, gain)
    return Trend(level, gain, max(spread(values - level), _EXACT * float(np.abs(values).max())), memory, reach)


def _smooth(values: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """(bins,) -> level and gain, (bins,) each."""
    count = len(values)
    places = np.arange(count)
    halves = np.minimum(reach, np.maximum(3, places))  # narrow at the start
    offsets = np.arange(-reach, reach + 1)
    near = np.clip(places[:, None] + offsets, 0, count - 1)  # (bins, window)
    inside = (places[:, None] + offsets == near) & (np.abs(offsets) <= halves[:, None])
    distance = np.abs(offsets) / (halves[:, None] + 1.0)
    kernel = np.where(inside, np.clip(1 - distance**3, 0, None) ** 3, 0.0)
    around = values[near]
    weights = kernel
    level, rows = _lines(weights, offsets, around)
    exact = max(_EXACT * float(np.abs(values).max()), np.finfo(float).tiny)
    for _ in range(_ROUNDS):
        residuals = values - level
        scale = _local_scale(residuals, reach)
        bisquare = np.clip(1 - (residuals / np.maximum(6 * scale, exact)) ** 2, 0, None) ** 2
        weights = kernel * np.maximum(bisquare, 1e-6)[near]
        level, rows = _lines(weights, offsets, around)
    return level, np.sqrt((rows**2).sum(axis=1))


def _lines(weights: np.ndarray, offsets: np.ndarray, around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bins, window) weights and values -> the fitted lines at their middles, (bins,), and what each value counts for
    there, (bins, window)."""
    total = weights.sum(axis=1)
    first = (weights * offsets).sum(axis=1)
    second = (weights * offsets**2).sum(axis=1)
    spare = np.maximum(total * second - first**2, 1e-300)
    rows = weights * (second[:, None] - first[:, None] * offsets) / spare[:, None]
    lone = total * second - first**2 <= 1e-12 * total**2  # one value only: no line through it
    rows[lone] = weights[lone] / total[lone, None]
    return (rows * around).sum(axis=1), rows


def _local_scale(residuals: np.ndarray, reach: int) -> np.ndarray:
    """(bins,) -> (bins,) median absolute residual of a block and its neighbours, never below half the curve's own, so
    that neither a louder stretch nor a quiet one loses its points."""
    size = 2 * reach
    whole = spread(residuals)
    if len(residuals) < 2 * size:
        return np.full(len(residuals), whole)
    edges = np.arange(0, len(residuals) - size // 2, size)
    middles = np.array([np.median(np.abs(residuals[edge : edge + size])) for edge in edges]) * _NORMAL
    return np.maximum(np.interp(np.arange(len(residuals)), edges + reach, middles), 0.5 * whole)


def _memory(values: np.ndarray, residuals: np.ndarray, noise: float, reach: int) -> float:
    """Integrated autocorrelation of the noise: from the residuals' own, and, because the smoother takes slow noise for
    trend, from how the medians of blocks half as wide as its window bend (third differences, of which a smooth curve
    has next to none; a low quantile of them, as some hold a jump). A longer memory would be a trend."""
    if len(values) < 8 * reach or noise == 0:
        return 1.0
    whole = len(values) // (4 * reach) * 4 * reach
    clipped = np.clip(residuals, -3 * noise, 3 * noise)[:whole].reshape(-1, 4 * reach)
    power = np.maximum((clipped**2).mean(axis=1), np.finfo(float).tiny)
    total = 1.0
    for lag in range(1, reach):
        likeness = float(np.median((clipped[:, lag:] * clipped[:, :-lag]).mean(axis=1) / power))
        if likeness < 0.05:
            break
        total += 2 * likeness
    middles = np.median(np.lib.stride_tricks.sliding_window_view(values, reach), axis=1)
    one, two, three = (middles[lag * reach :][: len(middles) - 3 * reach] for lag in (1, 2, 3))
    bends = three - 3 * two + 3 * one - middles[: len(one)]
    slow = float(np.quantile(np.abs(bends), 0.25)) / 0.3186 / np.sqrt(20)  # of one block's median: 20 is 1 + 9 + 9 + 1
    expected = 1.2533 * noise / np.sqrt(reach)  # of a median of independent noise
    return float(np.clip(_SLOW * (slow / expected) ** 2, total, reach))
