from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from tts_kernel.recovery import history as reader
from tts_kernel.recovery.history import read_history
from tts_kernel.runs import Run
from tts_kernel.training.metrics import MetricLog


def write(folder: Path, *lines: object, end: str = "") -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + end, encoding="utf-8")
    return folder


def same(folder: Path) -> None:
    """The history is what Run.series says, for every metric."""
    history, run = read_history(folder), Run(folder)
    names = {name for record in run.records() for name in record} - {"step", "time"}
    assert {name for name, series in history.metrics.items() if len(series)} == names
    for name in names:
        steps, values = run.series(name)
        np.testing.assert_array_equal(history[name].steps, steps)
        np.testing.assert_array_equal(history[name].values, values)


@pytest.mark.parametrize("block", [1, 300, 1 << 20])
@pytest.mark.parametrize("null", [False, True])
def test_any_history_is_read_as_a_run_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, null: bool
) -> None:
    """With resumes, rollbacks below earlier ones, absent metrics and NaN, in blocks of any size."""
    monkeypatch.setattr(reader, "_BLOCK", block)
    random, lines, step = np.random.default_rng(0), [], 0
    for number in range(300):
        step += 1
        if random.random() < 0.05:
            step = int(random.integers(0, step))
            lines.append({"resumed_at": step, "time": 1.0})
        else:
            value = None if null and random.random() < 0.1 else number + 0.5
            lines.append({"step": step, "time": float(number), "a": value} | ({"b": number} if number % 7 == 0 else {}))
    same(write(tmp_path, *lines))
    assert len(read_history(tmp_path).resumes) > 5


def test_what_cannot_be_read_is_listed_and_costs_only_itself(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"step": 1, "time": 1.0, "a": 1.0},
        '{"step": 2, "ti',
        "\0\0\0",
        [1, 2],
        {"time": 2.0, "a": 5.0},
        {"step": 3, "time": 3.0, "a": "three", "b": 3},
        end='{"step": 4, "time": 4.0, "a',
    )
    history = read_history(tmp_path)
    assert history["a"].steps.tolist() == [1, 3]
    np.testing.assert_equal(history["a"].values, [1.0, np.nan])
    assert history["b"].values.tolist() == [3.0]
    places = [problem.split(": ")[0].rpartition(":")[2] for problem in history.problems]
    assert sorted(places) == ["2", "3", "4", "5", "6", "7"], history.problems


def test_a_last_line_without_its_newline_counts_if_it_is_whole(tmp_path: Path) -> None:
    history = read_history(write(tmp_path, {"step": 1, "a": 1.0}, end='{"step": 2, "a": 2.0}'))
    assert history["a"].values.tolist() == [1.0, 2.0]
    assert np.isnan(history["a"].times).all()


def test_a_clock_that_goes_backwards_changes_no_order(tmp_path: Path) -> None:
    history = read_history(write(tmp_path, *({"step": step, "time": 9.0 - step, "a": step} for step in range(5))))
    assert history["a"].steps.tolist() == [0, 1, 2, 3, 4]
    assert history["a"].times.tolist() == [9.0, 8.0, 7.0, 6.0, 5.0]


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


def test_a_log_without_gaps_is_read_in_whole_blocks(tmp_path: Path) -> None:
    """Which is what makes it fast."""
    lines = (f'{{"step": {step}, "time": {step}.5, "a": {step}.25, "b": 1.0}}\n' for step in range(100_000))
    (tmp_path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")

    def refuse(*_: object) -> None:
        raise AssertionError("a line at a time")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_add_lines", refuse)
        history = read_history(tmp_path)
    assert len(history["a"]) == 100_000
    assert history["a"].values[-1] == 99_999.25


# Event files


def test_event_files_hold_what_metrics_jsonl_holds(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        for step in range(1, 9):
            metrics.write(step, {"a": step / 4, "b": float("nan") if step == 2 else 1.0})
        metrics.take_back(5)
        metrics.write(6, {"a": 60.0})
    with MetricLog(tmp_path, resumed_at=3) as metrics:
        metrics.write(4, {"a": 40.0})
    lines, events = read_history(tmp_path), read_history(tmp_path / "tensorboard")
    assert events.resumes == lines.resumes == (5, 3)
    assert lines["a"].steps.tolist() == [1, 2, 3, 4]
    for name in ("a", "b"):
        np.testing.assert_array_equal(events[name].steps, lines[name].steps)
        np.testing.assert_array_equal(events[name].values, lines[name].values)
    assert not events.problems


def sessions(folder: Path, *each: dict[str, list[tuple[int, float]]]) -> Path:
    """One event file for each session, without purging."""
    for session in each:
        with SummaryWriter(str(folder)) as writer:
            for tag, points in session.items():
                for step, value in points:
                    writer.add_scalar(tag, value, step)
        time.sleep(1.1)  # the files are named by the second
    return folder


def test_a_restart_without_purge_takes_back_what_it_repeats(tmp_path: Path) -> None:
    first = {"a": [(step, 1.0) for step in range(1, 6)], "val": [(5, 1.0)]}
    history = read_history(sessions(tmp_path, first, {"a": [(3, 2.0), (4, 2.0)]}))
    assert list(zip(history["a"].steps.tolist(), history["a"].values, strict=True)) == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert history["val"].steps.tolist() == [5]  # another metric, perhaps of another writer


def test_folders_below_give_their_name_to_their_metrics(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        sessions(tmp_path / name, {"loss": [(1, 1.0)]})
    assert set(read_history(tmp_path).metrics) == {"train/loss", "validation/loss"}


def test_a_cut_and_a_damaged_event_file_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    sessions(tmp_path, {"a": [(step, float(step)) for step in range(1, 6)]})
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    history = read_history(path)
    assert history["a"].steps.tolist() == [1, 2, 3, 4]
    assert "ends in the middle" in history.problems[0]
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # in the last event's data
    path.write_bytes(bytes(damaged))
    history = read_history(path)
    assert history["a"].steps.tolist() == [1, 2, 3, 4]
    assert "damaged" in history.problems[0]
    path.write_bytes(b"nothing of the kind")
    assert "damaged" in read_history(path).problems[0]
