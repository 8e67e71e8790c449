from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tts_kernel.recovery.history import Points, read_history


@pytest.mark.parametrize("make", ["nothing", "empty", "no metrics"])
def test_where_there_is_nothing_the_history_says_so(tmp_path: Path, make: str) -> None:
    path = tmp_path / "run"
    if make != "nothing":
        path.mkdir()
    if make == "empty":
        (path / "metrics.jsonl").touch()
    history = read_history(path)
    assert (history.metrics, history.step) == ({}, -1)
    assert bool(history.problems) == (make != "empty")
    assert len(history["a"]) == 0
    assert np.isnan(history.last("a"))


GUIDE = "[Train] epoch=1 step=100 text_loss=2.5 mel_loss=5.0\n"
SOURCES = {
    "metrics.jsonl": json.dumps({"step": 100, "train/text_loss": 2.5}) + "\n",
    "train.log": GUIDE,
    "metrics.csv": "step,train/text_loss\n100,2.5\n",
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_folder_and_its_file_are_read_alike(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SOURCES[name], encoding="utf-8")
    (tmp_path / "notes.txt").write_text("nothing of the kind", encoding="utf-8")
    paths = [tmp_path] if name == "metrics.jsonl" else [tmp_path, tmp_path / name]
    for path in paths:
        series = read_history(path)["train/text_loss"]
        assert (series.steps.tolist(), series.values.tolist()) == ([100], [2.5])


def test_metrics_of_a_run_folder_count_before_other_files(tmp_path: Path) -> None:
    for name, text in SOURCES.items():
        (tmp_path / name).write_text(text.replace("2.5", "1.5") if name == "metrics.jsonl" else text, encoding="utf-8")
    assert read_history(tmp_path)["train/text_loss"].values.tolist() == [1.5]


def test_two_metrics_may_have_different_steps(tmp_path: Path) -> None:
    lines = [{"step": step, "a": 1.0} | ({"b": 2.0} if step % 3 == 0 else {}) for step in range(1, 10)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    history = read_history(tmp_path)
    assert (history["a"].steps.tolist(), history["b"].steps.tolist()) == (list(range(1, 10)), [3, 6, 9])


def test_going_back_twice_leaves_what_the_lower_leaves(tmp_path: Path) -> None:
    points, steps = Points(), np.array([1, 2, 3, 4, 5])
    points.add("a", np.arange(5), steps, steps.astype(float), np.full(5, np.nan))
    points.go_back(4, 2)
    points.add("a", np.array([5]), np.array([3]), np.array([30.0]), np.full(1, np.nan))
    points.go_back(5, 3)
    points.note_resume(3)
    history = points.history(tmp_path, [])
    assert history["a"].values.tolist() == [1.0, 2.0, 30.0]
    assert history.resumes == (2, 3, 3)
    assert not history.problems
