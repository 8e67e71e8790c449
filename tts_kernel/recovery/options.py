"""The ways out of a damaged run: what each would do, cost and promise.

Settings, hours and chances are SYSTEMS.md section 2's for its case, a run at 2e-5 with batches of 4; for another run
they are scaled from its own rate, batch, log interval and throughput. A chance is never a fact: each names its source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tts_kernel.recovery.course import Course
from tts_kernel.recovery.diagnosis import Diagnosis
from tts_kernel.recovery.facts import Interval
from tts_kernel.recovery.survivors import Survivor

Name = Literal["continue", "lower rate", "rewind", "phased", "restart"]
Source = Literal["prior", "rule of thumb", "measured", "yours"]


@dataclass(frozen=True)
class Rates:
    """Factors on the damaged run's rate."""

    phase_1: float
    phase_2: float
    restart: float
    says: str  # of what the restart's is


BY_GUIDE = Rates(1 / 20, 1 / 10, 1 / 4, "a quarter of the rate that did the damage")  # 1e-6, 2e-6 and 5e-6 of 2e-5
LOWER = 0.7  # a rate at the best below this share of the damage's is one that was healthy
PHASE_1_POINTS = 50  # logged points, over which phase 1 is judged: 5,000 steps at one each 100
PHASE_1_WARMUP, PHASE_2_WARMUP, RESTART_WARMUP = 0.6, 1.0, 2.0  # of phase 1's steps: 3,000, 5,000 and 10,000
MOST_WARMUP = 0.1  # of a later phase
RESTART_BATCH = 2  # times the damaged run's
GRAD_CLIP = 0.5
COMES_BACK = (0.25, 0.5)  # of what a phased run has lost: 1.5-1.8 of 2.1, whose best was 0.94
BETTER_THAN_BEST = (0.9, 1.0)  # final loss of a run at a right rate, in units of the best at a rate too high


@dataclass(frozen=True)
class Chance:
    """Of reaching the end with a model worth keeping."""

    value: float
    low: float
    high: float
    source: Source
    says: str  # where it is from


@dataclass(frozen=True)
class Leg:
    """One training run of an option, with the ordinary trainer."""

    name: Literal["continue", "rewind", "phase 1", "phase 2", "restart"]
    steps: int
    pairs: int  # that it trains on
    rate: float  # factor on the damaged run's rate
    warmup: int  # steps
    batch: int = 1  # factor on the damaged run's pairs per update
    grad_clip: float = GRAD_CLIP
    hours: Interval | None = None  # None: throughput unknown


@dataclass(frozen=True)
class Option:
    """One way out. `impossible` says why it cannot be carried out, and is empty where it can."""

    name: Name
    title: str
    legs: tuple[Leg, ...]
    start: Survivor | None  # None: the base checkpoint, or where the run stands
    success: Chance
    loss: Interval | None  # of the end, if it succeeds
    loss_says: str
    pros: tuple[str, ...]
    cons: tuple[str, ...]
    impossible: str = ""

    @property
    def hours(self) -> Interval | None:
        """Of all its legs."""
        if any(leg.hours is None for leg in self.legs):
            return None
        parts = [leg.hours for leg in self.legs if leg.hours is not None]
        return Interval(*(sum(getattr(part, name) for part in parts) for name in ("value", "low", "high")))

    @property
    def pairs(self) -> int:
        return sum(leg.pairs for leg in self.legs)


def make_options(
    diagnosis: Diagnosis, *, no_restart: str = "", foreign: bool = False, phase_1_steps: int = 0
) -> tuple[Option, ...]:
    """All five, in the order of how much they give up. `no_restart` says why there is nothing to restart from;
    `foreign`, that the run is another program's, which cannot be resumed here; `phase_1_steps` replaces the number
    that follows from the run's log interval."""
    plan = _Plan(diagnosis, phase_1_steps)
    return _go_on(plan, foreign), _lower_rate(plan, foreign), _rewind(plan), _phased(plan), _restart(plan, no_restart)


def phase_1_start(survivors: Iterable[Survivor]) -> Survivor | None:
    """The least damaged checkpoint: by the loss at its step, then the earliest; one that cannot be told is taken where
    there is no other, the newest."""
    survivors = [one for one in survivors if one.finite and one.step is not None]
    usable = [one for one in survivors if one.state not in ("unreadable", "unknown")]
    if usable:
        return min(usable, key=lambda one: (np.inf if one.loss is None else one.loss, one.step or 0))
    return max((one for one in survivors if one.state == "unknown"), key=lambda one: one.step or 0, default=None)


class _Plan:
    """What all options are computed from."""

    def __init__(self, diagnosis: Diagnosis, phase_1_steps: int) -> None:
        self.diagnosis, self.course, self.facts = diagnosis, diagnosis.course, diagnosis.facts
        self.step = max(diagnosis.history.step, 0)
        self.batch = self.facts.batch_size or 1
        horizon = self.facts.horizon or self.facts.steps_per_epoch
        self.horizon = round(horizon) if horizon else max(2 * self.step, 1)
        self.guessed = () if horizon else ("its length is unknown: as much again as so far is assumed",)
        self.phase_1 = phase_1_steps or PHASE_1_POINTS * log_interval(self.course)
        self.rates = rates_of(diagnosis)
        self.healthy = [one for one in diagnosis.survivors if one.state == "healthy"]
        self.start = phase_1_start(diagnosis.survivors)
        self.best = self.course.best.value if self.course.best else None
        self.level = float(self.course.trend[-1]) if len(self.course.trend) else None

    def leg(self, name: str, steps: int, rate: float, warmup: float, batch: int = 1) -> Leg:
        steps = max(int(steps), 1)
        most = steps if name == "phase 1" else MOST_WARMUP * steps
        pairs = steps * self.batch * batch
        hours = None
        if (pace := self.facts.seconds_per_step) is not None:  # a pair takes as long as it did
            values = (each * steps * batch / 3600 for each in (pace.value, pace.low, pace.high))
            hours = Interval(*values)
        return Leg(name, steps, pairs, rate, int(min(warmup, most)), batch, hours=hours)  # type: ignore[arg-type]

    def left(self, step: int) -> int:
        """Updates from a step to the end of what was planned; at least phase 1's where that is behind."""
        return max(self.horizon - step, self.phase_1)


def rates_of(diagnosis: Diagnosis) -> Rates:
    """The guide's, or, where the log shows that the run was well at a lower rate before it was damaged, that rate: all
    of it for a restart, a half and a quarter for damaged weights."""
    rates, best, peak = diagnosis.history["train/lr"].finite(), diagnosis.course.best, diagnosis.facts.learning_rate
    if best is None or not peak or not len(rates):
        return BY_GUIDE
    well = rates.values[(rates.steps >= best.first) & (rates.steps <= best.last)]
    share = float(np.max(well, initial=0.0)) / peak
    if not 0 < share < LOWER:
        return BY_GUIDE
    return Rates(share / 4, share / 2, share, f"the rate {share * peak:.3g}, at which the run was well")


def log_interval(course: Course) -> int:
    """Steps between two logged points, at least 1."""
    gaps = np.diff(course.series.steps)
    return max(int(np.median(gaps)), 1) if len(gaps) else 1


def _go_on(plan: _Plan, foreign: bool) -> Option:
    broken = plan.course.shape in ("diverged", "rising")
    if plan.course.shape == "unknown":
        chance = Chance(0.3, 0.1, 0.5, "rule of thumb", "too little is logged to tell how the run is")
    elif broken:
        chance = Chance(0.05, 0.0, 0.1, "rule of thumb", "the loss is still away from its best at this very rate")
    else:
        chance = Chance(0.9, 0.8, 0.95, "rule of thumb", "the run shows no lasting damage")
    newest, impossible = _newest(plan), _cannot_resume(plan, foreign)
    leg = plan.leg("continue", plan.left(plan.step), 1.0, 0)
    loss = _recovered(plan, plan.level) if broken else _between(plan.best, plan.level)
    return Option(
        "continue",
        "Continue as it is",
        (replace(leg, grad_clip=plan.facts.grad_clip or GRAD_CLIP),),
        newest,
        chance,
        loss,
        _RECOVERED if broken else "between the best and where the loss stands",
        ("nothing is lost or repeated", "optimiser state and place in the data are kept"),
        (*(("what did the damage is still there",) if broken else ()), *plan.guessed),
        impossible,
    )


def _lower_rate(plan: _Plan, foreign: bool) -> Option:
    newest = _newest(plan)
    state = newest.state if newest else "unknown"
    values = {"healthy": (0.85, 0.7, 0.95), "rising": (0.35, 0.2, 0.5), "ruined": (0.1, 0.0, 0.2)}
    value, low, high = values.get(state, (0.3, 0.1, 0.5))
    loss = _recovered(plan, newest.loss if newest else plan.level)
    return Option(
        "lower rate",
        "Continue at a lower rate",
        (plan.leg("continue", plan.left(plan.step), plan.rates.phase_2, plan.phase_1),),
        newest,
        Chance(value, low, high, "rule of thumb", f"the newest checkpoint is {state}"),
        loss,
        _RECOVERED,
        ("optimiser state and place in the data are kept", "can be stopped as soon as it does not fall"),
        (
            *(("starts from the newest weights, which are the most damaged",) if state in ("rising", "ruined") else ()),
            *plan.guessed,
        ),
        _cannot_resume(plan, foreign),
    )


def _rewind(plan: _Plan) -> Option:
    start = min(plan.healthy, key=lambda one: np.inf if one.loss is None else one.loss, default=None)
    step = start.step or 0 if start else 0
    leg = plan.leg("rewind", plan.left(step), plan.rates.restart, plan.phase_1)
    onset = plan.course.onset
    if onset and start and step < onset.first:
        says, values = "its checkpoint is from before the damage began", (0.8, 0.65, 0.9)
    else:
        says, values = "its checkpoint is as good as the best", (0.7, 0.5, 0.85)
    impossible = "" if start else "no healthy checkpoint is left"
    return Option(
        "rewind",
        f"Rewind to step {step:,}" if start else "Rewind to a healthy checkpoint",
        (leg,),
        start,
        Chance(*values, "rule of thumb", says),
        _scaled(plan.best),
        _RIGHT_RATE,
        (f"keeps {step:,} steps of training", plan.rates.says),
        ("the optimiser begins anew, with a warm-up", *plan.guessed),
        impossible,
    )


def _phased(plan: _Plan) -> Option:
    start = plan.start
    step = start.step or 0 if start else 0
    state = start.state if start else "unknown"
    first = plan.leg("phase 1", plan.phase_1, plan.rates.phase_1, PHASE_1_WARMUP * plan.phase_1)
    second = plan.leg("phase 2", plan.left(step + plan.phase_1), plan.rates.phase_2, PHASE_2_WARMUP * plan.phase_1)
    chances = {
        "rising": Chance(0.45, 0.4, 0.5, "prior", "the guide's, for a checkpoint saved while the loss was rising"),
        "healthy": Chance(0.7, 0.55, 0.85, "rule of thumb", "the checkpoint is healthy; rewinding to it says more"),
        "ruined": Chance(0.15, 0.05, 0.25, "rule of thumb", "the least damaged checkpoint is ruined already"),
    }
    unknown = Chance(0.3, 0.1, 0.5, "rule of thumb", "nothing tells how far the checkpoint is from the best")
    return Option(
        "phased",
        f"Phased, from step {step:,}" if start else "Phased",
        (first, second),
        start,
        chances.get(state, unknown),
        _recovered(plan, start.loss if start else plan.level),
        _RECOVERED,
        (
            f"known after {first.steps:,} steps whether it is worth going on",
            f"keeps {step:,} steps of training",
        ),
        (
            "the best loss is out of reach" if plan.best is not None else "how good it can get is unknown",
            *plan.guessed,
        ),
        "" if start else "no checkpoint that can be read is left",
    )


def _restart(plan: _Plan, impossible: str) -> Option:
    leg = plan.leg(
        "restart", -(-plan.horizon // RESTART_BATCH), plan.rates.restart, RESTART_WARMUP * plan.phase_1, RESTART_BATCH
    )
    if plan.best is not None and plan.best < float(plan.course.low[0]):
        chance = Chance(0.85, 0.8, 0.9, "prior", "the guide's; this run did learn before it was damaged")
    else:
        chance = Chance(0.5, 0.3, 0.7, "rule of thumb", "this run never learned: data or settings may be at fault")
    return Option(
        "restart",
        "Restart from the base checkpoint",
        (leg,),
        None,
        chance,
        _scaled(plan.best),
        _RIGHT_RATE,
        ("the best final loss", "no damage is carried along", plan.rates.says),
        (
            f"{plan.step:,} steps of training are given up",
            f"batches {RESTART_BATCH} times as large: more memory",
            *plan.guessed,
        ),
        impossible,
    )


_RECOVERED = (
    f"{COMES_BACK[0]:.0%} to {COMES_BACK[1]:.0%} of what was lost against the best comes back (the guide's figures, "
    "1.5-1.8 in its case)"
)
_RIGHT_RATE = "the best that this run reached, or up to 10% below it (the guide's: 0.94, and then less than 0.9)"


def _cannot_resume(plan: _Plan, foreign: bool) -> str:
    if not len(plan.course.trend):
        return "no loss that is finite was logged"
    if foreign:
        return "another program's run cannot be resumed here, only begun anew from one of its checkpoints"
    if _newest(plan) is None:
        return "no checkpoint with an optimiser's state is left"
    return ""


def _newest(plan: _Plan) -> Survivor | None:
    """That a run can go on from."""
    usable = [one for one in plan.diagnosis.survivors if one.resumable and one.finite and one.state != "unreadable"]
    return max(usable, key=lambda one: one.step or 0, default=None)


def _recovered(plan: _Plan, level: float | None) -> Interval | None:
    """The final loss of a run that recovers from a checkpoint of this loss."""
    if level is None or plan.best is None or not np.isfinite(level):
        return None
    lost = max(level - plan.best, 0.0)
    low, high = level - COMES_BACK[1] * lost, level - COMES_BACK[0] * lost
    return Interval((low + high) / 2, low, high)


def _scaled(best: float | None) -> Interval | None:
    if best is None:
        return None
    low, high = (best * factor for factor in BETTER_THAN_BEST)
    return Interval((low + high) / 2, low, high)


def _between(best: float | None, level: float | None) -> Interval | None:
    if best is None or level is None or not np.isfinite(level):
        return None
    return Interval(best, min(best, level), max(best, level))
