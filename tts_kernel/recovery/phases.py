"""Carrying a choice out with the ordinary trainer: phase 1, its judgement, then phase 2 or the restart.

Every step is written into the journal before and after it, so that a decision that was stopped or killed goes on where
it stood. Trainings have run folders of their own; only a restart takes the damaged run's name, after that was moved.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tts_kernel.recovery import backup
from tts_kernel.recovery.backup import Move
from tts_kernel.recovery.choice import ChoiceError
from tts_kernel.recovery.course import read_course
from tts_kernel.recovery.damaged import Damaged, restart_base
from tts_kernel.recovery.history import History, read_history
from tts_kernel.recovery.journal import By, Journal
from tts_kernel.recovery.judgement import GuideScore, RobustEstimate, disagreement, guide_score, robust_estimate
from tts_kernel.recovery.options import Leg, Option
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import Run, RunError, open_run, runs_folder
from tts_kernel.training.launch import train

log = logging.getLogger(__name__)

Watch = Callable[[Run, str], AbstractContextManager[object]]  # beside the training of a leg
LATEST = "latest.pth"  # of a phase, which the next begins from


@dataclass(frozen=True)
class Verdict:
    """Phase 1, judged."""

    score: GuideScore
    estimate: RobustEstimate
    go_on: bool
    says: str


@dataclass(frozen=True)
class Ending:
    """What came of a decision."""

    runs: tuple[str, ...]  # folders that were trained, in order
    loss: float  # of the metric that was diagnosed, at the end, by its trend
    verdict: Verdict | None
    says: str


@dataclass(frozen=True)
class Step:
    """One training of a plan: the leg, its run folder, the recipe's settings."""

    leg: Leg
    run: str
    settings: Any
    start: str  # the file it begins from; empty for the demo's base or a model from scratch

    def __str__(self) -> str:
        hours = "time unknown" if self.leg.hours is None else f"{self.leg.hours.value:.3g} h"
        return (
            f"train {self.leg.name}: {self.settings.max_steps:,} steps into {runs_folder() / self.run} from "
            f"{self.start or 'the base of the demo, or scratch'} at rate {self.settings.learning_rate:.3g} ({hours})"
        )


@dataclass(frozen=True)
class Plan:
    """What carrying an option out will do. Nothing has been touched."""

    option: Option
    steps: tuple[Step, ...]  # in order
    fallback: tuple[Step, ...]  # the restart, where phase 1 fails
    moves: tuple[Move, ...]  # before a restart

    def lines(self) -> list[str]:
        """Every training and every file operation, in order: the dry run."""
        if self.option.name == "restart":
            return [*map(str, self.moves), *map(str, self.steps)]
        lines = [str(self.steps[0])]
        if self.option.name == "phased":
            lines += ["judge it", f"  if it recovers: {self.steps[1]}"]
            lines += [f"  if not: {each}" for each in (*self.moves, *self.fallback)]
        return lines


def make_plan(option: Option, restart: Option, damaged: Damaged, asked: Settings, name: str, journal: Journal) -> Plan:
    """`name` is the decision's. Raises ChoiceError where the option cannot be carried out."""
    if damaged.no_training or option.impossible:
        raise ChoiceError(f"{option.name} cannot be carried out: {damaged.no_training or option.impossible}")
    planned: tuple[Move, ...] = ()
    restarts: tuple[Step, ...] = ()
    if option.name in ("restart", "phased") and not restart.impossible:
        where = damaged.name if damaged.ours else f"{name}-restart"
        base = restart_base(asked, damaged.recipe_settings)
        restarts = (_step(restart.legs[0], where, base, damaged, asked),)
        known = journal.state("backup").get("moves")
        if known is not None:
            planned = tuple(Move(Path(source), Path(target)) for source, target in known)
        else:
            files = [one.path for one in damaged.diagnosis.survivors if one.kind != "base"]
            planned = backup.moves(damaged.folder, files, ours=damaged.ours)
    if option.name == "restart":
        return Plan(option, restarts, (), planned)
    steps: list[Step] = []
    for leg in option.legs:
        own = damaged.name if leg.name == "continue" else f"{name}-{leg.name.replace(' ', '')}"
        start = str(option.start.path) if option.start else ""
        if leg.name == "phase 2":
            start = str(runs_folder() / steps[0].run / "checkpoints" / LATEST)
        steps.append(_step(leg, own, start, damaged, asked))
    return Plan(option, tuple(steps), restarts, planned)


def carry_out(
    plan: Plan, damaged: Damaged, asked: Settings, journal: Journal, by: By, watch: Watch | None = None
) -> Ending:
    """Train, judge, and train on, from wherever the journal stands. Raises RunError while a live process still writes
    the damaged run, BackupError before anything is moved, and what training raises; RunInterrupted where it was
    stopped: the same decision goes on from there."""
    if damaged.diagnosis.alive and plan.option.name in ("restart", "continue", "lower rate"):
        raise RunError(f"run {damaged.name} is still being trained by a live process; stop it first")
    watch = watch or (lambda run, leg: nullcontext())
    if plan.option.name == "restart" or plan.fallback:
        backup.check(plan.moves, runs_folder())
    journal.choose(plan.option.name, by)
    if plan.option.name == "restart":
        return _end(plan, [_restart(plan.steps[0], plan, damaged, journal, watch)], None, damaged, journal)
    trained = [_train(plan.steps[0], damaged, journal, watch)]
    verdict = None
    if plan.option.name == "phased":
        verdict = judge_phase_1(read_history(trained[0].folder), damaged, asked, plan.option)
        journal.done("judgement", verdict=verdict)
        log.info("%s", verdict.says)
        if verdict.go_on:
            trained.append(_train(plan.steps[1], damaged, journal, watch))
        elif plan.fallback:
            trained.append(_restart(plan.fallback[0], plan, damaged, journal, watch))
        else:
            journal.note("phase 1 failed and there is nothing to restart from")
    return _end(plan, trained, verdict, damaged, journal)


def judge_phase_1(history: History, damaged: Damaged, asked: Settings, option: Option) -> Verdict:
    """By both rules; `judged_by` says which counts."""
    metric, target = damaged.diagnosis.metric, option.loss.high if option.loss else None
    series, validation = history[metric], history["val/loss"]
    begun = option.start.loss if option.start else None
    if begun is None:
        begun = float(series.finite().values[:5].mean())
    score = guide_score(series.values, validation.values)
    held = validation if len(validation) else None
    estimate = robust_estimate(series, validation=held, start=begun, target=target)
    chance = estimate.probability if asked.judged_by == "robust" else score.points / 100
    go_on = chance >= asked.go_on_above
    says = (
        f"phase 1: estimate {estimate.probability:.0%} ({estimate.low:.0%} to {estimate.high:.0%}), the guide's score "
        f"{score.points} ({score.advice}); by the {asked.judged_by} one it {'goes on' if go_on else 'ends here'} "
        f"(from {asked.go_on_above:.0%})"
    )
    if why := disagreement(score, estimate):
        says += f". The two disagree: {why}"
    return Verdict(score, estimate, go_on, says)


def _step(leg: Leg, run: str, start: str, damaged: Damaged, asked: Settings) -> Step:
    """The recipe's settings for one leg: those of the damaged run, with the leg's rate, steps, batch and start."""
    before, facts = damaged.recipe_settings, damaged.diagnosis.facts
    changes: dict[str, Any] = {
        "run_name": run,
        "warmup_steps": leg.warmup,
        "grad_clip": leg.grad_clip,
        "max_steps": leg.steps if leg.name == "phase 1" else min(leg.steps, asked.max_steps or leg.steps),
        "batch_size": before.batch_size * leg.batch,
        "launch": asked.launch,
        "device": asked.device,
    }
    if before.optimizer == "prodigy":  # which finds its own rate, and scales it by this
        changes["d_coef"] = before.d_coef * leg.rate
    else:
        changes["learning_rate"] = (facts.learning_rate or before.learning_rate) * leg.rate
    if leg.name == "continue":
        changes["max_steps"] += max(damaged.diagnosis.history.step, 0)
    elif start:
        changes["base_checkpoint"] = start
    if leg.name in ("phase 1", "phase 2", "rewind"):
        changes["seed"] = before.seed + 1  # another order than what these weights have just seen
        changes |= damaged.recipe.trained_further(before, ours=damaged.ours or leg.name == "phase 2")
    if leg.name in ("phase 1", "continue"):
        changes |= {"schedule": "constant"}
    if leg.name == "phase 1":
        often = max(leg.steps // 5, 1)
        changes |= {"validate_every": min(before.validate_every, often), "save_every": min(before.save_every, often)}
    return Step(leg, run, replace(before, **changes), start)


def _train(step: Step, damaged: Damaged, journal: Journal, watch: Watch) -> Run:
    """One leg, to its end; at once where the journal says that it has been."""
    run = Run(runs_folder() / step.run, resumed=True)
    if journal.state(step.leg.name).get("state") == "done":
        return run
    journal.begin(step.leg.name, run=step.run, settings=asdict(step.settings))
    run = open_run(step.settings, step.run, prefix=damaged.recipe.__name__.rpartition(".")[2])
    log.info("%s", step)
    prepared = damaged.recipe.prepare(step.settings, run)
    with watch(run, step.leg.name):
        outcome = train(damaged.recipe, prepared, run)
    journal.done(step.leg.name, outcome=outcome)
    return run


def _restart(step: Step, plan: Plan, damaged: Damaged, journal: Journal, watch: Watch) -> Run:
    """Move the old files out of the way, then train from the base."""
    if journal.state("backup").get("state") != "done":
        backup.check(plan.moves, runs_folder())
        journal.begin("backup", moves=[[move.source, move.target] for move in plan.moves])
        for move in plan.moves:
            log.info("%s", move)
            move.carry_out()
        journal.done("backup")
    return _train(step, damaged, journal, watch)


def moved_to(journal: Journal) -> Path | None:
    """Where a restart has put the damaged run of this workbench; None where it is where it was."""
    for _, target in journal.state("backup").get("moves", ()):
        if Path(target).is_dir() and (Path(target) / "settings.json").is_file():
            return Path(target)
    return None


def _end(plan: Plan, trained: Sequence[Run], verdict: Verdict | None, damaged: Damaged, journal: Journal) -> Ending:
    metric = damaged.diagnosis.metric
    course = read_course(read_history(trained[-1].folder)[metric])
    loss = float(course.trend[-1]) if len(course.trend) else float("nan")
    best = damaged.diagnosis.course.best
    says = f"{plan.option.title}: {metric} ends at {loss:.4g}"
    if best:
        says += f"; the damaged run's best was {best.value:.4g}, it stood at {damaged.diagnosis.course.trend[-1]:.4g}"
    if verdict is not None and not verdict.go_on and not plan.fallback:
        says += ". Phase 1 failed, and there is nothing to restart from: name a base_checkpoint"
    ending = Ending(tuple(run.name for run in trained), loss, verdict, says)
    journal.know(came_of_it=ending)
    journal.note("ended")
    return ending
