"""Scalars from TensorBoard event files, of ours or of any trainer.

Source of the framing: TFRecord, tensorflow/core/lib/io/record_writer.h: length (uint64), its masked CRC-32C (uint32),
the event, its masked CRC-32C.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tts_kernel.recovery.history import History, Points, Series

_HEAD = struct.Struct("<QI")
_TAIL = struct.Struct("<I")


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
    for file in files:
        folder = "" if path.is_file() else file.parent.relative_to(path).as_posix()
        prefix = "" if folder in (".", "", "tensorboard") else f"{folder}/"
        found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for event in _events(file, problems):
            order += 1
            if event.session_log.status == event.session_log.START and event.step > 0:
                points.go_back(order, event.step - 1)  # it purges from its own step on
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found[value.tag].append((order, event.step, value.simple_value, event.wall_time))
                elif value.HasField("tensor") and (scalar := _scalar(value.tensor)) is not None:
                    found[value.tag].append((order, event.step, scalar, event.wall_time))
        for tag, rows in found.items():
            columns = np.array(rows, np.float64).T
            points.add(prefix + tag, columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2], columns[3])
    metrics = {name: _forward(series) for name, series in points.series().items()}
    return History(path, metrics, tuple(points.resumes), problems)


def _events(path: Path, problems: list[str]) -> Iterator:
    """The events of one file, to its end or to the first place where it is damaged or cut."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    content = memoryview(path.read_bytes())
    place = 0
    while place < len(content):
        start = place + _HEAD.size
        if start > len(content):
            problems.append(f"{path}: ends in the middle of an event, at byte {place:,}")
            return
        length, check = _HEAD.unpack_from(content, place)
        if masked_crc32c(bytes(content[place : place + 8])) != check:
            problems.append(
                f"{path}: damaged at byte {place:,}; the {len(content) - place:,} bytes from there are lost"
            )
            return
        end = start + length
        if end + _TAIL.size > len(content):
            problems.append(f"{path}: ends in the middle of an event, at byte {place:,}")
            return
        data = bytes(content[start:end])
        place, before = end + _TAIL.size, place
        try:
            if masked_crc32c(data) != _TAIL.unpack_from(content, end)[0]:
                raise DecodeError
            event = Event.FromString(data)
        except DecodeError:
            problems.append(f"{path}: the event at byte {before:,} is damaged and passed over")
            continue
        yield event


def _scalar(tensor: object) -> float | None:
    """The number in a tensor of one, None for anything else."""
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(tensor)
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else None


def _forward(series: Series) -> Series:
    """Each step once, ascending: a later point takes back the earlier ones that are not below it."""
    later = np.append(np.minimum.accumulate(series.steps[::-1])[::-1][1:], np.iinfo(np.int64).max)
    kept = series.steps < later
    values = np.where(np.isfinite(series.values), series.values, np.nan)[kept]
    return Series(series.steps[kept], values, series.times[kept])
