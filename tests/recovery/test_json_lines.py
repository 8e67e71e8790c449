from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tts_kernel.recovery import json_lines as reader
from tts_kernel.recovery.history import read_history
from tts_kernel.runs import Run


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
    random, lines, step = np.random.default_rng(0), list[object](), 0
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


@pytest.mark.parametrize("other", ["1.0", "null"])
def test_a_log_is_read_in_whole_blocks(tmp_path: Path, other: str) -> None:
    """Which is what makes it fast."""
    lines = (f'{{"step": {step}, "time": {step}.5, "a": {step}.25, "b": {other}}}\n' for step in range(100_000))
    (tmp_path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")

    def refuse(*_: object) -> None:
        raise AssertionError("a line at a time")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_add_lines", refuse)
        history = read_history(tmp_path)
    assert len(history["a"]) == 100_000
    assert history["a"].values[-1] == 99_999.25
    assert len(history["b"]) == 100_000
    assert np.isnan(history["b"].values).all() == (other == "null")


def test_a_line_without_its_step_is_a_problem_in_a_block_of_whole_lines(tmp_path: Path) -> None:
    history = read_history(write(tmp_path, {"step": 1, "a": 1.0}, {"step": None, "a": 2.0}, {"step": 3, "a": None}))
    np.testing.assert_equal(history["a"].values, [1.0, np.nan])
    assert "no step" in history.problems[0]


def test_steps_that_do_not_increase_are_put_in_order_and_counted(tmp_path: Path) -> None:
    """Two processes that wrote one file, or a file that was put together by hand."""
    history = read_history(write(tmp_path, *({"step": step, "a": float(step)} for step in (1, 2, 5, 3, 4, 4, 6))))
    assert history["a"].steps.tolist() == [1, 2, 3, 4, 6]
    assert "2 points taken back" in history.problems[0]
    assert history.resumes == ()
