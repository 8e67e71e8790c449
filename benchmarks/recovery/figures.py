"""The page's pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from benchmarks.recovery.measure import Judged, Read
from benchmarks.recovery.simulate import simulate
from tts_kernel.recovery.course import read_course
from tts_kernel.widgets.figures import BLUE, GREEN, GREY, ORANGE, RED, make_figure

SHOWN = ("jump", "ramp", "drift", "over-fitting", "explosion", "two", "restarts", "spikes")


def examples(seed: int) -> Figure:
    """One history of each of eight kinds, as it is read."""
    figure, axes = make_figure(12, 10.5, 4, 2)
    for axis, kind in zip(axes.flat, SHOWN, strict=True):
        series, truth = simulate(seed, kind)
        course = read_course(series)
        axis.plot(series.steps, series.values, color=GREY, alpha=0.5, linewidth=0.5, label="logged")
        axis.plot(course.series.steps, course.trend, color=BLUE, linewidth=1.4, label="trend")
        if course.best is not None:
            axis.plot(course.best.step, course.best.value, "o", color=GREEN, markersize=6, label="best")
        if truth.onset is not None:
            axis.axvline(series.steps[truth.onset], color="black", linewidth=1.2, label="true onset")
        if course.onset is not None:
            axis.axvspan(course.onset.first, course.onset.last, color=RED, alpha=0.25, linewidth=0)
            axis.axvline(course.onset.step, color=RED, linewidth=1.2, linestyle="--", label="onset, 90 %")
        low, high = np.nanquantile(series.values, [0.0005, 0.9985])
        axis.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
        axis.set_title(f"{kind}: {course.shape}", fontsize=10, loc="left")
    axes[-1, 0].set_xlabel("step")
    axes[-1, 1].set_xlabel("step")
    lines, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, fontsize=9, loc="outside upper center", ncols=len(labels))
    return figure


def onsets(reads: Sequence[Read]) -> Figure:
    """How far off onsets are, and how far above the lowest the bests are."""
    figure, axes = make_figure(12, 4.5, 1, 2)
    left, right = axes[0]
    errors = np.array([one.error for one in reads if np.isfinite(one.error)])
    noise = np.array([one.noise for one in reads if np.isfinite(one.error)])
    limits = np.quantile(noise, [0, 1 / 3, 2 / 3, 1])
    for colour, low, high in zip((GREEN, ORANGE, RED), limits[:-1], limits[1:], strict=True):
        some = 100 * np.sort(np.abs(errors[(noise >= low) & (noise <= high)]))
        label = f"noise {100 * low:.1f} to {100 * high:.1f} % of the drop"
        left.plot(np.maximum(some, 0.01), 100 * (np.arange(len(some)) + 1) / len(some), color=colour, label=label)
    left.axvline(2, color="black", linewidth=1, linestyle=":", label="target for the median")
    left.set(xscale="log", xlabel="error of the onset, % of the run", ylabel="% of divergences", ylim=(0, 100))
    left.legend(fontsize=8, loc="lower right")
    for colour, label, found in (
        (BLUE, "best stretch of the trend", [one.best for one in reads]),
        (GREY, "lowest logged point", [one.luckiest for one in reads]),
    ):
        above = 100 * np.sort(np.nan_to_num(np.array(found), nan=1.0))
        right.plot(np.maximum(above, 0.01), 100 * (np.arange(len(above)) + 1) / len(above), color=colour, label=label)
    right.set(xscale="log", xlabel="true loss there above the lowest, % of the drop", ylabel="% of histories")
    right.set_ylim(0, 100)
    right.legend(fontsize=8, loc="lower right")
    return figure


def judgements(phases: Sequence[Judged]) -> Figure:
    """What both rules give to phases that recover and to those that do not, and how often what they say comes true."""
    figure, axes = make_figure(12, 4.5, 1, 3)
    truth = np.array([one.recovers for one in phases])
    edges = np.linspace(0, 1, 11)
    for axis, name, given in (
        (axes[0, 0], "the guide's score / 100", np.array([one.points for one in phases]) / 100),
        (axes[0, 1], "the robust estimate", np.array([one.probability for one in phases])),
    ):
        for side, colour, label in ((True, GREEN, "recovers"), (False, RED, "does not")):
            shares = np.histogram(given[truth == side], edges)[0] / max((truth == side).sum(), 1)
            shift = -0.021 if side else 0.021
            axis.bar(edges[:-1] + 0.05 + shift, 100 * shares, 0.04, color=colour, label=label)
        axis.set(xlabel=name, ylabel="% of phases", ylim=(0, 100))
        axis.legend(fontsize=8)
        middles, came = _came_true(given, truth, edges)
        colour = GREY if "guide" in name else BLUE
        axes[0, 2].plot(middles, came, "o-", color=colour, label=name, linewidth=1.2, markersize=4)
    axes[0, 2].plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=":")
    axes[0, 2].set(xlabel="what is given, %", ylabel="of these recover, %", xlim=(0, 100), ylim=(0, 100))
    axes[0, 2].legend(fontsize=8)
    return figure


def _came_true(given: np.ndarray, truth: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per cent, of the bins that have at least five phases."""
    places = np.clip(np.digitize(given, edges) - 1, 0, len(edges) - 2)
    full = [place for place in range(len(edges) - 1) if (places == place).sum() >= 5]
    means = [(100 * given[places == place].mean(), 100 * truth[places == place].mean()) for place in full]
    return np.array(means).reshape(-1, 2)[:, 0], np.array(means).reshape(-1, 2)[:, 1]
