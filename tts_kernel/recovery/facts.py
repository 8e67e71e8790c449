"""What is known of a run beside its curves: rate, batch, rows, speed. Each fact with where it is from.

Read from the run's settings.json, from a config.yaml of the guide's trainer, from what its checkpoints say of
themselves, and from the history; what the user says counts before all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tts_kernel.recovery.history import History

_CONFIGS = ("config.yaml", "config.yml", "train_config.yaml")
_SUFFIXES = (".pth", ".pt")
_PAUSE = 5.0  # times the usual interval, above which the run stood still


@dataclass(frozen=True)
class Interval:
    """A figure with the range that it is likely in."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RunFacts:
    """None where nothing says it."""

    learning_rate: float | None = None  # peak
    batch_size: int | None = None  # pairs per update
    rows: int | None = None  # pairs of the manifest
    steps_per_epoch: float | None = None
    horizon: int | None = None  # updates that the schedule is planned for
    warmup_steps: int | None = None
    grad_clip: float | None = None  # largest gradient norm
    optimizer: str | None = None
    seconds_per_step: Interval | None = None  # measured; the range holds four of five measurements
    speakers: int | None = None  # that the adversary tells apart
    family: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)  # name of a fact -> where it is from
    problems: tuple[str, ...] = ()

    def epochs(self, step: int) -> float | None:
        """How often the data have been seen after so many updates."""
        return step / self.steps_per_epoch if self.steps_per_epoch else None


def read_facts(
    history: History, given: Mapping[str, Any] | None = None, *, checkpoints: Path | None = None
) -> RunFacts:
    """`given` names facts that the user knows. `checkpoints` is the folder that holds the run's."""
    known: dict[str, Any] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    places = [("given", {name: value for name, value in (given or {}).items() if value is not None})]
    places += _places(history, checkpoints, problems)
    for place, facts in places:
        for name, value in facts.items():
            if value is not None and name not in known:
                known[name], sources[name] = value, place
    if "steps_per_epoch" not in known and known.get("rows") and known.get("batch_size"):
        known["steps_per_epoch"] = known["rows"] / known["batch_size"]
        sources["steps_per_epoch"] = "rows / batch_size"
    epochs = known.pop("epochs", None)
    if "horizon" not in known and epochs and known.get("steps_per_epoch"):
        known["horizon"] = round(epochs * known["steps_per_epoch"])
        sources["horizon"] = "epochs x steps_per_epoch"
    if (pace := _pace(history)) is not None and "seconds_per_step" not in known:
        known["seconds_per_step"], sources["seconds_per_step"] = pace
    return RunFacts(**known, sources=sources, problems=tuple(problems))


def run_folder(path: Path) -> Path:
    """Of the run that a history was read from, which may be one file of it."""
    folder = path if path.is_dir() else path.parent
    return folder.parent if folder.name in ("tensorboard", "logs") else folder


def checkpoint_folder(path: Path) -> Path:
    """Where the checkpoints of the run lie that a history was read from: in checkpoints/, else beside its log."""
    folder = run_folder(path)
    return folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder


def _places(history: History, checkpoints: Path | None, problems: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each source that there is and what it says, the most reliable first."""
    folder = run_folder(history.path)
    checkpoints = checkpoint_folder(history.path) if checkpoints is None else checkpoints
    if (path := folder / "settings.json").is_file() and (values := _mapping(path, problems)):
        yield "settings.json", _of_settings(values)
    content = _of_checkpoints(checkpoints, problems)
    if content is not None:
        name, facts = content
        yield name, facts
    for place in dict.fromkeys((checkpoints, folder)):
        for name in _CONFIGS:
            if (path := place / name).is_file() and (values := _mapping(path, problems)):
                yield name, _of_settings({**values, **_flat(values)})
    if (path := folder / "outcome.json").is_file() and (values := _mapping(path, problems)):
        yield "outcome.json", {"horizon": values.get("horizon")}
    if (path := folder / "speaker_mapping.json").is_file() and (values := _mapping(path, problems)):
        yield "speaker_mapping.json", {"speakers": len(values)}
    rates = history["train/lr"].finite().values
    if len(rates) and rates.max() > 0:
        yield "train/lr", {"learning_rate": float(rates.max())}
    steps, pairs = history["train/steps_per_second"], history["train/pairs_per_second"]
    if len(steps) and len(steps) == len(pairs) and np.median(steps.values) > 0:
        batch = np.median(pairs.values) / np.median(steps.values)
        yield "speed in the log", {"batch_size": round(float(batch)) or None}


def _mapping(path: Path, problems: list[str]) -> dict[str, Any]:
    """A JSON or YAML file's; empty where it cannot be read. No object is made from YAML."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"{path}: cannot be read ({str(error).splitlines()[0]})")
        return {}
    return values if isinstance(values, dict) else {}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a config with sections, such as `train:`, the values of all of them by their own names."""
    found: dict[str, Any] = {}
    for section in values.values():
        if isinstance(section, dict):
            found |= {name: value for name, value in section.items() if not isinstance(value, dict)}
    return found


def _of_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Ours, and the guide's, which have the same names."""
    facts = {
        "learning_rate": _number(values, "learning_rate", "lr"),
        "warmup_steps": _whole(values, "warmup_steps"),
        "grad_clip": _number(values, "grad_clip", "max_grad_norm"),
        "optimizer": values["optimizer"] if isinstance(values.get("optimizer"), str) else None,
        "epochs": _whole(values, "epochs"),
        "family": "indextts2" if {"stage", "mel_weight"} <= values.keys() else None,
    }
    if batch := _whole(values, "batch_size"):
        facts["batch_size"] = batch * (_whole(values, "grad_accumulation", "gradient_accumulation_steps") or 1)
    return facts


def _of_checkpoints(folder: Path, problems: list[str]) -> tuple[str, dict[str, Any]] | None:
    """Name and facts of the newest checkpoint that says something; files are opened, their tensors are not read."""
    from tts_kernel.models.weights import CheckpointError, read_checkpoint

    files = (
        [path for path in folder.glob("*") if path.suffix in _SUFFIXES and path.is_file()] if folder.is_dir() else []
    )
    for path in sorted(files, key=lambda path: -path.stat().st_mtime)[:5]:
        try:
            content = read_checkpoint(path)
        except CheckpointError:
            continue  # the survivors say so
        try:
            facts = _of_content(content)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            problems.append(f"{path}: what it says of its run is not understood ({type(error).__name__}: {error})")
            continue
        if any(value is not None for value in facts.values()):
            return path.name, facts
    return None


def _of_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """Of a checkpoint's keys, ours or the guide's (SYSTEMS.md, section 1)."""
    settings, identity = content.get("settings") or {}, content.get("identity") or {}
    facts = _of_settings(settings)
    manifests = identity.get("manifests") or content.get("manifests") or {}
    if isinstance(manifests.get("used", manifests.get("rows")), int):
        facts["rows"] = manifests.get("used", manifests.get("rows"))
    elif isinstance(manifests.get("train"), list):
        facts["rows"] = sum(int(part["count"]) for part in manifests["train"]) or None
    facts["horizon"] = identity.get("horizon")
    facts["speakers"] = len(identity["speakers"]) if isinstance(identity.get("speakers"), dict) else None
    if isinstance(content.get("optimizer_type"), str):
        facts["optimizer"] = facts["optimizer"] or content["optimizer_type"]
    groups = (content.get("optimizer") or {}).get("param_groups") or [{}]
    peak = groups[0].get("initial_lr", groups[0].get("lr"))
    if facts["learning_rate"] is None and isinstance(peak, (int, float)) and peak > 0:
        facts["learning_rate"] = float(peak)
    return facts


def _number(values: Mapping[str, Any], *names: str) -> float | None:
    found = next((values[name] for name in names if name in values), None)
    try:
        return None if found is None or isinstance(found, bool) else float(found)  # YAML reads 1e-4 as a string
    except (TypeError, ValueError):
        return None


def _whole(values: Mapping[str, Any], *names: str) -> int | None:
    found = _number(values, *names)
    return None if found is None or not np.isfinite(found) else round(found)


def _pace(history: History) -> tuple[Interval, str] | None:
    """Seconds per update: from the speed that was logged, else from the times of the lines, pauses left out."""
    speeds = history["train/steps_per_second"].finite().values
    speeds = speeds[speeds > 0]
    if len(speeds):
        return _range(1 / speeds), "train/steps_per_second"
    series = max(history.metrics.values(), key=lambda one: int(np.isfinite(one.times).sum()), default=None)
    if series is None or len(series) < 2:
        return None
    taken, steps = np.diff(series.times), np.diff(series.steps)
    paces = taken[(taken > 0) & (steps > 0)] / steps[(taken > 0) & (steps > 0)]
    paces = paces[paces <= _PAUSE * np.median(paces)] if len(paces) else paces
    return (_range(paces), "times of the log") if len(paces) else None


def _range(values: np.ndarray) -> Interval:
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return Interval(float(middle), float(low), float(high))
