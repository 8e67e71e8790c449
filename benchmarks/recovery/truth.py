"""What a reader who knew the truth of a simulated history would have been told: the course without noise.

`agreement` is where a recommendation is measured: it is made once from what was read and once from the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from benchmarks.recovery.simulate import Truth, simulate
from tts_kernel.recovery.course import Best, Course, Onset, Shape, read_course


def true_course(found: Course, truth: Truth) -> Course:
    """`found` with the level, best, onset and shape that are true. Its points have to be those of the history."""
    kept = np.isfinite(truth.level)
    steps, level = found.series.steps, truth.level[kept][: len(found.series)]
    best, lucky = int(steps[truth.best]), int(np.argmin(found.series.values))
    lowest = Best(
        best, float(truth.level[truth.best]), best, best, int(steps[lucky]), float(found.series.values[lucky])
    )
    onset = None
    if truth.onset is not None:
        begun = int(steps[truth.onset])
        onset = Onset(begun, begun, begun, 1.0)
    shape: Shape = "diverged" if onset else "falling"
    return replace(found, trend=level, low=level, high=level, noise=truth.noise, best=lowest, onset=onset, shape=shape)


def recovers(truth: Truth) -> bool:
    """Whether going on as before leads below the best: it does unless the run has diverged."""
    return truth.onset is None


def agreement(recommend: Callable[[Course], object], histories: Iterable[tuple[int, str]]) -> float:
    """How often `recommend` says the same of what was read and of the truth; `histories` are seeds and kinds."""
    same = []
    for seed, kind in histories:
        series, truth = simulate(seed, kind)
        found = read_course(series)
        same.append(recommend(found) == recommend(true_course(found, truth)))
    return float(np.mean(same))
