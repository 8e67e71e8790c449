"""Scalars from TensorBoard event files, of ours or of any trainer."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from tts_kernel.recovery.history import History, Points
from tts_kernel.recovery.names import house_name
from tts_kernel.recovery.tfrecords import Records, read_records

# Of one tag: numbers of the records, steps, values and times; (points,) each.
_Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# Bytes of a plain event: 0x09 and the time, 0x10 and the step, 0x2a and the summary, which ends in 0x15 and the value.
_TIME, _STEP, _VALUE = slice(1, 9), 10, slice(-4, None)


def find_events(path: Path) -> list[Path]:
    """The event files that `path` is or holds: in itself, else in its tensorboard/, else anywhere below. In the order
    they were begun, which their names hold."""
    if path.is_file():
        return [path] if "tfevents" in path.name else []
    for pattern in ("*tfevents*", "tensorboard/*tfevents*", "**/*tfevents*"):
        found = sorted((file for file in path.glob(pattern) if file.is_file()), key=lambda file: (file.name, file))
        if found:
            return found
    return []


def read_events(path: Path, files: list[Path]) -> History:
    """Several files are sessions of one run: a purge takes back what came before it, and so does, for its own metric, a
    step that is not above the last one. Files in folders below `path` give their metrics the folder's name in front."""
    points, problems = Points(), list[str]()
    order = 0
    reached: dict[str, int] = {}  # last step of each metric in the files before
    for file in files:
        folder = "" if path.is_file() else file.parent.relative_to(path).as_posix()
        prefix = "" if folder in (".", "", "tensorboard") else f"{folder}/"
        try:
            records = read_records(file, problems)
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror})")
            continue
        columns, purges = _columns(records, file, problems)
        named = {house_name(prefix + tag): table for tag, table in columns.items()}
        again = [min(reached[name], int(rows[1][0]) - 1) for (name, _), rows in named.items() if name in reached]
        if again and not purges:
            points.note_resume(min(again))
        for number, step in purges:
            points.go_back(order + number, step - 1)  # it purges from its own step on
        for (name, factor), (numbers, steps, values, times) in named.items():
            points.add(name, order + numbers, steps, factor * values, times)
            reached[name] = int(steps[-1])
        order += len(records.starts)
    return points.history(path, problems)


def _columns(records: Records, file: Path, problems: list[str]) -> tuple[dict[str, _Columns], list[tuple[int, int]]]:
    """What the events of one file say, by tag in the order of first appearance; and number and step of each purge."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    parts: dict[str, list[_Columns]] = defaultdict(list)
    purges: list[tuple[int, int]] = []
    rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for number in _add_plain(records, parts):
        try:
            event = Event.FromString(records.data(number))
        except DecodeError:
            problems.append(f"{file}: the event at byte {int(records.starts[number]):,} is damaged and passed over")
            continue
        if event.session_log.status == event.session_log.START and event.step > 0:
            purges.append((int(number), event.step))
        for value in event.summary.value:
            if value.HasField("simple_value"):
                rows[value.tag].append((number, event.step, value.simple_value, event.wall_time))
            elif value.HasField("tensor") and (scalar := _scalar(value.tensor)) is not None:
                rows[value.tag].append((number, event.step, scalar, event.wall_time))
    for tag, several in rows.items():
        numbers, steps, values, times = np.array(several, np.float64).T
        parts[tag].append((numbers.astype(np.int64), steps.astype(np.int64), values, times))
    found: dict[str, _Columns] = {}
    for tag, tables in sorted(parts.items(), key=lambda item: min(table[0][0] for table in item[1])):
        numbers, steps, values, times = (np.concatenate(column) for column in zip(*tables, strict=True))
        order = np.argsort(numbers, kind="stable")
        found[tag] = numbers[order], steps[order], values[order], times[order]
    return found, purges


def _add_plain(records: Records, parts: dict[str, list[_Columns]]) -> np.ndarray:
    """The events that hold one number and nothing else, which are nearly all, as arrays; returns the numbers of the
    others. In plain events of one tag and one length, time, step and value lie at the same bytes and all other bytes
    are the same: those like the first are read together, then those like the first of the rest."""
    others = [np.zeros(0, np.int64)]
    for numbers, data in records.alike():
        while len(numbers):
            first = _plain(data[0].tobytes()) if len(numbers) > 8 else None
            if first is None:
                others.append(numbers)
                break
            tag, step = first
            fixed = np.ones(data.shape[1], bool)
            fixed[_TIME] = fixed[step] = fixed[_VALUE] = False
            alike = (data[:, fixed] == data[0, fixed]).all(axis=1)
            alike &= (data[:, step] >> 7 == data[0, step] >> 7).all(axis=1)  # steps of as many bytes
            rows = data[alike]
            sevens = (rows[:, step] & 0x7F).astype(np.int64)
            steps = (sevens << (7 * np.arange(sevens.shape[1]))).sum(axis=1)
            values = np.ascontiguousarray(rows[:, _VALUE]).view("<f4")[:, 0].astype(np.float64)
            parts[tag].append((numbers[alike], steps, values, np.ascontiguousarray(rows[:, _TIME]).view("<f8")[:, 0]))
            numbers, data = numbers[~alike], data[~alike]
    return np.sort(np.concatenate(others))


def _plain(data: bytes) -> tuple[str, slice] | None:
    """The tag of a plain event, and where its step lies; None for any other. Seven bits of the step are in each of its
    bytes, the eighth says whether there are more."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    try:
        event = Event.FromString(data)
    except DecodeError:
        return None
    if event.step < 1 or len(event.summary.value) != 1:
        return None
    value = event.summary.value[0]
    same = Summary(value=[Summary.Value(tag=value.tag, simple_value=value.simple_value)])
    if Event(wall_time=event.wall_time, step=event.step, summary=same).SerializeToString() != data:
        return None
    return value.tag, slice(_STEP, _STEP + -(-event.step.bit_length() // 7))


def _scalar(tensor: object) -> float | None:
    """The number in a tensor of one, None for anything else."""
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(tensor)
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else None
