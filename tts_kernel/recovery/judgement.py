"""Whether phase 1 recovers: the guide's score, as it is written, and an estimate that knows about noise.

The estimate asks where the loss will be after another phase of the same length: a robust line through the last part of
the phase, half of whose slope is taken to go on, as losses flatten. Its probability is that of lying below where the
phase began by more than nothing. It is as good as that picture: a rule of thumb with an honest account of the noise,
measured on simulated phases in docs/benchmarks/recovery.md, not a fact about a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from tts_kernel.recovery.history import Series
from tts_kernel.recovery.trend import spread

POINTS = 50  # logged points that the guide's score is over
LEAST = 8  # points below which the estimate is the guide's
_LEAST_HELD = 4  # validations below which nothing is read from them
PRIOR = 0.45  # success of a phased continuation by the guide, 40-50 %
_STEEP = -0.001  # per logged point
_WORSE = 1.1  # of the first validation, above which it has become worse
_LATE = 0.4  # of the phase, through which the line is drawn: what came before was learnt at another rate
_ONWARD = 0.5  # of the slope that is taken to go on for another phase
_GAP = 0.1  # of the way from the start to the target, less than which is no recovery
_QUIET = 0.25  # standard deviations of a point, less than which is none either, without a target
_WRONG = 0.02  # of all phases go where no line leads, whatever the noise
_CLOSE = 1.645  # standard errors of a 90 % interval

Advice = Literal["go on", "go on with care", "restart advised", "restart"]
_ADVICE: dict[int, Advice] = {20: "restart advised", 40: "go on with care", 70: "go on"}  # from so many points


@dataclass(frozen=True)
class GuideScore:
    """0 to 100 points."""

    points: int
    parts: Mapping[str, int]  # slope, last, validation
    advice: Advice
    enough: bool  # whether there were as many logged points as it is made for


@dataclass(frozen=True)
class RobustEstimate:
    """A probability, and the lowest and highest of those that come of other pictures than half of the slope: the loss
    stays where it is, or goes on as it does; the noise's memory as found, or twice as long."""

    probability: float
    low: float
    high: float
    slope: float  # per 1,000 steps, with its 90 % interval
    slope_low: float
    slope_high: float
    text: str

    @property
    def measured(self) -> bool:
        """Whether the phase had enough points; else the probability is the guide's for any phase."""
        return math.isfinite(self.slope) or self.probability == 0.0


@dataclass(frozen=True)
class _Line:
    """Through the late part of a phase."""

    level: float  # at its end
    slope: float  # per step
    errors: tuple[float, float, float]  # variance of the level, of the slope, and covariance, for independent noise
    noise: float
    memory: float
    length: float  # of the whole phase, steps

    def chance_below(self, level: float, onward: float, memory: float) -> float:
        """That the loss will be below the level when so much of the slope has gone on for another phase."""
        ahead = onward * self.length
        spread_level, spread_slope, both = (memory * error for error in self.errors)
        variance = spread_level + 2 * ahead * both + ahead**2 * spread_slope + (0.5 * ahead * self.slope) ** 2
        chance = _normal((level - self.level - ahead * self.slope) / math.sqrt(max(variance, 1e-300)))
        return _WRONG + (1 - 2 * _WRONG) * chance


def guide_score(values: Sequence[float] | np.ndarray, validation: Sequence[float] | np.ndarray = ()) -> GuideScore:
    """Of the logged training losses, oldest first, and the validation losses of the phase. Over the last 50 points:
    slope of least squares per logged point below -0.001 40 points, below 0 20; last below first 30; validation not
    worse than 1.1 times its first, or absent, 30. Source: SYSTEMS.md, section 2. A loss that is not finite has neither
    fallen nor held."""
    late = np.asarray(values, np.float64)[-POINTS:]
    held = np.asarray(validation, np.float64)
    slope = 0.0
    if len(late) > 1 and np.isfinite(late).all():
        places = np.arange(len(late)) - (len(late) - 1) / 2
        slope = float(places @ (late - late[0]) / (places @ places))
    parts = {
        "slope": 40 if slope < _STEEP else 20 if slope < 0 else 0,
        "last": 30 if len(late) > 1 and late[-1] < late[0] else 0,
        "validation": 30 if not len(held) or held[-1] <= _WORSE * held[0] else 0,
    }
    points = sum(parts.values())
    advice: Advice = "restart"
    for least, better in _ADVICE.items():
        advice = better if points >= least else advice
    return GuideScore(points, MappingProxyType(parts), advice, len(late) >= POINTS)


def robust_estimate(
    series: Series, *, validation: Series | None = None, start: float, target: float | None = None
) -> RobustEstimate:
    """Of phase 1's training loss. `start` is the level at which the phase began; with a `target` below it, a tenth of
    the way there is what counts as recovering. A validation that rises for sure lowers the probability."""
    if len(series) and not np.isfinite(series.values[-1]):
        nan = float("nan")
        return RobustEstimate(0.0, 0.0, 0.0, nan, nan, nan, "the loss ended in values that are not finite")
    line = _line(series, _LATE, LEAST)
    if line is None:
        nan = float("nan")
        text = f"{len(series)} points, expected at least {LEAST}: this is the guide's estimate, nothing is measured"
        return RobustEstimate(PRIOR, 0.0, 1.0, nan, nan, nan, text)
    wanted = start - (_GAP * (start - target) if target is not None and target < start else _QUIET * line.noise)
    held, worse = _held(validation)
    probability, *others = (
        held * line.chance_below(wanted, onward, longer * line.memory)
        for onward, longer in ((_ONWARD, 1), (_ONWARD, 2), (0, 1), (0, 2), (2 * _ONWARD, 1), (2 * _ONWARD, 2))
    )
    error = _CLOSE * math.sqrt(line.memory * line.errors[1])
    slope, slope_low, slope_high = (1000 * found for found in (line.slope, line.slope - error, line.slope + error))
    moves = "falling" if slope_high < 0 else "rising" if slope_low > 0 else "neither falling nor rising for sure"
    text = (
        f"{_words(probability)}: the loss is {moves} ({slope:+.3g} per 1,000 steps, {slope_low:+.3g} to "
        f"{slope_high:+.3g}), {abs(line.level - start):.3g} {'below' if line.level < start else 'above'} where the "
        f"phase began{worse}"
    )
    if target is not None and slope_high < 0 and line.level > target:
        text += f"; at this slope the target {target:.3g} is {(line.level - target) / -line.slope:,.0f} steps away"
    low, high = min(probability, *others), max(probability, *others)
    return RobustEstimate(probability, low, high, slope, slope_low, slope_high, text)


def disagreement(score: GuideScore, estimate: RobustEstimate, go_on_above: float = 0.5) -> str:
    """Why the two lead to different decisions, in one sentence; "" where they do not. The guide's rule goes on from 40
    points, the estimate from `go_on_above`."""
    goes_on, recovers = score.points >= 40, estimate.probability >= go_on_above
    if not estimate.measured:
        return ""
    if goes_on == recovers:
        return ""
    chance = f"the estimate gives {estimate.probability:.0%}"
    if not goes_on:
        lost = [name for name, points in score.parts.items() if not points]
        return (
            f"the guide's rule gives {score.points} of 100, nothing for {' and '.join(lost)} over its last {POINTS} "
            f"points, where noise can hide a fall; {chance}, from the late part of the phase as a whole"
        )
    reasons = []
    if score.parts["slope"] and not estimate.slope_high < 0:
        reasons.append(f"a slope that noise explains ({estimate.slope_low:+.3g} to {estimate.slope_high:+.3g})")
    if score.parts["last"]:
        reasons.append("a last point below the first, of two noisy ones")
    if score.parts["validation"]:
        reasons.append("a validation that is absent or at most a tenth worse")
    return f"the guide's rule gives {score.points} of 100 for {', '.join(reasons)}; {chance}"


def _line(series: Series, part: float, least: int) -> _Line | None:
    """By iterated bisquare weights, which outliers do not move. None for too few points."""
    series = series.finite()
    order = np.argsort(series.steps, kind="stable")
    steps, values = series.steps[order].astype(np.float64), series.values[order]
    if len(steps) < least or steps[0] == steps[-1]:
        return None
    length = float(steps[-1] - steps[0])
    late = np.arange(len(steps)) >= min(len(steps) - least, round((1 - part) * len(steps)))
    since, values = steps[late] - steps[-1], values[late]
    design = np.stack([np.ones_like(since), since / length], axis=1)
    half = len(values) // 2  # medians of both halves to begin with
    slope = (np.median(values[half:]) - np.median(values[:half])) / (since[half:].mean() - since[:half].mean())
    residuals = values - slope * since
    residuals -= np.median(residuals)
    for _ in range(6):
        noise = max(spread(residuals), 1e-12 * float(np.abs(values).max()), 1e-300)
        weights = np.maximum(np.clip(1 - (residuals / (5 * noise)) ** 2, 0, None) ** 2, 1e-6)
        gram = design.T @ (weights[:, None] * design) + 1e-12 * np.eye(2)
        found = np.linalg.solve(gram, design.T @ (weights * values))
        residuals = values - design @ found
    spare = 1.0 + 4.0 / len(values)  # few points know their own noise badly
    inverse = np.linalg.inv(gram) * noise**2 * spare
    errors = (float(inverse[0, 0]), float(inverse[1, 1] / length**2), float(inverse[0, 1] / length))
    return _Line(float(found[0]), float(found[1]) / length, errors, noise, _memory(residuals, noise), length)


def _memory(residuals: np.ndarray, noise: float) -> float:
    """As in `recovery.trend.Trend`: how many correlated points tell as much as one."""
    clipped = np.clip(residuals, -3 * noise, 3 * noise)
    power, total = float((clipped**2).sum()), 1.0
    for lag in range(1, len(clipped) // 4):
        likeness = float((clipped[lag:] * clipped[:-lag]).sum()) / max(power, 1e-300)
        if likeness < 1.0 / math.sqrt(len(clipped)):  # as chance would have it
            break
        total += 2 * likeness
    return total


def _held(validation: Series | None) -> tuple[float, str]:
    """1 for a validation that does not rise, absent or too short to tell; 0 for one that does for sure. And words."""
    line = _line(validation, 1.0, _LEAST_HELD) if validation is not None else None
    if line is None:
        return 1.0, ""
    rises = 2 * _normal(line.slope / math.sqrt(max(line.memory * line.errors[1], 1e-300))) - 1
    held = 1 - max(rises, 0.0) ** 2
    return held, "; the validation loss rises" if held < 0.5 else ""


def _normal(deviations: float) -> float:
    return 0.5 * (1 + math.erf(deviations / math.sqrt(2)))


def _words(probability: float) -> str:
    bands = ((0.9, "recovers"), (0.7, "probably recovers"), (0.5, "may recover"), (0.3, "hardly recovers"))
    return next((words for least, words in bands if probability >= least), "does not recover")
