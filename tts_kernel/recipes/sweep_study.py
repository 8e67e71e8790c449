"""The Optuna study of a sweep: opened again, what was killed tried again, its table and figures."""

from __future__ import annotations

import csv
import io
import logging
import math
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts_kernel.runs import Run, write_atomically

if TYPE_CHECKING:
    from optuna import Study

LOSS = "val/loss"
STORAGE, TABLE = "optuna.db", "trials.csv"

log = logging.getLogger(__name__)


class SweepError(RuntimeError):
    """A sweep that cannot begin or go on."""


@dataclass(frozen=True)
class Swept:
    """What a sweep has found so far. Lower is better."""

    trials: list[dict[str, Any]]  # number, state, the parameters, val/loss, validations, run, why; in their order
    best: dict[str, Any] | None  # of the trials that went to their end
    table: Path  # CSV of `trials`
    figures: list[Path]

    def __str__(self) -> str:
        names = list(self.trials[0]) if self.trials else []
        cells = [names, *([_shown(trial[name]) for name in names] for trial in self.trials)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        best = self.best
        lines.append(f"best: trial {best['number']}, run {best['run']}" if best else "no trial has gone to its end")
        return "\n".join(line.rstrip() for line in lines)


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return text.splitlines()[0][:60] if text else ""


def import_optuna() -> Any:
    """The package, quiet: its lines would double ours. Raises SweepError where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise SweepError("a sweep needs Optuna: pip install 'tts_kernel[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(run: Run, facts: dict[str, dict[str, Any]]) -> Study:
    """New, or the one in the run folder. Raises SweepError naming which of `facts` differ from those it began with."""
    optuna = import_optuna()
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(run.folder / STORAGE)).render_as_string()
    study: Study = optuna.create_study(storage=url, study_name=run.name, direction="minimize", load_if_exists=True)
    before = study.user_attrs
    changed = [
        f"{name}: {before[part].get(name)!r} when it began, {values.get(name)!r} now"
        for part, values in facts.items()
        if part in before
        for name in before[part] | values
        if before[part].get(name) != values.get(name)
    ]
    if changed:
        raise SweepError(
            f"{run.folder / STORAGE}: the study began otherwise, so new trials could not be compared with its own:\n  "
            + "\n  ".join(changed)
            + "\nUse the old values, or another run_name"
        )
    for part, values in facts.items():
        study.set_user_attr(part, values)
    return study


def retry_running(study: Study) -> None:
    """For trials whose process was killed: each counts as failed, and a new trial goes on with its run."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        name = trial.user_attrs.get("run")
        if name is not None:  # else its training had not begun
            study.enqueue_trial(trial.params, user_attrs={"run": name})
            log.info("trial %d was killed; trial %d goes on with its run %s", trial.number, len(study.trials) - 1, name)
        study.tell(trial.number, state=TrialState.FAIL)


def ended(study: Study) -> int:
    """Trials that need no further work."""
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.get_trials(deepcopy=False))


def swept(study: Study, run: Run) -> Swept:
    """The trials so far, also as trials.csv."""
    trials = study.get_trials(deepcopy=False)
    searched = list(dict.fromkeys(name for trial in trials for name in trial.params))
    rows: list[dict[str, Any]] = []
    for trial in trials:
        why = trial.user_attrs.get("why", "")
        state = "killed" if trial.state.name == "FAIL" else trial.state.name.lower()
        losses = [loss for loss in trial.intermediate_values.values() if math.isfinite(loss)]
        rows.append(
            {
                "number": trial.number,
                "state": "failed" if why else state,
                **{name: trial.params.get(name) for name in searched},
                LOSS: min(losses, default=None),
                "validations": len(trial.intermediate_values),
                "run": trial.user_attrs.get("run", ""),
                "why": why,
            }
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(run.folder / TABLE, text.getvalue())
    complete = any(trial.state.name == "COMPLETE" for trial in trials)
    return Swept(rows, rows[study.best_trial.number] if complete else None, run.folder / TABLE, [])


def draw(study: Study, run: Run) -> list[Path]:
    """Optuna's usual figures, in the run's figures/: the best loss trial by trial, the validations of each, the losses
    over each parameter and over all of them, and once two trials went to their end what mattered how much."""
    from matplotlib import pyplot
    from optuna.exceptions import ExperimentalWarning
    from optuna.visualization import matplotlib as visual

    named: dict[str, Any] = {"target_name": LOSS}
    plots: dict[str, Any] = {
        "history": partial(visual.plot_optimization_history, **named),
        "validations": visual.plot_intermediate_values,
        "slices": partial(visual.plot_slice, **named),
        "parallel": partial(visual.plot_parallel_coordinate, **named),
    }
    if sum(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)) > 1:
        plots["importances"] = partial(visual.plot_param_importances, **named)
    run.figures.mkdir(exist_ok=True)
    paths = []
    for name, plot in plots.items():
        with warnings.catch_warnings(), pyplot.rc_context():  # it sets a style, and tells of ranges of one value
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)
            axes = plot(study)
            figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure  # one per parameter, or one
            paths.append(run.figures / f"{name}.png")
            figure.savefig(paths[-1], dpi=110, bbox_inches="tight")
            pyplot.close(figure)
    return paths
