from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from tts_kernel.recovery.history import read_history
from tts_kernel.training.metrics import MetricLog


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
    assert set(read_history(tmp_path).metrics) == {"train/loss", "val/loss"}


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


def record(event: Event) -> bytes:
    data = event.SerializeToString()
    head = len(data).to_bytes(8, "little")
    sums = [masked_crc32c(part).to_bytes(4, "little") for part in (head, data)]
    return head + sums[0] + data + sums[1]


def plain(tag: str, step: int, value: float, seconds: float = 1.7e9) -> Event:
    return Event(wall_time=seconds, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def test_events_of_any_shape_in_any_order_are_those_that_were_written(tmp_path: Path) -> None:
    """Plain ones are read many at a time; tags, steps and values of all sizes are mixed with other kinds of event."""
    random, expected, content = np.random.default_rng(0), dict[str, list[tuple[int, float, float]]](), b""
    for number in range(2000):
        tag, step = f"train/{'abcdefgh'[number % 8] * (1 + number % 3)}", 1 + number**2
        value, seconds = float(np.float32(random.standard_normal())), 1.7e9 + number / 7
        event = plain(tag, step, value, seconds)
        if number % 50 == 0:
            event.summary.value.add(tag="train/beside", simple_value=float(number))
            expected.setdefault("train/beside", []).append((step, float(number), seconds))
        if number % 90 == 0:
            content += record(Event(wall_time=1.0, file_version="brain.Event:2"))
        content += record(event)
        expected.setdefault(tag, []).append((step, value, seconds))
    (tmp_path / "events.out.tfevents.1").write_bytes(content)
    history = read_history(tmp_path)
    assert set(history.metrics) == set(expected)
    assert not history.problems
    for tag, rows in expected.items():
        series = history[tag]
        found = np.stack([series.steps, series.values, series.times])
        np.testing.assert_array_equal(found, np.array(rows).T, err_msg=tag)


def test_damage_in_the_middle_costs_one_event(tmp_path: Path) -> None:
    records = [record(plain("a", step, float(step))) for step in range(1, 41)]
    damaged = bytearray(records[20])
    damaged[20] ^= 8
    (tmp_path / "events.out.tfevents.1").write_bytes(b"".join([*records[:20], bytes(damaged), *records[21:]]))
    history = read_history(tmp_path)
    assert history["a"].steps.tolist() == [step for step in range(1, 41) if step != 21]
    assert len(history.problems) == 1


def test_damage_in_a_length_costs_the_rest(tmp_path: Path) -> None:
    records = [record(plain("a", step, float(step))) for step in range(1, 41)]
    damaged = bytearray(records[20])
    damaged[1] ^= 1
    (tmp_path / "events.out.tfevents.1").write_bytes(b"".join([*records[:20], bytes(damaged), *records[21:]]))
    history = read_history(tmp_path)
    assert history["a"].steps.tolist() == list(range(1, 21))
    assert "bytes from there are lost" in history.problems[0]


def test_a_restart_is_noted_with_the_step_it_went_on_from(tmp_path: Path) -> None:
    """For jumps: what happens there may be an artefact of resuming."""
    for number, steps in enumerate((range(10, 60, 10), range(30, 90, 10), range(90, 120, 10))):
        content = b"".join(record(plain("a", step, 1.0)) for step in steps)
        (tmp_path / f"events.out.tfevents.{number}").write_bytes(content)
    history = read_history(tmp_path)
    assert history["a"].steps.tolist() == list(range(10, 120, 10))
    assert history.resumes == (29, 80)


def test_overlapping_runs_count_by_the_one_that_began_later(tmp_path: Path) -> None:
    """The first process went on after the second was started from an older checkpoint."""
    for name, steps, value in (("1", range(1, 101), 1.0), ("2", range(51, 81), 2.0)):
        content = b"".join(record(plain("a", step, value)) for step in steps)
        (tmp_path / f"events.out.tfevents.{name}").write_bytes(content)
    series = read_history(tmp_path)["a"]
    assert series.steps.tolist() == list(range(1, 81))
    assert series.values.tolist() == [1.0] * 50 + [2.0] * 30


def test_a_file_of_another_kind_with_the_name_of_one_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(b"\0" * 7)
    (tmp_path / "events.out.tfevents.2").touch()
    history = read_history(tmp_path)
    assert history.metrics == {}
    assert len(history.problems) == 1


@pytest.mark.parametrize(("tag", "name"), [("TRAIN/loss", "train/loss"), ("CV/acc", "val/acc"), ("loss", "train/loss")])
def test_tags_get_their_house_names(tmp_path: Path, tag: str, name: str) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(record(plain(tag, 1, 0.5)))
    assert list(read_history(tmp_path).metrics) == [name]
