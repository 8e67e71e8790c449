"""Metrics in tables (.csv): a column for each, or one row for each value, or TensorBoard's export of one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from tts_kernel.recovery.history import History, Points
from tts_kernel.recovery.names import house_name

_STEPS = ("step", "global_step", "iteration", "steps")
_TIMES = ("time", "wall time", "wall_time", "timestamp")
_NAMES = ("metric", "name", "tag", "key")
_VALUES = ("value", "values")
_RESTARTS = 0.02  # of the rows that may go back; of more it is no run that was restarted, but a table in another order


def find_tables(path: Path) -> list[Path]:
    """The tables that `path` is or holds, by name."""
    if path.is_file():
        return [path] if path.suffix.lower() in (".csv", ".tsv") else []
    return sorted(file for file in path.glob("*") if file.is_file() and file.suffix.lower() in (".csv", ".tsv"))


def read_tables(path: Path, files: list[Path]) -> History:
    """The first line names the columns: one is the step, one may be the time. An empty cell is no value, nan is one
    that was not finite. A table in another order than that of the steps is put in it."""
    points, problems = Points(), list[str]()
    for file in files:
        try:
            _add_table(file, points, problems)
        except (OSError, pa.ArrowInvalid, KeyError) as error:  # KeyError: two columns of one name
            problems.append(f"{file}: cannot be read as a table ({error})")
    return points.history(path, problems)


def _add_table(file: Path, points: Points, problems: list[str]) -> None:
    table = _read(file, problems)
    columns = {name.strip().lower(): name for name in table.column_names}
    step, time, name, value = (_first(columns, known) for known in (_STEPS, _TIMES, _NAMES, _VALUES))
    if step is None:
        problems.append(f"{file}: found columns {', '.join(table.column_names)}; expected one of {', '.join(_STEPS)}")
        return
    steps = _numbers(file, table, step, problems)
    whole = np.isfinite(steps) & (np.mod(steps, 1) == 0)
    if not whole.all():
        problems.append(f"{file}: {int((~whole).sum()):,} rows whose step is no whole number passed over")
    times = _times(table, time)
    if value is not None and len(columns) == 3 - (time is None):
        metrics = {_of_file(file): _numbers(file, table, value, problems)}
    elif value is not None and name is not None:
        values = _numbers(file, table, value, problems)
        codes = table.column(name).combine_chunks().dictionary_encode()
        of_row = codes.indices.fill_null(-1).to_numpy()
        if (of_row < 0).any():
            problems.append(f"{file}: {int((of_row < 0).sum()):,} rows without a name of the metric passed over")
        for code, metric in enumerate(codes.dictionary.to_pylist()):
            here = whole & (of_row == code)
            _add(file, str(metric), steps[here], values[here], times[here], points, problems)
        return
    else:
        metrics = {
            one: _numbers(file, table, one, problems) for one in table.column_names if one not in (step, time, "epoch")
        }
    for metric, values in metrics.items():
        here = whole & ~pc.is_null(table.column(value or metric)).to_numpy()
        _add(file, metric, steps[here], values[here], times[here], points, problems)


def _read(file: Path, problems: list[str]) -> pa.Table:
    """Rows with too few or too many cells are left out, each is a problem."""
    content = file.read_bytes()
    header = content.partition(b"\n")[0]
    delimiter = max(",;\t", key=lambda mark: header.count(mark.encode()))

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        problems.append(f"{file}:{row.number or '?'}: {row.actual_columns} cells, expected {row.expected_columns}")
        return "skip"

    return pyarrow.csv.read_csv(
        pa.BufferReader(content),
        pyarrow.csv.ReadOptions(block_size=len(content) + 1, use_threads=False),
        pyarrow.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
        pyarrow.csv.ConvertOptions(null_values=[""], strings_can_be_null=True),
    )


def _first(columns: dict[str, str], known: tuple[str, ...]) -> str | None:
    return next((columns[name] for name in known if name in columns), None)


def _numbers(file: Path, table: pa.Table, name: str, problems: list[str]) -> np.ndarray:
    """(rows,) float64, NaN where a cell is empty or no number; the latter is a problem."""
    column = table.column(name)
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type):
        return pc.cast(column, pa.float64()).to_numpy().copy()
    found, wrong = np.full(len(column), np.nan), list[str]()
    for row, text in enumerate(pc.cast(column, pa.string()).to_pylist()):
        try:
            found[row] = np.nan if text is None else float(text)
        except ValueError:
            wrong.append(text)
    if wrong:
        problems.append(f"{file}: column {name}: {len(wrong):,} cells are no number, such as {wrong[0]!r:.60}")
    return found


def _times(table: pa.Table, name: str | None) -> np.ndarray:
    """(rows,) seconds since the epoch, NaN where unknown."""
    if name is None:
        return np.full(table.num_rows, np.nan)
    column = table.column(name)
    try:
        if pa.types.is_timestamp(column.type):
            return pc.cast(pc.cast(column, pa.timestamp("ms")), pa.int64()).to_numpy() / 1000
        return pc.cast(column, pa.float64()).to_numpy().copy()
    except pa.ArrowInvalid:
        return np.full(table.num_rows, np.nan)


def _of_file(file: Path) -> str:
    """The metric that TensorBoard's export is named after: run-NAME-tag-train_text_loss.csv."""
    return file.stem.rpartition("tag-")[2]


def _add(
    file: Path,
    metric: str,
    steps: np.ndarray,
    values: np.ndarray,
    times: np.ndarray,
    points: Points,
    problems: list[str],
) -> None:
    backs = np.flatnonzero(np.diff(steps) < 0)
    if len(backs) and len(backs) > _RESTARTS * len(steps) + 3:
        order = np.argsort(steps[::-1] if len(backs) == len(steps) - 1 else steps, kind="stable")
        if len(backs) == len(steps) - 1:  # newest first
            order = len(steps) - 1 - order
        else:
            problems.append(f"{file}: {metric} goes back {len(backs):,} times in {len(steps):,} rows; sorted by step")
        steps, values, times = steps[order], values[order], times[order]
    else:
        for place in backs:
            points.note_resume(int(steps[place + 1]) - 1)
    name, factor = house_name(metric)
    before = sum(len(part[0]) for part in points.names[name])  # in other files
    points.add(name, before + np.arange(len(steps)), steps.astype(np.int64), factor * values, times)
