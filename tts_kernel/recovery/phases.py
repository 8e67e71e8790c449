"""Carrying a plan out with the ordinary trainer: phase 1, its judgement, then phase 2 or the restart.

Every step is written into the journal before and after it, so that a decision that was stopped or killed goes on where
it stood. Trainings have run folders of their own; only a restart takes the damaged run's name, after that was moved.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tts_kernel.recovery import backup
from tts_kernel.recovery.choice import ChoiceError
from tts_kernel.recovery.course import read_course
from tts_kernel.recovery.diagnosis import is_alive
from tts_kernel.recovery.history import History, Series, read_history
from tts_kernel.recovery.journal import By, Journal
from tts_kernel.recovery.judgement import POINTS, GuideScore, RobustEstimate, disagreement, guide_score, robust_estimate
from tts_kernel.recovery.plan import Plan, Step
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import Run, RunError, open_run, runs_folder
from tts_kernel.training.launch import train
from tts_kernel.training.outcome import TrainingError

log = logging.getLogger(__name__)

Watch = Callable[[Run, str], AbstractContextManager[object]]  # beside the training of a step
_NAN = Series(np.array([0]), np.array([np.nan]), np.array([np.nan]))
KEPT = ("latest_full.pth", "config.yaml")  # of a checkpoint folder that is gone on from


@dataclass(frozen=True)
class Verdict:
    """Phase 1, judged."""

    score: GuideScore
    estimate: RobustEstimate
    go_on: bool
    says: str

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> Verdict:
        """As the journal has it, where a number that is not finite is None."""
        numbers: dict[str, Any] = {name: math.nan if v is None else v for name, v in values["estimate"].items()}
        return Verdict(GuideScore(**values["score"]), RobustEstimate(**numbers), values["go_on"], values["says"])


@dataclass(frozen=True)
class Ending:
    """What came of a decision."""

    runs: tuple[str, ...]  # folders that were trained, in order
    loss: float  # of the metric that was diagnosed, at the end, by its trend
    says: str


@dataclass(frozen=True)
class Work:
    """What carrying out needs beside the plan."""

    plan: Plan
    damaged: Path  # the run's folder
    recipe: ModuleType
    asked: Settings
    journal: Journal
    watch: Watch = lambda run, leg: nullcontext()


def carry_out(work: Work, by: By) -> Ending:
    """Train, judge, and train on, from wherever the journal stands. Raises RunError while a live process still writes
    the damaged run, BackupError before anything is moved, and what training raises; RunInterrupted where it was
    stopped: the same decision goes on from there."""
    plan, journal = work.plan, work.journal
    if ended := journal.content.get("came_of_it"):
        return Ending(tuple(ended["runs"]), float("nan") if ended["loss"] is None else ended["loss"], ended["says"])
    if not journal.decided:
        _check_alone(work)
        if plan.moves:
            backup.check(plan.moves, runs_folder())
    journal.choose(plan.option, by, plan.to_mapping())
    if plan.option == "restart":
        return _end(work, [_restart(work, plan.steps[0])])
    first = plan.steps[0]
    if plan.option != "phased":
        return _end(work, [_train(work, first)])
    try:
        trained = [_train(work, first)]
        verdict = _verdict(work, trained[0])
    except TrainingError as error:
        if not (runs_folder() / first.run / "bad_steps").exists():  # memory, disk, a resume: nothing of the weights
            raise
        trained, verdict = [Run(runs_folder() / first.run)], _exploded(work, str(error))
    if verdict["go_on"]:
        trained.append(_train(work, plan.steps[1]))
    elif plan.fallback:
        trained.append(_restart(work, plan.fallback[0]))
    return _end(work, trained)


def judge(history: History, plan: Plan, asked: Settings) -> Verdict:
    """Phase 1 by both rules; `judged_by` says which counts."""
    series, validation = history[plan.metric], history["val/loss"]
    finite = series.finite().values
    begun = plan.begun if plan.begun is not None else float(finite[:5].mean()) if len(finite) else float("nan")
    score = guide_score(series.values, validation.values)
    held = validation if len(validation) else None
    estimate = robust_estimate(series, validation=held, start=begun, target=plan.target)
    chance = estimate.probability if asked.judged_by == "robust" else score.points / 100
    go_on = chance >= asked.go_on_above
    few = "" if score.enough else f", by fewer points than the {POINTS} that it is made for"
    says = (
        f"phase 1: estimate {estimate.probability:.0%} ({estimate.low:.0%} to {estimate.high:.0%}; {estimate.text}), "
        f"the guide's score {score.points} ({score.advice}{few}); by the {asked.judged_by} one it "
        f"{'goes on' if go_on else 'ends here'} (from {asked.go_on_above:.0%})"
    )
    if why := disagreement(score, estimate, asked.go_on_above):
        says += f". The two disagree: {why}"
    return Verdict(score, estimate, go_on, says)


def _verdict(work: Work, run: Run) -> dict[str, Any]:
    """Once: what was judged stays. Raises ChoiceError where phase 1 has logged too little to be judged."""
    state = work.journal.state("judgement")
    if state.get("state") == "done":
        return dict(state["verdict"])
    found = judge(read_history(run.folder), work.plan, work.asked)
    if not found.estimate.measured:
        raise ChoiceError(
            f"{run.folder}: phase 1 cannot be judged by {work.plan.metric}: {found.estimate.text}. Decide anew with "
            "another metric, or with more phase_1_steps"
        )
    return _judged(work, found)


def _exploded(work: Work, error: str) -> dict[str, Any]:
    """Phase 1 that ended in values that are not finite has failed."""
    nothing = robust_estimate(_NAN, start=0.0)
    return _judged(work, Verdict(guide_score([float("nan")] * 2), nothing, False, f"phase 1 failed: {error}"))


def _judged(work: Work, verdict: Verdict) -> dict[str, Any]:
    work.journal.done("judgement", verdict=verdict)
    log.info("%s", verdict.says)
    return dict(work.journal.state("judgement")["verdict"])


def _train(work: Work, step: Step) -> Run:
    """One training, to its end; at once where the journal says that it has been."""
    journal, run = work.journal, Run(runs_folder() / step.run, resumed=True)
    if journal.state(step.name).get("state") == "done":
        return run
    if not journal.state(step.name):
        if (run.folder / "metrics.jsonl").exists():
            raise RunError(
                f"{run.folder}: is there already and was not begun by this decision; choose another run_name"
            )
        journal.begin(step.name, run=step.run, settings=asdict(step.settings))
    run = open_run(step.settings, step.run, prefix="recovery")
    if step.resume:
        _link(Path(step.start), run)
    log.info("%s", step)
    prepared = work.recipe.prepare(step.settings, run)
    with work.watch(run, step.name):
        outcome = train(work.recipe, prepared, run)
    journal.done(step.name, outcome=outcome)
    return run


def _link(start: Path, run: Run) -> None:
    """A second name for the checkpoint that is gone on from: files are replaced, never written into."""
    for source, name in ((start, KEPT[0]), (start.parent / KEPT[1], KEPT[1])):
        target = run.checkpoints / name
        if source.is_file() and not target.exists():
            try:
                os.link(source, target)
            except OSError:  # another file system, or one without links
                backup.copy(source, target)


def _restart(work: Work, step: Step) -> Run:
    """Move the old files out of the way, then train from the base."""
    plan, journal = work.plan, work.journal
    if journal.state("backup").get("state") != "done":
        if not any(move.done for move in plan.moves):
            _check_alone(work)
        backup.check(plan.moves, runs_folder())
        journal.begin("backup")
        for move in plan.moves:
            log.info("%s", move)
            move.carry_out()
        journal.done("backup")
    return _train(work, step)


def _check_alone(work: Work) -> None:
    if is_alive(work.damaged):
        raise RunError(f"run {work.damaged.name} is still being trained by a live process; stop it first")


def moved_to(journal: Journal) -> Path | None:
    """Where a restart has put the damaged run of this workbench; None where it is where it was."""
    for _, target in journal.content.get("plan", {}).get("moves", ()):
        if (Path(target) / "settings.json").is_file():
            return Path(target)
    return None


def _end(work: Work, trained: list[Run]) -> Ending:
    plan = work.plan
    course = read_course(read_history(trained[-1].folder)[plan.metric])
    loss = float(course.trend[-1]) if len(course.trend) else float("nan")
    says = f"{plan.title}: {plan.metric} ends at {loss:.4g} in {trained[-1].name}"
    if plan.best is not None and plan.stood is not None:
        says += f"; the damaged run's best was {plan.best:.4g}, it ended at {plan.stood:.4g}"
    verdict: Mapping[str, Any] = work.journal.state("judgement").get("verdict", {})
    if verdict and not verdict["go_on"] and not plan.fallback:
        says += ". Phase 1 failed, and there is nothing to restart from: name a base_checkpoint"
    ending = Ending(tuple(run.name for run in trained), loss, says)
    work.journal.know(came_of_it=ending)
    work.journal.note("ended")
    return ending
