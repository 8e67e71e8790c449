"""Which way out, by what the user needs: expected hours, break-even probability, a recommendation and its reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tts_kernel.recovery.options import Chance, Name, Option

LEAST_CHANCE = 0.05  # that is counted with


class ChoiceError(ValueError):
    """Wishes that cannot be weighed, or a way that cannot be gone."""


@dataclass(frozen=True)
class Wishes:
    """What counts, and how much. Weights are relative to each other."""

    time: float = 1.0  # that a model is there soon
    quality: float = 1.0  # that its loss reaches the target
    risk: float = 1.0  # that there is one at all
    target_loss: float = 0.0  # 0: the best that the run reached
    hours: float = 0.0  # at hand; 0: as many as it takes
    success_probability: float = 0.0  # of the phased way, by the user; 0: as estimated

    def __post_init__(self) -> None:
        problems = [
            f"{name}_weight: found {value}, expected a number from 0 up"
            for name, value in (("time", self.time), ("quality", self.quality), ("risk", self.risk))
            if not (math.isfinite(value) and value >= 0)
        ]
        if not problems and self.time + self.quality + self.risk == 0:
            problems.append("time_weight, quality_weight and risk_weight are all 0: nothing counts; raise one of them")
        if not 0 <= self.success_probability <= 1:
            problems.append(f"success_probability: found {self.success_probability}, expected 0 to 1")
        for name, value in (("target_loss", self.target_loss), ("hours_at_hand", self.hours)):
            if not (math.isfinite(value) and value >= 0):
                problems.append(f"{name}: found {value}, expected a number from 0 up")
        if problems:
            raise ChoiceError("\n".join(problems))


@dataclass(frozen=True)
class Weighed:
    """One option in the light of the wishes. Scores are 0 to 1."""

    option: Option
    chance: float  # of the option itself
    pairs: float  # that are trained on, expected, the restart after a failure included
    hours: float | None  # the same in hours
    hours_success: float | None
    hours_failure: float | None  # when a restart has to follow; None where none does or the throughput is unknown
    time: float
    quality: float
    risk: float  # chance that there is a good model in the end, by a restart where this way fails
    score: float
    fits: bool  # into the hours at hand


@dataclass(frozen=True)
class Choice:
    """All options, the best first; those that cannot be carried out last, with a score of 0."""

    weighed: tuple[Weighed, ...]
    wishes: Wishes
    target: float | None  # loss that counts as good; None where nothing is known
    break_even: float | None  # probability of the phased way above which it is the shorter one
    says: str  # the recommendation and its reason

    @property
    def recommended(self) -> Weighed:
        """Raises ChoiceError where nothing can be carried out."""
        first = self.weighed[0]
        if first.option.impossible:
            reasons = "; ".join(f"{one.option.name}: {one.option.impossible}" for one in self.weighed)
            raise ChoiceError(f"no way out can be carried out: {reasons}")
        return first

    def named(self, name: str) -> Weighed:
        """The one that `decision` names; "continue" is the likelier of its two kinds. Raises ChoiceError if it cannot
        be carried out."""
        names: tuple[Name, ...] = ("continue", "lower rate") if name == "continue" else (name,)  # type: ignore[assignment]
        found = [one for one in self.weighed if one.option.name in names]
        usable = [one for one in found if not one.option.impossible]
        if usable:
            return max(usable, key=lambda one: one.chance)
        possible = [one.option.name for one in self.weighed if not one.option.impossible]
        why = "; ".join(dict.fromkeys(one.option.impossible for one in found))
        raise ChoiceError(
            f"decision {name!r} cannot be carried out: {why}. Possible: {', '.join(possible) or 'nothing'}"
        )


def choose(options: Sequence[Option], wishes: Wishes, level: float | None, best: float | None) -> Choice:
    """`level` is the loss as it stands, `best` the best of the run; None where unknown."""
    restart = next(one for one in options if one.name == "restart")
    target = wishes.target_loss or best
    rows = [_outcome(one, restart, wishes, target, level) for one in options]
    possible = [row for row, one in zip(rows, options, strict=True) if not one.impossible]
    least = min((row.pairs for row in possible), default=1.0)
    total = wishes.time + wishes.quality + wishes.risk
    weighed = []
    for row in rows:
        time = least / row.pairs if row.pairs and row.fits else 0.0
        score = (wishes.time * time + wishes.quality * row.quality + wishes.risk * row.risk) / total
        score = 0.0 if row.option.impossible else score
        weighed.append(replace(row, time=min(time, 1.0), score=score))
    weighed.sort(key=lambda one: (one.option.impossible != "", -one.score))
    phased = next(one for one in options if one.name == "phased")
    choice = Choice(tuple(weighed), wishes, target, break_even(phased, restart), "")
    return replace(choice, says=_explain(choice))


def break_even(phased: Option, restart: Option) -> float | None:
    """The success probability p at which t1 + p t2 + (1 - p) t_restart = t_restart; None where phase 2 is not shorter
    than a restart, so that there is none."""
    first, second = phased.legs
    saved = restart.pairs - second.pairs
    return first.pairs / saved if saved > first.pairs else None


def expected_pairs(option: Option, restart: Option, chance: float) -> float:
    """Pairs trained on until there is a good model: t1 + p t2 + (1 - p) t_restart of the phased way; any other way
    shows its failure only at its end. Where nothing can follow a failure, as many tries as it takes."""
    if option.name == "restart":
        return float(option.pairs)
    if restart.impossible:
        return option.pairs / max(chance, LEAST_CHANCE)
    first = option.legs[0].pairs if option.name == "phased" else option.pairs
    return first + chance * (option.pairs - first) + (1 - chance) * restart.pairs


def chance_of(option: Option, wishes: Wishes) -> Chance:
    """The option's, or what the user says of the phased way."""
    if option.name == "phased" and wishes.success_probability:
        value = wishes.success_probability
        return Chance(value, value, value, "yours", "given as success_probability")
    return option.success


def _outcome(option: Option, restart: Option, wishes: Wishes, target: float | None, level: float | None) -> Weighed:
    chance = chance_of(option, wishes).value
    then = option.name != "restart" and not restart.impossible  # what follows a failure
    pairs = expected_pairs(option, restart, chance)
    delivers = chance + (1 - chance) * restart.success.value if then else chance
    good, bad = _worth(option.loss.value if option.loss else None, target), _worth(level, target)
    again = restart.success.value * _worth(restart.loss.value if restart.loss else None, target)
    again += (1 - restart.success.value) * bad
    quality = chance * good + (1 - chance) * (again if then else bad)
    per_pair = option.hours.value / option.pairs if option.hours and option.pairs else None
    hours = None if per_pair is None else per_pair * pairs
    failure = None
    if then and per_pair is not None:
        failure = per_pair * expected_pairs(option, restart, 0.0)
    fits = not (wishes.hours and hours is not None and hours > wishes.hours)
    success = option.hours.value if option.hours else None
    return Weighed(option, chance, pairs, hours, success, failure, 0.0, quality, delivers, 0.0, fits)


def _worth(loss: float | None, target: float | None) -> float:
    """1 at the target or below, e-fold less for each time that the target lies on top of it; a half where unknown."""
    if loss is None or target is None or target <= 0 or not math.isfinite(loss):
        return 0.5
    return math.exp(-max(loss / target - 1.0, 0.0))


def _explain(choice: Choice) -> str:
    usable = [one for one in choice.weighed if not one.option.impossible]
    if not usable:
        return "Nothing can be carried out: " + "; ".join(
            f"{one.option.name}: {one.option.impossible}" for one in choice.weighed
        )
    first = usable[0]
    text = f"{first.option.title}: {first.score:.2f} of 1 by your weights"
    if len(usable) > 1:
        second = usable[1]
        near = first.score - second.score < 0.03
        text += f", {'nearly the same as' if near else 'before'} {second.option.title.lower()} ({second.score:.2f})"
        parts = {"time": choice.wishes.time, "quality": choice.wishes.quality, "risk": choice.wishes.risk}
        gains = {name: weight * (getattr(first, name) - getattr(second, name)) for name, weight in parts.items()}
        reason = max(gains, key=lambda name: gains[name])
        words = {"time": "it is the shorter one", "quality": "its loss is the lower one", "risk": "it is the surer one"}
        text += f", because {words[reason]}"
    return text + "."
