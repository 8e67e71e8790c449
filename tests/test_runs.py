from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tts_kernel import runs
from tts_kernel.runs import PROJECT_ROOT, Run, RunError, cache_folder, open_run, runs_folder, write_atomically


@dataclass(frozen=True)
class Chosen:
    epochs: int = 1
    data: str = "자료"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def run_with(folder: Path, *lines: dict[str, Any] | str) -> Run:
    folder.mkdir()
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return Run(folder)


def test_a_new_run_gets_its_folders_and_settings(root: Path) -> None:
    run = open_run(Chosen(), "first", "x")
    assert (run.folder, run.name, run.resumed) == (root / "first", "first", False)
    assert run.checkpoints.is_dir()
    assert run.figures.is_dir()
    assert run.settings() == {"epochs": 1, "data": "자료"}


def test_an_existing_run_is_resumed_and_keeps_its_settings() -> None:
    open_run(Chosen(), "first", "x")
    again = open_run(Chosen(epochs=9), "first", "x")
    assert again.resumed
    assert again.settings()["epochs"] == 1


def test_changed_settings_leave_the_old_ones_beside_them() -> None:
    run = open_run(Chosen(), "first", "x")
    run.save_settings(Chosen())
    assert not list(run.folder.glob("settings-until-*.json"))
    run.save_settings(Chosen(epochs=2))
    assert run.settings()["epochs"] == 2
    (old,) = run.folder.glob("settings-until-*.json")
    assert json.loads(old.read_text(encoding="utf-8"))["epochs"] == 1


def test_runs_without_a_name_get_folders_of_their_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(["a-1", "a-1", "a-2"])  # the second run starts within the first one's second
    waited = []
    monkeypatch.setattr(runs.time, "strftime", lambda *_: next(seconds))
    monkeypatch.setattr(runs.time, "sleep", waited.append)
    assert [open_run(Chosen(), "", "a").name for _ in range(2)] == ["a-1", "a-2"]
    assert len(waited) == 1


@pytest.mark.parametrize(
    "name", ["a/b", "/abs", "..", "../up", ".hidden", "a\\b", "a b", "a\n", "-x", "실험", "x" * 101]
)
def test_a_run_name_that_is_no_plain_folder_name_is_refused(name: str, root: Path) -> None:
    with pytest.raises(RunError) as caught:
        open_run(Chosen(), name, "x")
    assert f"run_name {name!r}: expected letters, digits" in str(caught.value)
    assert not root.exists()


def test_a_runs_folder_below_a_file_is_an_error_that_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for place in ("file", "file/runs"):
        monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / place))
        with pytest.raises(RunError) as caught:
            open_run(Chosen(), "first", "x")
        assert str(tmp_path / place / "first") in str(caught.value)
        assert "TTS_KERNEL_RUNS" in str(caught.value)


def test_a_file_in_the_place_of_the_run_is_an_error(root: Path) -> None:
    root.mkdir()
    (root / "first").write_text("not a run")
    with pytest.raises(RunError, match="first: cannot be written"):
        open_run(Chosen(), "first", "x")
    assert (root / "first").read_text() == "not a run"


def test_a_runs_folder_that_cannot_be_made_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match=r"first: cannot be written \(Permission denied\); make it writable or name"):
        open_run(Chosen(), "first", "x")


def test_an_existing_run_that_cannot_be_written_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_run(Chosen(), "first", "x")
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == root / "first" and mode == os.W_OK))
    with pytest.raises(RunError, match=r"first: cannot be written \(Permission denied\)"):
        open_run(Chosen(), "first", "x")


def test_empty_variables_count_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TTS_KERNEL_RUNS", "TTS_KERNEL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    assert runs_folder() == PROJECT_ROOT / "runs"
    assert cache_folder() == Path("~/.cache/tts_kernel").expanduser()


def test_relative_places_start_at_the_project_wherever_the_kernel_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TTS_KERNEL_RUNS", "elsewhere")
    monkeypatch.setenv("TTS_KERNEL_CACHE", "cached")
    assert (runs_folder(), cache_folder()) == (PROJECT_ROOT / "elsewhere", PROJECT_ROOT / "cached")


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]
    assert path.read_text() == "old"


def test_first_last_and_best_are_what_their_names_say(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", *({"step": step, "loss": loss} for step, loss in ((1, 4.0), (2, 2.0), (3, 3.0))))
    assert (run.first("loss"), run.last("loss"), run.best("loss")) == (4.0, 3.0, 2.0)
    assert run.series("loss") == ([1, 2, 3], [4.0, 2.0, 3.0])


def test_a_value_that_was_not_finite_is_nan_and_never_the_best(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {"step": 1, "loss": None}, {"step": 2, "loss": 5.0}, {"step": 3, "loss": None})
    assert run.best("loss") == 5.0
    assert math.isnan(run.last("loss"))


def test_a_metric_without_a_finite_value_has_no_best(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no value of 'loss' is finite"):
        run_with(tmp_path / "run", {"step": 1, "loss": None}).best("loss")


def test_a_metric_that_was_never_logged_is_named_with_the_run(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {"step": 1, "loss": 4.0})
    with pytest.raises(RunError, match="run: no 'speed' was logged"):
        run.last("speed")
    with pytest.raises(RunError, match="no 'loss' was logged"):
        Run(tmp_path).first("loss")


def test_a_torn_line_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with(tmp_path / "run", {"step": 1, "loss": 4.0}, '{"step": 2, "lo', {"step": 3, "loss": 2.0})
    monkeypatch.setattr(logging.getLogger("tts_kernel"), "propagate", True)  # start_logging of another test ends it
    with caplog.at_level(logging.WARNING):
        assert run.series("loss") == ([1, 3], [4.0, 2.0])
    assert f"{run.folder / 'metrics.jsonl'}:2: torn line" in caplog.text


def test_a_resume_takes_back_what_was_logged_after_its_checkpoint(tmp_path: Path) -> None:
    run = run_with(
        tmp_path / "run",
        {"step": 1, "loss": 4.0},
        {"step": 2, "loss": 3.0},
        {"step": 3, "loss": 9.0},
        {"resumed_at": 2, "time": 0.0},
        {"step": 3, "loss": 2.5},
        {"resumed_at": 3, "time": 0.0},
        {"step": 4, "loss": 2.0},
    )
    assert run.series("loss") == ([1, 2, 3, 4], [4.0, 3.0, 2.5, 2.0])


def test_a_result_carries_the_name_of_its_run() -> None:
    run = open_run(Chosen(), "first", "x")
    path = run.write_result(accuracy=0.5)
    assert json.loads(path.read_text(encoding="utf-8")) == run.result() == {"run": "first", "accuracy": 0.5}


def test_a_part_is_a_run_folder_inside_its_run_and_is_started_and_stopped_with_it() -> None:
    run = open_run(Chosen(), "first", "x")
    part = run.part("flow")
    assert part.folder == run.folder / "flow"
    assert part.checkpoints.is_dir()
    assert part.name == "first"
    assert part.stop_file == run.stop_file == run.folder / "stop"
