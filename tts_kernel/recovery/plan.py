"""What carrying an option out will do: every training with its settings, every file that moves. Nothing is touched.

A plan is frozen in the journal when it is chosen: a decision that goes on later reads it there, for by then the files
that it was made from may have moved, and the log may have grown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from tts_kernel.recovery import backup
from tts_kernel.recovery.backup import Move
from tts_kernel.recovery.choice import ChoiceError
from tts_kernel.recovery.damaged import Damaged, restart_base
from tts_kernel.recovery.options import Leg, Option
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import runs_folder

LATEST = "latest.pth"  # of a phase, which the next begins from
JUDGED = {"train": 5, "val": 16}  # validations of phase 1, at least: more where it is judged by them


@dataclass(frozen=True)
class Step:
    """One training: its run folder and the recipe's settings."""

    name: str  # of the leg
    run: str
    settings: Any
    start: str  # the file it begins from; empty for the demo's base or a model from scratch
    hours: float | None
    resume: bool = False  # `start` is resumed, optimiser and place in the data included

    def __str__(self) -> str:
        hours = "time unknown" if self.hours is None else f"{self.hours:.3g} h"
        how = "going on from" if self.resume else "from"
        return (
            f"train {self.name}: to step {self.settings.max_steps:,} in {runs_folder() / self.run}, {how} "
            f"{self.start or 'the base of the demo, or scratch'}, at rate {self.settings.learning_rate:.3g} ({hours})"
        )


@dataclass(frozen=True)
class Plan:
    """One option, ready to be carried out."""

    option: str
    title: str
    metric: str  # by which it is judged
    begun: float | None  # that loss where phase 1 begins
    target: float | None  # that is expected of it at the end
    best: float | None  # of the damaged run
    stood: float | None  # where that run ended
    steps: tuple[Step, ...]  # in order
    fallback: tuple[Step, ...]  # the restart, where phase 1 fails
    moves: tuple[Move, ...]  # before a restart

    def lines(self) -> list[str]:
        """Every training and every file operation, in order: the dry run."""
        first, *more = self.steps
        if self.option == "restart":
            return [*map(str, self.moves), str(first)]
        link = [f"link {first.start} -> {runs_folder() / first.run} (the old name stays)"] if first.resume else []
        lines = [*link, str(first)]
        if self.option == "phased":
            lines += ["judge it", f"  if it recovers: {more[0]}"]
            lines += [f"  if not: {each}" for each in (*self.moves, *self.fallback)] or ["  if not: nothing follows"]
        return lines

    def to_mapping(self) -> dict[str, Any]:
        """For the journal."""
        return {**asdict(self), "moves": [[str(move.source), str(move.target)] for move in self.moves]}

    @staticmethod
    def from_mapping(values: Mapping[str, Any], recipe: ModuleType) -> Plan:
        def steps(name: str) -> tuple[Step, ...]:
            return tuple(Step(**{**each, "settings": recipe.Settings(**each["settings"])}) for each in values[name])

        moves = tuple(Move(Path(source), Path(target)) for source, target in values["moves"])
        return Plan(**{**values, "steps": steps("steps"), "fallback": steps("fallback"), "moves": moves})


def make_plan(option: Option, restart: Option, damaged: Damaged, asked: Settings, name: str) -> Plan:
    """`name` is the decision's. Raises ChoiceError where the option cannot be carried out."""
    if damaged.no_training or option.impossible:
        raise ChoiceError(f"{option.name} cannot be carried out: {damaged.no_training or option.impossible}")
    diagnosis = damaged.diagnosis
    moves: tuple[Move, ...] = ()
    restarts: tuple[Step, ...] = ()
    if option.name in ("restart", "phased") and not restart.impossible:
        where = damaged.name if damaged.in_runs else f"{name}-restart"
        base = restart_base(asked, damaged.recipe_settings)
        restarts = (_step(restart.legs[0], where, base, damaged, asked),)
        files = [one.path for one in diagnosis.survivors if one.step is not None]
        moves = backup.moves(damaged.folder, files, ours=damaged.in_runs)
    steps: list[Step] = []
    for leg in option.legs if option.name != "restart" else ():
        start = str(option.start.path) if option.start else ""
        if leg.name == "phase 2":
            start = str(runs_folder() / steps[0].run / "checkpoints" / LATEST)
        steps.append(_step(leg, f"{name}-{leg.name.replace(' ', '')}", start, damaged, asked))
    level = diagnosis.course.trend
    return Plan(
        option=option.name,
        title=option.title,
        metric=diagnosis.metric,
        begun=option.start.loss if option.start else None,
        target=option.loss.high if option.loss else None,
        best=diagnosis.course.best.value if diagnosis.course.best else None,
        stood=float(level[-1]) if len(level) else None,
        steps=tuple(steps) or restarts,
        fallback=restarts if steps else (),
        moves=moves,
    )


def _step(leg: Leg, run: str, start: str, damaged: Damaged, asked: Settings) -> Step:
    """The recipe's settings for one leg: those of the damaged run, with the leg's rate, steps, batch and start."""
    before, diagnosis = damaged.recipe_settings, damaged.diagnosis
    steps = leg.steps
    if leg.name != "phase 1":
        steps = min(steps, asked.demo_max_steps or steps)
    changes: dict[str, Any] = {
        "run_name": run,
        "warmup_steps": leg.warmup,
        "grad_clip": leg.grad_clip,
        "max_steps": steps,
        "batch_size": before.batch_size * leg.batch,
        "launch": asked.launch,
        "device": asked.device,
    }
    if before.optimizer == "prodigy":  # which finds its own rate, and scales it by this
        changes["d_coef"] = before.d_coef * leg.rate
    else:
        changes["learning_rate"] = (diagnosis.facts.learning_rate or before.learning_rate) * leg.rate
    if leg.name == "continue":
        changes |= {"max_steps": steps + max(diagnosis.history.step, 0), "schedule": "constant"}
    else:
        changes["base_checkpoint"] = start
    if leg.name in ("phase 1", "phase 2", "rewind"):
        changes["seed"] = before.seed + 1  # another order than what these weights have just seen
        changes |= damaged.recipe.trained_further(before, ours=damaged.ours or leg.name == "phase 2")
    if leg.name == "phase 1":
        often = max(leg.steps // JUDGED["val" if diagnosis.metric.startswith("val/") else "train"], 1)
        often = min(before.validate_every, often)
        changes |= {"schedule": "constant", "validate_every": often, "save_every": min(before.save_every, often)}
    hours = leg.hours.value if leg.hours else None
    return Step(leg.name, run, replace(before, **changes), start, hours, resume=leg.name == "continue")
