"""A search with a family of its own invention, whose losses are known, and one of real runs that is killed."""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import CorpusMaker
from tests.house.project import ROOT
from tests.tiny_voice import LATENTS, Bench
from tts_kernel.recipes import sweep as sweeping
from tts_kernel.recipes.sweep import File, Space, main, read, sweep, trial_settings
from tts_kernel.recipes.sweep_study import SweepError, Swept, draw, import_optuna, open_study
from tts_kernel.runs import Run, open_run, runs_folder
from tts_kernel.settings import SettingsError, read_settings
from tts_kernel.training.outcome import Outcome, RunInterrupted, TrainingError
from tts_kernel.training.signals import stop_requests

VALIDATIONS = 6
SPACE = Space(batch_size=[4, 8], learning_rate=(1e-4, 1e-1), startup=3, patience=2)


@dataclass(frozen=True)
class Settings:
    """Of a family that is nowhere else."""

    run_name: str = ""
    batch_size: int = 8
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    d_coef: float = 1.0
    max_steps: int = 0
    warmup_steps: int = 40
    log_every: int = 1
    validate_every: int = 10
    save_every: int = 50
    launch: str = "inline"
    processes: int = 1
    device: str = "cpu"


class Family:
    """A recipe whose loss is lowest at the rate 0.01, and which notes what it was asked to train."""

    __name__ = "tests.family"
    Settings = Settings

    def __init__(self) -> None:
        self.trained: list[Settings] = []
        self.behave: Any = lambda number, settings: None  # called before each validation

    def prepare(self, settings: Settings, run: Run) -> Any:
        return SimpleNamespace(asked=settings)

    def train(self, prepared: Any, run: Run) -> Outcome:
        settings = prepared.asked
        self.trained.append(settings)
        final = 1.0 + abs(math.log10(settings.learning_rate * settings.d_coef) + 2)
        with stop_requests(run.folder / "stop") as stop, (run.folder / "metrics.jsonl").open("a") as log:
            log.write(json.dumps({"step": 0, "time": 0, "val/loss": 0.5}) + "\n")  # of a base that knew better
            for number in range(VALIDATIONS):
                self.behave(number, settings)
                loss = final + 1.0 / (1 + number)
                log.write(json.dumps({"step": (number + 1) * settings.validate_every, "val/loss": loss}) + "\n")
                log.flush()
                until = time.monotonic() + 0.3
                while time.monotonic() < until and not stop.is_set():
                    time.sleep(0.02)
                if stop.is_set():
                    (run.folder / "saved").touch()
                    raise RunInterrupted(f"{run.name} stopped by {stop.why}")
        return Outcome("finished", 60, 60, {}, {}, 1.0)


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(importlib.import_module("tts_kernel.training.launch.start"), "_UPDATE_EVERY", 0.02)
    monkeypatch.setattr(sweeping, "draw", lambda study, run: [])  # takes longer than all trials here
    return Family()


def opened(name: str = "search") -> Run:
    return open_run(SPACE, name, prefix="sweep")


def states(found: Swept) -> list[str]:
    return [trial["state"] for trial in found.trials]


def test_trials_are_runs_whose_lowest_loss_after_the_start_counts(family: Family) -> None:
    found = sweep(family, Settings(), SPACE, opened(), trials=3)
    assert states(found) == ["complete"] * 3
    for number, (trial, settings) in enumerate(zip(found.trials, family.trained, strict=True)):
        assert trial["run"] == settings.run_name == f"search-{number:03d}"
        assert Run(runs_folder() / trial["run"]).settings()["learning_rate"] == trial["learning_rate"]
        assert trial["learning_rate"] == settings.learning_rate
        assert 1e-4 <= settings.learning_rate <= 1e-1
        assert trial["val/loss"] == pytest.approx(1 + abs(math.log10(settings.learning_rate) + 2) + 1 / VALIDATIONS)
        assert trial["validations"] == VALIDATIONS
    assert found.best == min(found.trials, key=lambda trial: trial["val/loss"])
    with found.table.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val/loss"]) for row in rows] == [trial["val/loss"] for trial in found.trials]
    assert str(found).splitlines()[0].split() == [
        *("number", "state", "batch_size", "learning_rate", "val/loss", "validations", "run", "why")
    ]
    assert f"best: trial {found.best['number']}" in str(found)


def test_figures_are_drawn_of_what_was_found(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "draw", draw)
    found = sweep(family, Settings(), SPACE, opened(), trials=3)
    assert {path.stem for path in found.figures} == {"history", "validations", "slices", "parallel", "importances"}
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5_000 for path in found.figures)


def test_a_trial_that_falls_behind_is_stopped_and_its_run_stays(family: Family) -> None:
    rates = iter([1e-2, 1e-2, 1e-4])
    found = sweep(family, Settings(), replace(SPACE, startup=2), chosen(opened(), rates), trials=3)
    assert states(found) == ["complete", "complete", "pruned"]
    pruned = found.trials[2]
    assert 2 <= pruned["validations"] < VALIDATIONS, "it was stopped before its time, or not at all"
    run = Run(runs_folder() / pruned["run"])
    assert (run.folder / "saved").exists()
    assert not (run.folder / "stop").exists()
    assert found.best is not None
    assert found.best["number"] < 2


def chosen(run: Run, rates: Any) -> Run:
    """The study of `run` begins with these rates."""
    study = open_study(run, {})
    for rate in rates:
        study.enqueue_trial({"batch_size": 8, "learning_rate": rate})
    return run


def test_a_sweep_goes_on_from_its_file_and_draws_nothing_twice(family: Family) -> None:
    sweep(family, Settings(), SPACE, opened(), trials=2)
    again = Family()
    found = sweep(again, Settings(), SPACE, opened(), trials=4)
    assert [trial["number"] for trial in found.trials] == [0, 1, 2, 3]
    assert len(again.trained) == 2
    assert len({trial["learning_rate"] for trial in found.trials}) == 4
    assert sweep(Family(), Settings(), SPACE, opened(), trials=4).trials == found.trials


def test_a_sweep_that_the_user_stops_goes_on_with_the_trial_it_was_at(family: Family) -> None:
    def stop(number: int, settings: Settings) -> None:
        if number == 2 and len(family.trained) == 2:
            (runs_folder() / settings.run_name / "stop").touch()

    family.behave = stop
    with pytest.raises(RunInterrupted, match="search-001 stopped by stop file"):
        sweep(family, Settings(), SPACE, opened(), trials=3)
    family.behave = lambda number, settings: None
    found = sweep(family, Settings(), SPACE, opened(), trials=3)
    assert states(found) == ["complete", "killed", "complete", "complete"]
    assert found.trials[1]["run"] == found.trials[2]["run"] == "search-001"
    assert found.trials[1]["learning_rate"] == found.trials[2]["learning_rate"]
    assert family.trained[1] == family.trained[2]


def test_training_that_fails_is_a_bad_trial_and_the_others_go_on(family: Family) -> None:
    def diverge(number: int, settings: Settings) -> None:
        if len(family.trained) == 1:
            raise TrainingError("step 3: the gradient is not finite")

    family.behave = diverge
    found = sweep(family, Settings(), SPACE, opened(), trials=3)
    assert states(found) == ["failed", "complete", "complete"]
    assert found.trials[0]["why"] == "step 3: the gradient is not finite"


def test_a_sweep_of_failures_alone_ends_with_their_reasons(family: Family) -> None:
    def diverge(number: int, settings: Settings) -> None:
        raise TrainingError(f"diverged at {settings.batch_size}")

    family.behave = diverge
    with pytest.raises(SweepError, match=r"none of 2 trials went to its end\. trial 0: diverged at \d; trial 1:"):
        sweep(family, Settings(), SPACE, opened(), trials=2)


def test_settings_that_cannot_be_used_end_the_sweep(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(settings: Settings, run: Run) -> None:
        raise ValueError("no such data")

    monkeypatch.setattr(family, "prepare", refuse)
    with pytest.raises(ValueError, match="no such data"):
        sweep(family, Settings(), SPACE, opened(), trials=3)


@pytest.mark.parametrize(
    ("base", "space", "message"),
    [
        (Settings(warmup_steps=7), SPACE, r"warmup_steps: 40 when it began, 7 now"),
        (Settings(), replace(SPACE, learning_rate=(1e-5, 1e-1)), r"learning_rate: \[0\.0001, 0\.1\] when it began"),
    ],
)
def test_a_study_of_other_settings_or_ranges_is_not_mixed_with_new_trials(
    family: Family, base: Settings, space: Space, message: str
) -> None:
    sweep(family, Settings(), SPACE, opened(), trials=1)
    with pytest.raises(SweepError, match=message):
        sweep(family, base, space, opened(), trials=2)
    assert len(family.trained) == 1


class Fixed:
    """A trial that suggests the low end of a range, and the first of several."""

    def suggest_categorical(self, name: str, choices: list[int]) -> int:
        return choices[0]

    def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
        assert log
        return low


def test_every_trial_sees_the_same_pairs_between_validations() -> None:
    settings = trial_settings(Settings(max_steps=100), replace(SPACE, batch_size=[2]), Fixed())  # type: ignore[arg-type]
    assert (settings.batch_size, settings.max_steps, settings.warmup_steps) == (2, 400, 160)
    assert (settings.validate_every, settings.save_every, settings.log_every) == (40, 200, 4)
    larger = trial_settings(Settings(), replace(SPACE, batch_size=[32]), Fixed())  # type: ignore[arg-type]
    assert (larger.max_steps, larger.validate_every, larger.log_every) == (0, 2, 1)


def test_prodigy_is_searched_by_its_coefficient_at_the_rate_1() -> None:
    settings = trial_settings(Settings(optimizer="prodigy", learning_rate=1.0), SPACE, Fixed())  # type: ignore[arg-type]
    assert (settings.d_coef, settings.learning_rate) == (0.25, 1.0)
    adamw = trial_settings(Settings(), SPACE, Fixed())  # type: ignore[arg-type]
    assert (adamw.d_coef, adamw.learning_rate) == (1.0, 1e-4)


def test_ranges_that_make_no_sense_are_refused_together() -> None:
    with pytest.raises(SettingsError, match=r"(?s)learning_rate: found 0\.1 to 0\.01.*batch_size: found \[8, 8\]"):
        read_settings(Space, {"learning_rate": [0.1, 0.01], "batch_size": [8, 8]})


def test_without_optuna_the_extra_is_named(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SweepError, match=r"tts_kernel\[sweep\]"):
        import_optuna()
    with pytest.raises(SweepError, match=r"tts_kernel\[sweep\]"):
        sweep(family, Settings(), SPACE, opened(), trials=1)


# The command, with real runs


def write_file(path: Path, **values: Any) -> Path:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_all_that_is_wrong_with_the_file_is_said_at_once(tmp_path: Path) -> None:
    path = write_file(tmp_path / "s.yaml", recipe="indextts2", space={"patience": 0}, settings={"batchsize": 3})
    with pytest.raises(SettingsError, match=r"(?s)space: .*patience: found 0.*settings: .*did you mean batch_size"):
        read(path)
    with pytest.raises(SettingsError, match=r"trails: not a parameter; did you mean trials\?"):
        read(write_file(tmp_path / "s.yaml", recipe="indextts2", trails=3))
    with pytest.raises(SettingsError, match=r"recipe: found 'indextts', expected one of .*indextts2"):
        read(write_file(tmp_path / "s.yaml", recipe="indextts"))
    assert main([str(write_file(tmp_path / "s.yaml", trials=1))]) == 1


def test_a_sweep_killed_in_the_middle_of_a_trial_goes_on_with_that_trial(
    tmp_path: Path, make_tiny_corpus: CorpusMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(sweeping, "draw", lambda study, run: [])
    bench = Bench(tmp_path, make_tiny_corpus(latents=LATENTS))
    settings = {
        "epochs": 12,
        "validate_every": 2,
        "save_every": 1,
        "background_saves": False,
        "batch_size": 8,
        "aim": False,
        "processes": 1,
    }
    given = {name: value for name, value in vars(bench.settings(**settings)).items() if not name.startswith("_")}
    path = write_file(
        tmp_path / "sweep.yaml",
        recipe="indextts2",
        run_name="search",
        trials=3,
        space={"batch_size": [4, 8], "learning_rate": [1e-5, 1e-2], "startup": 5},
        settings=given,
    )
    command = [sys.executable, "-m", "tts_kernel.recipes.sweep", str(path)]
    environment = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    metrics = tmp_path / "runs" / "search-001" / "metrics.jsonl"
    saved_at = metrics.parent / "checkpoints" / "latest_full.pth"
    with subprocess.Popen(command, cwd=ROOT, env=environment) as job:
        until = time.monotonic() + 240
        while not saved_at.exists() and time.monotonic() < until:
            assert job.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        job.send_signal(signal.SIGKILL)
    assert saved_at.exists(), "it had not come so far in four minutes"
    killed_at = max(record["step"] for record in Run(metrics.parent).records())
    saved = torch.load(saved_at, weights_only=True)["step"]
    assert 0 < saved <= killed_at
    recipe, base, space, file = read(path)
    assert file == File("indextts2", "search", 3, file.space, file.settings)
    found = sweep(recipe, base, space, open_run(file, "search", prefix="sweep"), trials=3)
    assert states(found) == ["complete", "killed", "complete", "complete"]
    assert found.trials[1]["run"] == found.trials[2]["run"] == "search-001"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["resumed_at"] for line in lines if "resumed_at" in line] == [saved], "it did not go on where it was"
    assert found.trials[2]["val/loss"] == min(
        record["val/loss"] for record in Run(metrics.parent).records() if record["step"] and "val/loss" in record
    )
