"""Search batch size and learning rate by Optuna: a run per trial, trials that fall behind stopped early.

    python -m tts_kernel.recipes.sweep FILE.yaml

FILE.yaml holds `recipe`, `run_name` and `trials`, the ranges of `Space` under `space`, and what all trials share under
`settings`. `runs/<run_name>/` keeps the study (optuna.db), trials.csv and figures; trial 3 is the run `<run_name>-003`.
Started again, a sweep goes on, whatever ended it; a trial that was under way then goes on from its last checkpoint.
Prodigy finds its own rate, so with it d_coef is searched in place of the learning rate.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import math
import pkgutil
import sys
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from tts_kernel import recipes
from tts_kernel.recipes.sweep_study import (
    LOSS,
    SweepError,
    Swept,
    draw,
    ended,
    import_optuna,
    open_study,
    retry_running,
    swept,
)
from tts_kernel.runs import Run, open_run
from tts_kernel.settings import STRICT, SettingsError, read_settings
from tts_kernel.training.launch import train
from tts_kernel.training.launch.hold import held
from tts_kernel.training.launch.session import STOP
from tts_kernel.training.outcome import RunInterrupted, TrainingError

if TYPE_CHECKING:
    from optuna import Study, Trial

# Settings that count optimiser steps: with another batch size they stand for the same share of the data.
IN_STEPS = ("max_steps", "warmup_steps", "log_every", "validate_every", "save_every")

log = logging.getLogger("tts_kernel.recipes.sweep")  # also where its own name is "__main__"

Count = Annotated[int, Field(ge=1)]
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


@checked_dataclass(frozen=True, config=STRICT)
class Space:
    """What is searched, and how soon a trial is given up."""

    batch_size: list[Count] = field(default_factory=lambda: [8, 16, 32])
    learning_rate: Range = (2.0e-5, 1.0e-3)  # peak of AdamW and schedule-free; lowest and highest, tried by their logs
    d_coef: Range = (0.25, 4.0)  # Prodigy's
    startup: Count = 5  # trials drawn at random and never pruned, which the later ones are compared with
    patience: Count = 2  # validations of a trial before it may be pruned
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _ordered(self) -> Space:
        problems = [
            f"{name}: found {low} to {high}, expected the lower one first"
            for name, (low, high) in (("learning_rate", self.learning_rate), ("d_coef", self.d_coef))
            if low > high
        ]
        if not self.batch_size or len(set(self.batch_size)) < len(self.batch_size):
            problems.append(f"batch_size: found {self.batch_size}, expected at least one, each once")
        if problems:
            raise ValueError("\n  ".join(problems))
        return self


def sweep(recipe: Any, base: Any, space: Space, run: Run, trials: int) -> Swept:
    """Go on until `trials` of the study in `run` have gone to their end, been pruned or failed in training. `recipe` is
    a module with Settings, prepare and train; `base` are its settings, of which those of `Space` are searched.

    A trial's value is its lowest validation loss. Raises SweepError without Optuna, for a study of another space or
    other settings, and where no trial went to its end; RunError for a sweep in use; what `recipe` raises for settings
    or data that cannot be used; RunInterrupted when the user stops it."""
    optuna = import_optuna()
    with held(run):
        study = open_study(run, {"space": _plain(space), "settings": _plain(base, without=("run_name",))})
        retry_running(study)
        while (before := ended(study)) < trials:
            # Drawn anew for each number: a sweep that was killed does not draw what it has tried once more.
            study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=space.startup, seed=space.seed * 100_003 + len(study.trials)
            )
            study.pruner = optuna.pruners.MedianPruner(space.startup, n_warmup_steps=space.patience - 1)
            _run_trial(recipe, base, space, run, study, study.ask())
            log.info("%d of %d trials; %s", before + 1, trials, str(swept(study, run)).splitlines()[-1])
        found = swept(study, run)
        if found.best is None:
            reasons = "; ".join(f"trial {trial['number']}: {trial['why']}" for trial in found.trials if trial["why"])
            raise SweepError(f"{run.folder}: none of {len(found.trials)} trials went to its end. {reasons}")
        return replace(found, figures=draw(study, run))


# One trial


def _run_trial(recipe: Any, base: Any, space: Space, run: Run, study: Study, trial: Trial) -> None:
    from optuna.trial import TrialState

    settings = trial_settings(base, space, trial)
    name = trial.user_attrs.get("run") or f"{run.name}-{trial.number:03d}"
    trial.set_user_attr("run", name)
    own = open_run(replace(settings, run_name=name), name, prefix=run.name)
    log.info("trial %d, run %s: %s", trial.number, name, "  ".join(f"{k} {v:.4g}" for k, v in trial.params.items()))
    watch = Watch(trial)
    try:
        train(recipe, recipe.prepare(replace(settings, run_name=name), own), own, on_update=watch)
        watch(own, final=True)
    except RunInterrupted:
        if not watch.pruned:
            raise  # the user's wish; the trial goes on when the sweep does
        study.tell(trial, state=TrialState.PRUNED)
        log.info("trial %d: pruned after %d validations; its run is kept", trial.number, watch.reported)
        return
    except TrainingError as error:
        # A rate that diverges, a batch that does not fit: an answer, and a bad one.
        trial.set_user_attr("why", str(error))
        study.tell(trial, state=TrialState.PRUNED)
        log.warning("trial %d: %s", trial.number, error)
        return
    finally:
        (own.folder / STOP).unlink(missing_ok=True)
    finite = [loss for loss in watch.losses if math.isfinite(loss)]
    if not finite:
        raise SweepError(f"{own.folder}: no {LOSS} was logged after its start; lower validate_every or raise max_steps")
    study.tell(trial, min(finite))


def trial_settings(base: Any, space: Space, trial: Trial) -> Any:
    """The base with this trial's values; what counts in steps is scaled so that every trial sees the same pairs."""
    batch = trial.suggest_categorical("batch_size", space.batch_size)
    if base.optimizer == "prodigy":
        rate = {"d_coef": trial.suggest_float("d_coef", *space.d_coef, log=True), "learning_rate": 1.0}
    else:
        rate = {"learning_rate": trial.suggest_float("learning_rate", *space.learning_rate, log=True)}
    steps = {name: getattr(base, name) for name in IN_STEPS}
    scaled = {name: max(round(count * base.batch_size / batch), 1) for name, count in steps.items() if count}
    return replace(base, batch_size=batch, launch="inline", **rate, **scaled)


class Watch:
    """Tells a trial each validation of its run, numbered so that those of other batch sizes have seen as much; stops
    the run once it is pruned."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.losses: list[float] = []
        self.reported = 0
        self.pruned = False

    def __call__(self, run: Run, final: bool = False) -> None:
        steps, losses = run.series(LOSS)
        self.losses = [loss for step, loss in zip(steps, losses, strict=True) if step > 0]  # not of what it began with
        for number in range(self.reported, len(self.losses)):
            self.trial.report(self.losses[number], number)
            self.reported = number + 1
            if not self.pruned and not final and self.trial.should_prune():
                self.pruned = True
                (run.folder / STOP).touch()


def _plain(settings: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """As JSON gives it back."""
    values = {name: value for name, value in asdict(settings).items() if name not in without}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


# The command


@checked_dataclass(frozen=True, config=STRICT)
class File:
    """What a sweep's YAML file may hold."""

    recipe: str
    run_name: str = ""  # empty for sweep-<UTC time>; an existing sweep goes on
    trials: Count = 20
    space: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> tuple[Any, Any, Space, File]:
    """Recipe module, base settings, space and the file. Raises SettingsError with all problems."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: cannot be read as YAML: {error}") from error
    file = read_settings(File, values if isinstance(values, dict) else {})
    known = sorted(module.name for module in pkgutil.iter_modules(recipes.__path__) if module.ispkg)
    if file.recipe not in known:
        raise SettingsError(f"{path}: recipe: found {file.recipe!r}, expected one of {', '.join(known)}")
    recipe = importlib.import_module(f"{recipes.__name__}.{file.recipe}")
    problems, space, base = [], Space(), None
    try:
        space = read_settings(Space, file.space)
    except SettingsError as error:
        problems.append(f"space: {error}")
    try:
        base = read_settings(recipe.Settings, file.settings)
    except SettingsError as error:
        problems.append(f"settings: {error}")
    if problems:
        raise SettingsError(f"{path}: " + "\n".join(problems))
    return recipe, base, space, file


def main(arguments: list[str] | None = None) -> int:
    """0 when all trials have ended, 1 when the sweep was stopped or cannot go on."""
    parser = argparse.ArgumentParser(
        prog="python -m tts_kernel.recipes.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="YAML file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        recipe, base, space, file = read(options.file)
        import_optuna()
        run = open_run(file, file.run_name, prefix="sweep")
        run.start_logging()
        log.info("%s", sweep(recipe, base, space, run, file.trials))
    except RunInterrupted as stopped:
        log.warning("%s\nThe same command goes on with the sweep", stopped)
        return 1
    except (ValueError, RuntimeError) as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
