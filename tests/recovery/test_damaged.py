"""Which run is meant, and what can be done from it; whole decisions are in test_phases."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.recovery.histories import diverging, write_run
from tts_kernel.recipes.indextts2 import Settings as RecipeSettings
from tts_kernel.recovery.damaged import Damaged, find_run, open_damaged, restart_base
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import PROJECT_ROOT, RunError
from tts_kernel.settings import SettingsError


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With `voice`, a run of this workbench that diverged, and its base checkpoint beside the runs."""
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / "runs"))
    torch.save({"model": {}}, tmp_path / "base.pth")
    settings = RecipeSettings(data=str(tmp_path), base_checkpoint=str(tmp_path / "base.pth"), batch_size=7)
    write_run(tmp_path / "runs" / "voice", {"train/text_loss": diverging()}, **asdict(settings))
    return tmp_path / "runs"


def opened(**asked: Any) -> Damaged:
    return open_damaged(Settings(**{"damaged_run": "voice", **asked}))


def theirs(folder: Path) -> Path:
    """Another program's log."""
    folder.mkdir()
    rows = "".join(f"{step},{3 - step / 100}\n" for step in range(100))
    (folder / "loss.csv").write_text("step,train/loss\n" + rows, encoding="utf-8")
    return folder / "loss.csv"


# Finding it


def test_a_bare_name_is_a_run_and_anything_else_a_path(runs: Path, tmp_path: Path) -> None:
    assert find_run("voice") == runs / "voice"
    assert find_run("not-yet") == runs / "not-yet"
    assert find_run(str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"
    assert find_run("runs/voice") == PROJECT_ROOT / "runs" / "voice"
    assert find_run("README.md") == PROJECT_ROOT / "README.md", "a file of the project, and no run's name"


@pytest.mark.usefixtures("runs")
def test_no_name_and_one_that_is_none_are_refused() -> None:
    with pytest.raises(SettingsError, match="damaged_run: found empty"):
        find_run("")
    with pytest.raises(RunError, match="two words"):
        find_run("two words")


# What can be done


@pytest.mark.usefixtures("runs")
def test_a_run_of_ours_has_its_own_settings_and_everything_can_be_done() -> None:
    damaged = opened()
    assert (damaged.name, damaged.ours, damaged.in_runs) == ("voice", True, True)
    assert damaged.recipe_settings.batch_size == 7
    assert (damaged.no_training, damaged.no_restart) == ("", "")
    assert damaged.diagnosis.course.shape == "diverged"


def test_a_run_elsewhere_is_ours_and_does_not_give_its_name_away(runs: Path, tmp_path: Path) -> None:
    (runs / "voice").rename(tmp_path / "voice")
    damaged = opened(damaged_run=str(tmp_path / "voice"))
    assert (damaged.ours, damaged.in_runs) == (True, False)


def test_a_run_that_was_moved_is_diagnosed_where_it_lies_and_keeps_its_name(runs: Path) -> None:
    (runs / "voice").rename(runs / "voice-backup")
    damaged = open_damaged(Settings(damaged_run="voice"), moved_to=runs / "voice-backup")
    assert damaged.folder == runs / "voice"
    assert damaged.diagnosis.history.path == runs / "voice-backup"


def test_another_programs_run_is_trained_on_from_with_the_settings_of_a_file(runs: Path, tmp_path: Path) -> None:
    log, file = theirs(tmp_path / "theirs"), tmp_path / "settings.yaml"
    alone = opened(damaged_run=str(log))
    assert alone.recipe_settings is None
    assert "set recipe_settings" in alone.no_training
    assert (alone.ours, alone.folder) == (False, log.parent)
    file.write_text(yaml.safe_dump({"recipe": "indextts2", "batch_size": 9}), encoding="utf-8")
    assert opened(damaged_run=str(log), recipe_settings=str(file)).recipe_settings.batch_size == 9


@pytest.mark.usefixtures("runs")
def test_a_recipe_that_cannot_go_on_allows_a_report_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("tts_kernel.recipes.indextts2.trained_further")
    damaged = opened()
    assert damaged.recipe_settings is None
    assert "recipe indextts2 cannot begin from" in damaged.no_training


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("a: [1", "no YAML"),
        ("- one\n- two\n", "expected lines of `name: value`"),
        ("batch_sise: 4\n", "did you mean batch_size?"),
    ],
)
def test_a_settings_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "settings.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=says.replace("?", r"\?")):
        opened(recipe_settings=str(path))


# The base of a restart


def test_a_restart_needs_its_base_outside_of_what_is_moved_away(runs: Path, tmp_path: Path) -> None:
    assert "no such file" in opened(base_checkpoint=str(tmp_path / "gone.pth")).no_restart
    inside = runs / "voice" / "base.pth"
    torch.save({"model": {}}, inside)
    assert "lies in the run that would be moved away" in opened(base_checkpoint=str(inside)).no_restart
    assert opened(base_checkpoint=str(tmp_path / "base.pth")).no_restart == ""


def test_a_run_that_began_from_no_checkpoint_can_begin_so_again(tmp_path: Path, runs: Path) -> None:
    log, file = theirs(tmp_path / "theirs"), tmp_path / "settings.yaml"
    scratch = {"stage": 1, "data": str(tmp_path), "model_config": "small.yaml"}
    for values in (scratch, {}):  # the second is the demo's
        file.write_text(yaml.safe_dump({"recipe": "indextts2", **values}), encoding="utf-8")
        damaged = opened(damaged_run=str(log), recipe_settings=str(file))
        assert damaged.no_restart == ""
        assert restart_base(Settings(), damaged.recipe_settings) == ""


@pytest.mark.usefixtures("runs")
def test_the_base_that_the_user_names_counts_before_the_runs(tmp_path: Path) -> None:
    own = opened().recipe_settings
    assert restart_base(Settings(), own) == str(tmp_path / "base.pth")
    assert restart_base(Settings(base_checkpoint="other.pth"), own) == "other.pth"
