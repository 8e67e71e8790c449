from __future__ import annotations

import json
import math
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tts_kernel.recovery.history import read_history
from tts_kernel.runs import Run
from tts_kernel.training import aim_process

WRITE = """
import sys
from aim.sdk.run import Run
from tts_kernel.training.aim_process import main
main([sys.argv[1] + "/ours"])
run = Run(repo=sys.argv[1], system_tracking_interval=None, log_system_params=False, capture_terminal_logs=False)
for step in (100, 200):
    run.track(step / 100, name="text_loss", context={"subset": "train"}, step=step)
    run.track(3.0, name="text_loss", context={"subset": "val"}, step=step)
    run.track(120.0, name="steps_per_min", context={"subset": "train"}, step=step)
run.close()
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: one of ours, tracked as training does it, then one as the guide's trainer does."""
    pytest.importorskip("aim", reason="the extra aim is not installed")
    folder = tmp_path_factory.mktemp("runs")
    (folder / "ours").mkdir()
    with (folder / "ours" / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, 31):
            loss = None if step == 3 else 1 / step
            file.write(json.dumps({"step": step, "time": 1.7e9, "train/text_loss": loss, "val/loss": 2.0}) + "\n")
    subprocess.run([sys.executable, "-c", WRITE, str(folder)], check=True, capture_output=True)
    return folder


def test_a_run_of_ours_is_what_its_folder_says(repository: Path) -> None:
    history, run = read_history(repository / ".aim" / "ours"), Run(repository / "ours")
    assert set(history.metrics) == {"train/text_loss", "val/loss"}
    for name in history.metrics:
        steps, values = run.series(name)
        assert history[name].steps.tolist() == steps
        np.testing.assert_array_equal(history[name].values, values)
    assert (history.name, history.problems) == ("ours", [])
    assert math.isnan(history["train/text_loss"].values[2])


def test_without_a_name_the_newest_run_is_read_and_the_others_are_named(repository: Path) -> None:
    history = read_history(repository)
    assert history["train/text_loss"].values.tolist() == [1.0, 2.0]
    assert history["val/text_loss"].steps.tolist() == [100, 200]
    assert history["train/steps_per_second"].values.tolist() == [2.0, 2.0]
    assert "several runs" in history.problems[0]
    assert "ours" in history.problems[0]


def test_a_run_that_is_not_there_is_a_problem(repository: Path) -> None:
    assert "expected third" in read_history(repository / ".aim" / "third").problems[0]


def test_where_aim_is_not_installed_the_history_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aim_process, "installed", lambda: False)
    assert "install tts_kernel[aim]" in read_history(repository / ".aim" / "ours").problems[0]


def test_a_damaged_repository_is_a_problem(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / ".aim", tmp_path / ".aim")
    shutil.rmtree(tmp_path / ".aim" / "seqs")
    with sqlite3.connect(tmp_path / ".aim" / "run_metadata.sqlite") as database:
        database.execute("DELETE FROM run WHERE name != 'ours'")
    assert "cannot be read" in read_history(tmp_path).problems[0]
    (tmp_path / ".aim" / "run_metadata.sqlite").write_bytes(b"nothing of the kind")
    assert "expected an Aim repository" in read_history(tmp_path).problems[0]
