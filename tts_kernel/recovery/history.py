"""The metrics of a run as arrays, from its folder or from TensorBoard event files.

A crashed run, a running one, a torn line and a damaged file are read as far as they go; what could not be read is
listed. A run that went back, because it was resumed or rolled back, has every step once: what it logged before it went
back is taken back, as `Run.records` does.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

_BLOCK = 4 << 20  # bytes of lines that are parsed at a time
_FACTS = ("step", "time", "resumed_at")  # of a line, beside its metrics


@dataclass(frozen=True)
class Series:
    """One metric, in the order it was logged. All three are (points,)."""

    steps: np.ndarray  # int64
    values: np.ndarray  # float64, NaN where the value was not finite
    times: np.ndarray  # float64, seconds since the epoch, NaN where unknown; a clock may go backwards

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> Series:
        """Without the values that are not."""
        kept = np.isfinite(self.values)
        return Series(self.steps[kept], self.values[kept], self.times[kept])


NOTHING = Series(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class History:
    """Metric -> series, in the order of first appearance."""

    path: Path
    metrics: dict[str, Series]
    resumes: tuple[int, ...] = ()  # steps from which the run went on, in the order it did
    problems: list[str] = field(default_factory=list)  # what could not be read: place and reason

    @property
    def name(self) -> str:
        return self.path.name

    def __contains__(self, metric: str) -> bool:
        return metric in self.metrics

    def __getitem__(self, metric: str) -> Series:
        """Empty for a metric that was never logged."""
        return self.metrics.get(metric, NOTHING)

    def last(self, metric: str) -> float:
        """The newest value, NaN where there is none."""
        values = self[metric].values
        return float(values[-1]) if len(values) else float("nan")

    @property
    def step(self) -> int:
        """The highest step that was logged; -1 before the first."""
        return max((int(series.steps.max()) for series in self.metrics.values() if len(series)), default=-1)


def read_history(path: Path | str) -> History:
    """Of a run folder, an event file, or a folder of event files. Never fails for what it finds there."""
    from tts_kernel.recovery.events import find_events, read_events

    path = Path(path)
    if (path / "metrics.jsonl").is_file():
        return _read_lines(path)
    files = find_events(path)
    if files:
        return read_events(path, files)
    problem = f"{path}: no metrics.jsonl and no event files; has the run logged anything yet?"
    return History(path, {}, problems=[problem if path.exists() else f"{path}: no such file or folder"])


class Points:
    """Collects points in the order they were logged, and what takes them back."""

    def __init__(self) -> None:
        self.names: dict[str, list[tuple[np.ndarray, ...]]] = defaultdict(list)  # (order, steps, values, times)
        self.orders: list[int] = []  # of each going back
        self.resumes: list[int] = []

    def add(self, name: str, order: np.ndarray, steps: np.ndarray, values: np.ndarray, times: np.ndarray) -> None:
        """All (points,); `order` numbers them, over all metrics, by when they were logged."""
        self.names[name].append((order, steps, values, times))

    def go_back(self, order: int, step: int) -> None:
        """From here on, what was logged before after `step` does not count."""
        self.orders.append(order)
        self.resumes.append(step)

    def series(self) -> dict[str, Series]:
        # Going back twice leaves what the lower of the two leaves: a point's limit is the minimum of all later ones.
        limits = np.minimum.accumulate(np.array(self.resumes[::-1], np.int64))[::-1] if self.resumes else np.zeros(0)
        limits = np.append(limits, np.iinfo(np.int64).max)
        found: dict[str, Series] = {}
        for name, parts in self.names.items():
            order, steps, values, times = (np.concatenate(column) for column in zip(*parts, strict=True))
            kept = steps <= limits[np.searchsorted(self.orders, order)]
            sequence = np.argsort(order[kept], kind="stable")
            found[name] = Series(*(column[kept][sequence] for column in (steps, values, times)))
        return found


def _read_lines(folder: Path) -> History:
    path = folder / "metrics.jsonl"
    points, problems = Points(), list[str]()
    number = 1
    with path.open("rb") as file:
        while block := file.read(_BLOCK) + file.readline():
            if not _add_table(block, number, points):
                _add_lines(path, block, number, points, problems)
            number += block.count(b"\n")
    return History(folder, points.series(), tuple(points.resumes), problems)


def _add_table(block: bytes, number: int, points: Points) -> bool:
    """Arrow's reader, several times as fast as a line at a time. False for a block that needs care: it knows no
    difference between null and absent, and takes a torn line for the end of everything."""
    if b"null" in block:
        return False
    try:
        table = pyarrow.json.read_json(pa.BufferReader(block), pyarrow.json.ReadOptions(block_size=2 * len(block)))
    except pa.ArrowInvalid:
        return False
    numeric = all(pa.types.is_floating(kind) or pa.types.is_integer(kind) for kind in table.schema.types)
    if not numeric or table.num_rows != block.count(b"\n") or "step" not in table.column_names:
        return False
    columns = {name: table.column(name).to_numpy() for name in table.column_names}  # NaN where absent
    order = np.arange(number, number + table.num_rows)
    back = columns.get("resumed_at", np.full(len(order), np.nan))
    if not (np.isnan(back) ^ np.isnan(columns["step"])).all():  # each line says one of the two
        return False
    for line in np.flatnonzero(~np.isnan(back)):
        points.go_back(int(order[line]), int(back[line]))
    times = columns.get("time", np.full(len(order), np.nan))
    for name, values in columns.items():
        if name not in _FACTS:
            there = ~np.isnan(values)
            steps = columns["step"][there].astype(np.int64)
            points.add(name, order[there], steps, values[there].astype(np.float64), times[there].astype(np.float64))
    return True


def _add_lines(path: Path, block: bytes, number: int, points: Points, problems: list[str]) -> None:
    """A line at a time, and those that have the same metrics as one table."""
    tables: dict[tuple[str, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for line, text in enumerate(block.split(b"\n")[: block.count(b"\n") + (not block.endswith(b"\n"))], start=number):
        try:
            record = json.loads(text)
        except ValueError:
            problems.append(f"{path}:{line}: torn line passed over: {_shown(text)}")
            continue
        back = record.get("resumed_at") if isinstance(record, dict) else None
        if isinstance(back, int):
            points.go_back(line, back)
        elif not isinstance(record, dict) or not isinstance(record.get("step"), int):
            problems.append(f"{path}:{line}: no step, passed over: {_shown(text)}")
        else:
            tables[tuple(record)].append((line, *record.values()))
    for names, rows in tables.items():
        try:
            table = np.array(rows, np.float64)  # None becomes NaN
        except (TypeError, ValueError):
            table = np.array([[_number(path, row[0], value, problems) for value in row] for row in rows])
        columns = dict(zip(names, table.T[1:], strict=True))
        order, steps = table[:, 0].astype(np.int64), columns["step"].astype(np.int64)
        times = columns.get("time", np.full(len(table), np.nan))
        for name, values in columns.items():
            if name not in _FACTS:
                points.add(name, order, steps, values, times)


def _shown(text: bytes) -> str:
    return ascii(text[:60].decode("utf-8", "replace"))


def _number(path: Path, line: int, value: Any, problems: list[str]) -> float:
    if value is None or isinstance(value, (int, float)):
        return float("nan") if value is None else float(value)
    problems.append(f"{path}:{line}: found {value!r}, expected a number or null")
    return float("nan")
