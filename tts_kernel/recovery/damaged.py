"""The run that a decision is about: where it lies, what trained it, and what it can be trained on with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from tts_kernel.recipes.named import recipe_named
from tts_kernel.recovery.diagnosis import Diagnosis, diagnose
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import Run, check_run_name, project_path, runs_folder
from tts_kernel.settings import SettingsError, read_settings


@dataclass(frozen=True)
class Damaged:
    """A run and its diagnosis. `recipe_settings` are those that trained it, None where nobody has said them."""

    diagnosis: Diagnosis
    folder: Path  # of the run, or the one its log file lies in
    ours: bool  # a run folder of this workbench, which can be resumed
    in_runs: bool  # and lies in runs/, where a restart takes its name
    recipe: ModuleType
    recipe_settings: Any
    no_training: str  # why nothing can be trained from here; empty where something can
    no_restart: str  # why it cannot begin anew; empty where it can

    @property
    def name(self) -> str:
        return self.folder.name


def open_damaged(asked: Settings, moved_to: Path | None = None) -> Damaged:
    """Find and diagnose the run. `moved_to` is where a restart has put it meanwhile. Raises SettingsError for what is
    not there and for recipe settings that cannot be used; a run that cannot be read is a diagnosis, too."""
    path = find_run(asked.damaged_run)
    where = moved_to or path
    checkpoints = project_path(asked.checkpoints) if asked.checkpoints else None
    problems = [
        f"{name}: found {found}, which does not exist"
        for name, found in (("damaged_run", where), ("checkpoints", checkpoints))
        if found is not None and not found.exists()
    ]
    if problems:
        raise SettingsError("\n".join(problems))
    recipe = recipe_named(asked.recipe)
    ours = (where / "settings.json").is_file() and (where / "metrics.jsonl").is_file()
    settings, problem = _recipe_settings(asked, recipe, where, ours)
    diagnosis = diagnose(where, metric=asked.metric, checkpoints=checkpoints, given=asked.given())
    if asked.metric and asked.metric not in diagnosis.history:
        known = ", ".join(name for name in diagnosis.history.metrics if "loss" in name) or "none with loss in its name"
        raise SettingsError(f"metric: found {asked.metric!r}, which {where} has not logged; it has {known}")
    folder = path.parent if path.is_file() else path
    in_runs = ours and folder.parent.resolve() == runs_folder().resolve()
    return Damaged(diagnosis, folder, ours, in_runs, recipe, settings, problem, _no_restart(asked, settings, folder))


def _recipe_settings(asked: Settings, recipe: ModuleType, where: Path, ours: bool) -> tuple[Any, str]:
    """None and the reason where a report is all that can be made. Raises SettingsError for a recipe_settings file that
    cannot be used."""
    if not hasattr(recipe, "trained_further"):
        return None, f"recipe {asked.recipe} cannot begin from the checkpoints of a damaged run yet"
    if asked.recipe_settings:
        return _from_yaml(recipe, project_path(asked.recipe_settings)), ""
    if not ours:
        return None, (
            f"{where} is no run folder of this workbench: set recipe_settings to a YAML file of {asked.recipe} that "
            "names its data and model"
        )
    try:
        return read_settings(recipe.Settings, Run(where).settings()), ""
    except ValueError as error:  # torn, or of another recipe
        return None, f"{where / 'settings.json'} cannot be used by recipe {asked.recipe}: {error}"


def find_run(name: str) -> Path:
    """A folder or file as users name it: a run of runs/, else a path."""
    if not name:
        raise SettingsError("damaged_run: found empty, expected the name of a run in runs/, its folder or its log file")
    if "/" not in name and ((runs_folder() / name).exists() or not project_path(name).exists()):
        check_run_name(name)
        return runs_folder() / name
    return project_path(name)


def restart_base(asked: Settings, settings: Any) -> str:
    """What a restart begins from: a checkpoint, or nothing for the demo's own or for a model from scratch."""
    return asked.base_checkpoint or settings.base_checkpoint


def _no_restart(asked: Settings, settings: Any, folder: Path) -> str:
    """Of a run whose settings nobody has said, a restart is advised as of any other, and refused when it is begun."""
    base = restart_base(asked, settings) if settings is not None else asked.base_checkpoint
    if base and not project_path(base).is_file():
        return f"base checkpoint {base}: no such file; set base_checkpoint to the one that the run began from"
    if base and project_path(base).resolve().is_relative_to(folder.resolve()):
        return f"base checkpoint {base} lies in the run that would be moved away; copy it to another folder"
    return ""


def _from_yaml(recipe: ModuleType, path: Path) -> Any:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"recipe_settings: {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"recipe_settings: {path}: no YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"recipe_settings: {path}: expected lines of `name: value`")
    return read_settings(recipe.Settings, {name: value for name, value in values.items() if name != "recipe"})
