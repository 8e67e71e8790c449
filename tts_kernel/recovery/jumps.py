"""What the trend of a curve smooths over: short spikes, and jumps from one point to the next."""

from __future__ import annotations

import numpy as np

from tts_kernel.recovery.trend import Trend

_TALL = 8.0  # standard deviations of a point, above which it is part of a spike
_LEAST = 3  # points of a spike: fewer are outliers
_GAP = 3  # points lower in between that do not end a spike
_SURE, _SURE_AT_RESUME = 6.0, 4.0  # standard errors of a jump; fewer where one is looked for


def short_spikes(residuals: np.ndarray, noise: float) -> list[tuple[int, int, float]]:
    """(points,) about the trend -> first and last point and height of each. One that reaches the last point is none:
    nothing says that it ended; nor is the fall of the very first points."""
    high = np.flatnonzero(residuals > _TALL * noise) if noise > 0 else np.zeros(0, int)
    if not len(high):
        return []
    groups = np.split(high, np.flatnonzero(np.diff(high) > _GAP) + 1)
    ended = [group for group in groups if group[0] >= _LEAST and group[-1] + _GAP < len(residuals)]
    return [(int(g[0]), int(g[-1]), float(residuals[g].max())) for g in ended if len(g) >= _LEAST]


def find_jumps(values: np.ndarray, trend: Trend, suspects: np.ndarray) -> list[tuple[int, float]]:
    """(bins,) -> the first bin after each jump, and its height. `suspects` are bins where less proof is asked for."""
    width = max(5, trend.reach // 2)
    count = len(values)
    if count < 2 * width + 2 or trend.noise == 0:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(values, width)  # one that begins at each bin
    forward, gain = _at_edge(width)
    after, before = windows[width:] @ forward[::-1], windows[:-width] @ forward  # lines met at each edge
    heights = after - before
    closest = np.median(np.lib.stride_tricks.sliding_window_view(values, 3), axis=1)
    edges = np.arange(width, count - width + 1)
    abrupt = closest[np.minimum(edges, count - 3)] - closest[edges - 3]
    doubt = np.sqrt(2.0) * gain * trend.noise * np.sqrt(min(trend.memory, width))
    needed = np.where(np.isin(edges, suspects), _SURE_AT_RESUME, _SURE) * doubt
    sure = (np.abs(heights) > needed) & (abrupt * heights > 0.5 * heights**2)
    found: list[tuple[int, float]] = []
    for place in np.flatnonzero(sure):
        near = np.abs(heights[max(place - width, 0) : place + width + 1])
        if abs(heights[place]) == near.max():
            found.append((int(edges[place]), float(heights[place])))
    return found


def _at_edge(width: int) -> tuple[np.ndarray, float]:
    """What each of `width` values counts for in the line through them, half a bin after the last, and its gain."""
    offsets = np.arange(width) - (width - 1) / 2
    weights = 1 / width + offsets * (width / 2) / (offsets**2).sum()
    return weights, float(np.sqrt((weights**2).sum()))
