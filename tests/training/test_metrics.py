from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tts_kernel.runs import Run
from tts_kernel.training.metrics import MetricLog


def lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()


def test_tensorboard_shows_the_same_values_under_the_same_names(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        metrics.write(1, {"train/lr": 0.5, "train/text_loss": 2.0})
        metrics.write(2, {"train/lr": 0.25, "val/loss": 3.0})
    logged = [json.loads(line) for line in lines(tmp_path)]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(board.Tags()["scalars"]) == {"train/lr", "train/text_loss", "val/loss"}
    for tag in board.Tags()["scalars"]:
        shown = [(event.step, event.value) for event in board.Scalars(tag)]
        assert shown == [(record["step"], record[tag]) for record in logged if tag in record]


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        metrics.write(1, {"a": float("nan"), "b": float("inf"), "c": 1.0})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    record = json.loads(lines(tmp_path)[0], parse_constant=refuse)
    assert (record["a"], record["b"], record["c"]) == (None, None, 1.0)


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
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("val/loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_lines_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        metrics.write(1, {"a": 1.0})
        assert len(lines(tmp_path)) == 1
