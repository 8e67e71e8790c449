"""How one metric is drawn over the steps, readable from ten points to a million, with the gaps and jumps of a run that
went wrong."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from tts_kernel.recovery.history import Series
from tts_kernel.widgets.figures import RED

MOST = 1500  # points that are drawn; a picture has no more columns
_WINDOW = 40  # a smoothed line averages over one part in so many of it


def thin(series: Series, most: int = MOST) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps, means, lowest and highest values, (points,) each, of neighbours that share a column of the picture. NaN
    where none of them is finite."""
    steps, values = series.steps.astype(float), np.where(np.isfinite(series.values), series.values, np.nan)
    size = -(-len(values) // most) if len(values) else 1
    if size == 1:
        return steps, values, values, values
    padded = np.pad(values, (0, -len(values) % size), constant_values=np.nan).reshape(-1, size)
    counts = np.isfinite(padded).sum(axis=1)
    some = counts > 0
    means, low, high = (np.full(len(padded), np.nan) for _ in range(3))
    means[some] = np.nansum(padded[some], axis=1) / counts[some]
    low[some], high[some] = np.nanmin(padded[some], axis=1), np.nanmax(padded[some], axis=1)
    return np.pad(steps, (0, -len(steps) % size), mode="edge").reshape(-1, size).mean(axis=1), means, low, high


def smooth(values: np.ndarray) -> np.ndarray:
    """(points,) -> (points,): means of a centred window, over the values that are finite; NaN stays NaN."""
    reach = max(1, len(values) // _WINDOW)
    there = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(there, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(there)])
    places = np.arange(len(values))
    first, last = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return np.where(there, (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1), np.nan)


def noisy(values: np.ndarray) -> bool:
    """Whether a reader cannot see where the line goes, because it moves from one point to the next about as much as
    over many."""
    finite = values[np.isfinite(values)]
    if len(finite) < 40:
        return False
    far = max(5, len(finite) // _WINDOW)
    near_moves, far_moves = np.abs(np.diff(finite)), np.abs(finite[far:] - finite[:-far])
    return bool(np.median(near_moves) > 0.35 * np.median(far_moves))


def draw(axis: Axes, series: Series, label: str, colour: str, *, marks: bool = False, style: str = "-") -> bool:
    """One line; where it is noisy the smoothed one, before the faint range of what was logged. With `marks` the points
    themselves, few as those of a validation are. Returns whether there was anything to draw."""
    if not np.isfinite(series.values).any():
        return False
    steps, means, low, high = thin(series)
    few = marks and len(series) <= 60
    if noisy(means) and not few:
        axis.plot(steps, means, color=colour, alpha=0.22, linewidth=0.8)
        if len(series) > MOST:
            axis.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
        means = smooth(means)
    shape = "o" if few or np.isfinite(means).sum() == 1 else ""
    axis.plot(steps, means, style, marker=shape, color=colour, label=label, linewidth=1.5, markersize=3.5)
    return True


def mark_missing(axis: Axes, *several: Series) -> None:
    """Crosses at the foot where a value was not finite, NaN or infinite."""
    lost = np.unique(np.concatenate([series.steps[~np.isfinite(series.values)] for series in several]))
    if len(lost):
        shown = lost[:: -(-len(lost) // 150)]
        foot = axis.get_xaxis_transform()
        axis.plot(
            shown,
            np.full(len(shown), 0.03),
            "x",
            color=RED,
            markersize=5,
            transform=foot,
            label=f"not finite, {len(lost):,}x",
        )


def scale(axis: Axes, *several: Series, zero: bool = True, decades: float = 2.0) -> None:
    """Logarithmic where the values span more than so many decades, else linear, from 0 with `zero`."""
    values = np.concatenate([series.values[np.isfinite(series.values)] for series in several])
    positive = values[values > 0]
    if len(positive) and len(positive) == len(values) and values.max() > 10**decades * values.min():
        axis.set_yscale("log")
        if values.max() < 1000 * values.min():  # powers of ten alone would be too few to read by
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.yaxis.set_minor_locator(NullLocator())
    elif zero and len(values) and values.min() >= 0:
        axis.set_ylim(0, 1.08 * values.max() if values.max() > 0 else 1)


def label_steps(axis: Axes) -> None:
    axis.set_xlabel("step")
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
