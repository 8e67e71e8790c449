from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tts_kernel.recovery.history import History, read_history


def read(tmp_path: Path, text: str, name: str = "metrics.csv") -> History:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_history(tmp_path)


def points(history: History, metric: str) -> list[tuple[int, float]]:
    return list(zip(history[metric].steps.tolist(), history[metric].values.tolist(), strict=True))


def test_a_column_for_each_metric(tmp_path: Path) -> None:
    history = read(tmp_path, "step,time,epoch,text_loss,val_loss\n1,10.0,0,2.5,\n2,11.0,0,nan,3.5\n3,12.0,0,2.0,\n")
    np.testing.assert_equal(points(history, "train/text_loss"), [(1, 2.5), (2, np.nan), (3, 2.0)])
    assert points(history, "val/loss") == [(2, 3.5)]
    assert history["train/text_loss"].times.tolist() == [10.0, 11.0, 12.0]
    assert set(history.metrics) == {"train/text_loss", "val/loss"}
    assert not history.problems


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_row_for_each_value(tmp_path: Path, mark: str) -> None:
    rows = ["metric,step,value", "train/lr,1,0.5", "train/lr,2,0.25", "val/loss,1,3", "train/lr,3,0.125"]
    history = read(tmp_path, "".join(row.replace(",", mark) + "\n" for row in rows))
    assert points(history, "train/lr") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert points(history, "val/loss") == [(1, 3.0)]


def test_tensorboards_export_is_named_after_its_metric(tmp_path: Path) -> None:
    for tag in ("train_text_loss", "val_text_loss"):
        text = "Wall time,Step,Value\n1700000000.5,100,2.5\n1700000010.5,200,2.25\n"
        (tmp_path / f"run-a-tag-{tag}.csv").write_text(text, encoding="utf-8")
    history = read_history(tmp_path)
    assert points(history, "train/text_loss") == points(history, "val/text_loss") == [(100, 2.5), (200, 2.25)]
    assert np.diff(history["val/text_loss"].times).tolist() == [10.0]


def test_a_table_that_begins_with_the_newest_is_turned(tmp_path: Path) -> None:
    rows = [f"{step},{step / 10}" for step in range(50, 0, -1)]
    history = read(tmp_path, "step,loss\n" + "\n".join(rows) + "\n")
    assert points(history, "train/loss") == [(step, step / 10) for step in range(1, 51)]
    assert not history.problems


def test_a_table_in_no_order_is_sorted_and_says_so(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).permutation(np.arange(1, 101))
    history = read(tmp_path, "step,loss\n" + "".join(f"{step},{step / 10}\n" for step in steps))
    assert points(history, "train/loss") == [(step, step / 10) for step in range(1, 101)]
    assert "sorted by step" in history.problems[0]


def test_a_restart_takes_back_what_it_repeats(tmp_path: Path) -> None:
    rows = [(step, 2.0) for step in range(1, 101)] + [(step, 1.0) for step in range(81, 121)]
    history = read(tmp_path, "step,loss\n" + "".join(f"{step},{value}\n" for step, value in rows))
    assert points(history, "train/loss") == [(step, 2.0 if step < 81 else 1.0) for step in range(1, 121)]
    assert (history.resumes, history.problems) == ((80,), [])


def test_what_is_no_number_and_no_row_is_listed(tmp_path: Path) -> None:
    history = read(tmp_path, "step,a,b\n1,1.0,2.0\n2,oops,2.5\nx,3.0,3.0\n4,4.0\n5,5.0,5.0\n")
    np.testing.assert_equal(points(history, "a"), [(1, 1.0), (2, np.nan), (5, 5.0)])
    said = " ".join(history.problems)
    for part in ("2 cells, expected 3", "column a: 1 cells are no number, such as 'oops'", "1 rows whose step"):
        assert part in said


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "step,a,a\n1,2,3\n", "\0\0\0\0"])
def test_a_table_without_steps_or_of_another_kind_is_a_problem(tmp_path: Path, text: str) -> None:
    history = read(tmp_path, text)
    assert history.metrics == {}
    assert len(history.problems) == 1
