"""What the reading of a course and the judgement of phase 1 make of simulated runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from benchmarks.recovery.phase import KINDS, simulate_phase
from benchmarks.recovery.simulate import DIVERGED, HEALTHY, simulate
from tts_kernel.recovery.course import read_course
from tts_kernel.recovery.judgement import guide_score, robust_estimate


@dataclass(frozen=True)
class Read:
    """One history."""

    seed: int
    kind: str
    points: int
    noise: float  # standard deviation of a point, of the loss's drop
    clear: float  # standard errors by which the divergence stands out
    diverged: bool  # in truth
    found: bool  # a lasting divergence
    error: float  # of the onset, of the run's steps, NaN where it is not both there and found
    inside: bool  # the true onset within the interval
    width: float  # of the interval, of the run's steps
    best: float  # the loss without noise at the best that was found, above the lowest, of the drop
    luckiest: float  # the same at the lowest point
    seconds: float


@dataclass(frozen=True)
class Judged:
    """One first phase."""

    kind: str
    recovers: bool  # in truth
    points: int  # the guide's
    probability: float
    low: float
    high: float


def read(seed: int, kind: str) -> Read:
    series, truth = simulate(seed, kind)
    begun = time.perf_counter()
    course = read_course(series)
    seconds = time.perf_counter() - begun
    span, nan = float(series.steps[-1] - series.steps[0]), float("nan")
    error, inside, width = nan, False, nan
    if course.onset is not None and truth.onset is not None:
        true = int(series.steps[truth.onset])
        error, inside = (course.onset.step - true) / span, course.onset.first <= true <= course.onset.last
        width = (course.onset.last - course.onset.first) / span
    assert course.best is not None, "a simulated history has enough points for a best one"
    lowest, places = (
        truth.level[truth.best],
        np.searchsorted(series.steps, [course.best.step, course.best.luckiest_step]),
    )
    best, luckiest = (truth.level[places] - lowest) / truth.drop
    return Read(
        seed,
        kind,
        len(series),
        truth.noise / truth.drop,
        truth.clear,
        truth.onset is not None,
        course.onset is not None,
        error,
        inside,
        width,
        float(best),
        float(luckiest),
        seconds,
    )


def judge(seed: int, kind: str) -> Judged:
    phase = simulate_phase(seed, kind)
    score = guide_score(phase.series.values, () if phase.validation is None else phase.validation.values)
    estimate = robust_estimate(phase.series, validation=phase.validation, start=phase.start, target=phase.target)
    return Judged(kind, phase.recovers, score.points, estimate.probability, estimate.low, estimate.high)


def read_all(seed: int, each: int) -> list[Read]:
    """`each` histories of every kind."""
    return [read(seed + number, kind) for kind in HEALTHY + DIVERGED for number in range(each)]


def judge_all(seed: int, each: int) -> list[Judged]:
    return [judge(seed + number, kind) for kind in KINDS for number in range(each)]
