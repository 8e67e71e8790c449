"""metrics.jsonl of a run folder: one JSON object a line, as `training.metrics.MetricLog` writes them.

A line that a killed process has torn costs only itself; `{"resumed_at": step}` takes back what was logged after it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from tts_kernel.recovery.history import History, Points

_BLOCK = 4 << 20  # bytes of lines that are parsed at a time
_NULL = -np.finfo(np.float64).max  # stands for null where a block is read as a table
_FACTS = ("step", "time", "resumed_at")  # of a line, beside its metrics


def read_json_lines(folder: Path) -> History:
    """Of a run folder."""
    path = folder / "metrics.jsonl"
    points, problems = Points(), list[str]()
    number = 1
    with path.open("rb") as file:
        while block := file.read(_BLOCK) + file.readline():
            if not _add_table(block, number, points):
                _add_lines(path, block, number, points, problems)
            number += block.count(b"\n")
    return points.history(folder, problems)


def _add_table(block: bytes, number: int, points: Points) -> bool:
    """Arrow's reader, several times as fast as a line at a time. It knows no difference between null and absent, so it
    is handed a number that no metric has for null. False for a block that needs care: it takes a torn line for the end
    of everything."""
    block = block.replace(b": null", b": " + str(_NULL).encode())
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
    if (columns["step"] == _NULL).any():
        return False
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
            finite = np.where(values == _NULL, np.nan, values)[there].astype(np.float64)
            points.add(name, order[there], steps, finite, times[there].astype(np.float64))
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
