"""The run that a decision is about: where it lies, what trained it, and what it can be trained on with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from tts_kernel.recipes.named import recipe_named
from tts_kernel.recovery.diagnosis import Diagnosis, diagnose
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import check_run_name, project_path, runs_folder
from tts_kernel.settings import SettingsError, read_settings


@dataclass(frozen=True)
class Damaged:
    """A run and its diagnosis. `recipe_settings` are those that trained it, None where nobody has said them."""

    diagnosis: Diagnosis
    folder: Path  # of the run, or the one its log file lies in
    ours: bool  # a run folder of this workbench, which can be resumed
    recipe: ModuleType
    recipe_settings: Any
    no_training: str  # why nothing can be trained from here; empty where something can
    no_restart: str  # why it cannot begin anew; empty where it can

    @property
    def name(self) -> str:
        return self.folder.name


def open_damaged(asked: Settings, moved_to: Path | None = None) -> Damaged:
    """Find and diagnose the run. `moved_to` is where a restart has put it meanwhile. Raises SettingsError for recipe
    settings that cannot be used; a run that cannot be read is a diagnosis, too."""
    path = find_run(asked.damaged_run)
    where = moved_to or path
    recipe = recipe_named(asked.recipe)
    ours = (where / "settings.json").is_file() and (where / "metrics.jsonl").is_file()
    settings, problem = None, ""
    if asked.recipe_settings:
        settings = _from_yaml(recipe, project_path(asked.recipe_settings))
    elif ours:
        values = json.loads((where / "settings.json").read_text(encoding="utf-8"))
        settings = read_settings(recipe.Settings, values)
    else:
        problem = (
            f"{path} is no run folder of this workbench: set recipe_settings to a YAML file of {asked.recipe} that "
            "names its data and model"
        )
    diagnosis = diagnose(
        where,
        metric=asked.metric,
        checkpoints=project_path(asked.checkpoints) if asked.checkpoints else None,
        given=asked.given(),
    )
    folder = path.parent if path.is_file() else path
    return Damaged(diagnosis, folder, ours, recipe, settings, problem, _no_restart(asked, settings))


def find_run(name: str) -> Path:
    """A folder or file as users name it: a run of runs/, else a path."""
    if not name:
        raise SettingsError("damaged_run: found empty, expected the name of a run in runs/, its folder or its log file")
    if "/" not in name and not project_path(name).exists():
        check_run_name(name)
        return runs_folder() / name
    return project_path(name)


def restart_base(asked: Settings, settings: Any) -> str:
    """What a restart begins from: a checkpoint, or nothing for the demo's own or for a model from scratch."""
    return asked.base_checkpoint or settings.base_checkpoint


def _no_restart(asked: Settings, settings: Any) -> str:
    """Of a run whose settings nobody has said, a restart is advised as of any other, and refused when it is begun."""
    base = restart_base(asked, settings) if settings is not None else asked.base_checkpoint
    if base and not project_path(base).is_file():
        return f"base checkpoint {base}: no such file; set base_checkpoint to the one that the run began from"
    if settings is not None and not base and settings.data and not getattr(settings, "model_config", ""):
        return "no base checkpoint is named; set base_checkpoint to the file that the run began from"
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
