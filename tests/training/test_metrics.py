from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tts_kernel.runs import Run
from tts_kernel.training import aim_process
from tts_kernel.training.metrics import MetricLog


def lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()


def board(folder: Path, tag: str) -> list[tuple[int, float]]:
    read = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in read.Scalars(tag)]


def test_tensorboard_shows_the_same_values_under_the_same_names(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        metrics.write(1, {"train/lr": 0.5, "train/text_loss": 2.0})
        metrics.write(2, {"train/lr": 0.25, "val/loss": 3.0})
    logged = [json.loads(line) for line in lines(tmp_path)]
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(read.Tags()["scalars"]) == {"train/lr", "train/text_loss", "val/loss"}
    for tag in read.Tags()["scalars"]:
        assert board(tmp_path, tag) == [(record["step"], record[tag]) for record in logged if tag in record]


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        metrics.write(1, {"a": float("nan"), "b": float("inf"), "c": 1.0})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    record = json.loads(lines(tmp_path)[0], parse_constant=refuse)
    assert (record["a"], record["b"], record["c"]) == (None, None, 1.0)


def test_any_scalar_is_a_value(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        metrics.write(1, {"a": torch.tensor(0.5), "b": np.float32(0.25), "c": 3, "d": True, "e": np.array(2)})
    record = json.loads(lines(tmp_path)[0])
    assert [record[name] for name in "abcde"] == [0.5, 0.25, 3.0, 1.0, 2.0]


@pytest.mark.parametrize("torn", [b'{"step": 2, "va', b"\0\0\0"])
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, torn: bytes) -> None:
    with MetricLog(tmp_path) as metrics:
        metrics.write(1, {"val/loss": 4.0})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + torn)
    with MetricLog(tmp_path, resumed_at=1) as metrics:
        metrics.write(2, {"val/loss": 3.0})
    assert Run(tmp_path).series("val/loss") == ([1, 2], [4.0, 3.0])
    assert len(lines(tmp_path)) == 4  # two good ones, the torn one, the note of the resume


def test_a_resume_takes_back_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        for step in (1, 2, 3):
            metrics.write(step, {"val/loss": float(step)})
    with MetricLog(tmp_path, resumed_at=2) as metrics:
        metrics.write(3, {"val/loss": 30.0})
    assert Run(tmp_path).series("val/loss") == ([1, 2, 3], [1.0, 2.0, 30.0])
    assert board(tmp_path, "val/loss") == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_run_that_goes_back_takes_back_what_it_logged_since(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        for step in (1, 2, 3):
            metrics.write(step, {"val/loss": float(step)})
        metrics.take_back(1)
        metrics.write(2, {"val/loss": 20.0})
    assert Run(tmp_path).series("val/loss") == ([1, 2], [1.0, 20.0])
    assert board(tmp_path, "val/loss") == [(1, 1.0), (2, 20.0)]


def test_a_clock_set_back_changes_no_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([2e9, 2e9 + 1, 1e9, 1e9 + 1, 1e9 + 2] + [1e9 + 3] * 100)
    monkeypatch.setattr("tts_kernel.training.metrics.time.time", lambda: next(clock))
    with MetricLog(tmp_path) as metrics:
        for step in (1, 2, 3):
            metrics.write(step, {"val/loss": float(step)})
    assert Run(tmp_path).series("val/loss") == ([1, 2, 3], [1.0, 2.0, 3.0])


def test_lines_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        metrics.write(1, {"a": 1.0})
        assert len(lines(tmp_path)) == 1


# Aim


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("aim", reason="the extra aim is not installed")
    (tmp_path / "first").mkdir()
    return tmp_path / "first"


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Those of the package, which may have been told not to pass them on."""
    package = logging.getLogger("tts_kernel")
    before, package.propagate = package.propagate, True
    yield caplog
    package.propagate = before


# Reads in a process of its own: Aim keeps its databases open, and there must be no network for it.
READ = """
import json, sys
from aim.sdk.repo import Repo
from aim.sdk.index_manager import RepoIndexManager
repository = Repo(sys.argv[1])
runs = {}
for name in repository.list_all_runs():
    RepoIndexManager(repository).index(name)
for name in repository.list_all_runs():
    run = repository.get_run(name)
    runs[name] = {"name": run.name, "active": run.active, "settings": run.get("settings"), "metrics": {}}
    for metric in run.metrics():
        steps, (values, *_) = metric.data.numpy()
        runs[name]["metrics"][metric.name] = [steps.tolist(), values.tolist()]
print(json.dumps(runs))
"""


def tracked(repository: Path) -> dict[str, dict]:
    done = subprocess.run([sys.executable, "-c", READ, str(repository)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def agree(run: Run, metrics: dict[str, tuple[list[int], list[float]]]) -> None:
    """Names, steps and values are those of metrics.jsonl."""
    names = {name for record in run.records() for name in record} - {"step", "time"}
    assert set(metrics) == names
    for name in names:
        np.testing.assert_equal(metrics[name], run.series(name), err_msg=name)


def test_importing_the_log_does_not_import_aim() -> None:
    code = "import sys, tts_kernel.training.metrics as m; m.aim_process.installed(); sys.exit('aim' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_aim_holds_what_metrics_jsonl_holds_and_a_resumed_run_goes_on(folder: Path, warnings) -> None:
    (folder / "settings.json").write_text('{"batch_size": 4}', encoding="utf-8")
    with MetricLog(folder, aim=True) as metrics:
        for step in range(1, 8):
            metrics.write(step, {"train/text_loss": 1 / step, "train/lr": math.nan if step == 3 else 1e-4})
        metrics.write(7, {"val/loss": 2.5})
        metrics.take_back(6)
        metrics.write(7, {"train/text_loss": 0.7})
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 8, "tr')  # killed
    ((name, first),) = tracked(folder.parent).items()
    assert (first["name"], first["active"], first["settings"]) == ("first", False, {"batch_size": 4})
    agree(Run(folder), first["metrics"])

    with MetricLog(folder, resumed_at=4, aim=True) as metrics:
        metrics.write(6, {"train/text_loss": 60.0})
    (folder.parent / "second").mkdir()
    with MetricLog(folder.parent / "second", aim=True) as metrics:
        metrics.write(1, {"train/text_loss": 5.0})
    both = tracked(folder.parent)
    assert sorted(run["name"] for run in both.values()) == ["first", "second"]
    agree(Run(folder), both[name]["metrics"])
    assert both[name]["metrics"]["train/text_loss"][0] == [1, 2, 3, 4, 6]
    assert "val/loss" not in both[name]["metrics"]
    assert not [record for record in warnings.records if "Aim" in record.getMessage()]


def test_a_run_trained_without_aim_is_added_by_hand_once_and_without_network(folder: Path) -> None:
    """What the other process does, every connection an error, and what it does when there is nothing to do."""
    with MetricLog(folder) as metrics:
        metrics.write(1, {"train/text_loss": 5.0})
        metrics.take_back(0)
        metrics.write(2, {"train/text_loss": 4.0})
    code = (
        "import socket, sys\n"
        "def refuse(*_): sys.exit('network')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse\n"
        f"from tts_kernel.training.aim_process import main\nmain([{str(folder)!r}])\nmain([{str(folder)!r}])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    (run,) = tracked(folder.parent).values()
    agree(Run(folder), run["metrics"])


@pytest.mark.parametrize("damage", ["a file in its place", "no database"])
def test_a_damaged_repository_is_one_warning(folder: Path, warnings, damage: str) -> None:
    repository = folder.parent / ".aim"
    if damage == "a file in its place":
        repository.write_text("not a folder", encoding="utf-8")
    else:
        (repository / "meta").mkdir(parents=True)
        (repository / "VERSION").write_text("1.0\n", encoding="utf-8")
        (repository / "run_metadata.sqlite").write_bytes(b"garbage" * 1000)
    with MetricLog(folder, aim=True) as metrics:
        deadline = time.monotonic() + 60
        while not warnings.records and time.monotonic() < deadline:
            metrics.write(1, {"train/text_loss": 5.0})
            time.sleep(0.1)
        metrics.write(2, {"train/text_loss": 5.0})
    (warning,) = warnings.records
    assert "metrics.jsonl and TensorBoard are complete" in warning.getMessage()
    assert Run(folder).series("train/text_loss")[0][-1] == 2


def test_aim_that_fails_on_the_way_ends_and_is_one_warning(folder: Path, warnings) -> None:
    """It does not hang at its end, as Aim does when it cannot close what it has opened."""
    metrics = MetricLog(folder, aim=True)
    process, state = metrics._aim._process, folder / "aim.json"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    state.unlink()
    state.mkdir()
    shutil.rmtree(folder.parent / ".aim")
    metrics.write(1, {"train/text_loss": 5.0})
    metrics.close()
    (warning,) = warnings.records
    assert process.returncode == 1, "it was killed instead"
    assert "Error" in warning.getMessage()


def test_a_locked_repository_is_one_warning_and_holds_nothing_up(folder: Path, warnings, monkeypatch) -> None:
    (folder.parent / ".aim" / "locks").mkdir(parents=True)
    (folder.parent / ".aim" / "locks" / "structured_db_lock").touch()  # Aim itself would wait for five minutes
    monkeypatch.setattr(aim_process, "PATIENCE", 1.0)
    with MetricLog(folder, aim=True) as metrics:
        metrics.write(1, {"train/text_loss": 5.0})
        child = metrics._aim._process
    assert child.poll() is not None
    (warning,) = warnings.records
    assert "catches up" in warning.getMessage()


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_what_was_logged_before_a_kill_reaches_aim(folder: Path) -> None:
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom tts_kernel.training.metrics import MetricLog\n"
        f"metrics = MetricLog(Path({str(folder)!r}), aim=True)\n"
        "for step in (1, 2, 3): metrics.write(step, {'train/text_loss': step})\n"
        "print(metrics._aim._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while Path(f"/proc/{done.stdout.strip()}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    (run,) = tracked(folder.parent).values()
    agree(Run(folder), run["metrics"])
    assert not run["active"]
