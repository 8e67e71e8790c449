"""Prompt/target pairs as columns: read, checked and written in the guide's JSON-lines schema.

The schema is documented in data/demo.py. No row becomes a Python object on the way to a batch.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from tts_kernel.runs import write_atomically

REQUIRED = {
    "id": pa.string(),
    "target_id": pa.string(),
    "prompt_id": pa.string(),
    "speaker": pa.string(),
    "target_text_ids_path": pa.string(),
    "target_text_len": pa.int64(),
    "target_codes_path": pa.string(),
    "target_code_len": pa.int64(),
}
OPTIONAL = {
    "language": pa.string(),
    "style": pa.string(),
    "prompt_condition_path": pa.string(),
    "prompt_condition_len": pa.int64(),
    "prompt_emo_vec_path": pa.string(),
    "target_audio_path": pa.string(),
    "prompt_audio_path": pa.string(),
    "target_mel_path": pa.string(),
    "target_mel_len": pa.int64(),
    "target_semantic_path": pa.string(),
    "target_semantic_len": pa.int64(),
    "prompt_semantic_path": pa.string(),
    "prompt_semantic_len": pa.int64(),
}
_SPELLINGS = {"prompt_mel_path": "target_mel_path", "prompt_mel_len": "target_mel_len"}  # the guide has both
_OUTSIDE = r"^\s*$|^[/\\~]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)"  # no path, an absolute one, or one that climbs
_SHOWN = 20  # problems listed by name; the rest is counted


class ManifestError(ValueError):
    """Lines of a manifest that cannot be used, all of them, as `file:line: reason`."""

    def __init__(self, problems: list[str]) -> None:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        super().__init__("\n".join(problems[:_SHOWN]) + more)
        self.problems = problems


@dataclass(frozen=True)
class Manifest:
    """The rows of one JSON-lines file, in its order. Paths in it are relative to `root`."""

    table: pa.Table
    path: Path

    @property
    def root(self) -> Path:
        return self.path.parent

    def __len__(self) -> int:
        return self.table.num_rows

    def __contains__(self, column: str) -> bool:
        return column in self.table.column_names

    def strings(self, column: str) -> pa.ChunkedArray:
        return self.table.column(column)

    def numbers(self, column: str) -> np.ndarray:
        """An integer column, nulls as -1."""
        return self.table.column(column).fill_null(-1).to_numpy()

    def has(self, column: str) -> np.ndarray:
        """(rows,) bool: where the column is filled."""
        if column not in self:
            return np.zeros(len(self), dtype=bool)
        return self.table.column(column).is_valid().to_numpy()

    def take(self, rows: np.ndarray) -> Manifest:
        return Manifest(self.table.take(pa.array(rows)), self.path)


def read_manifest(path: Path) -> Manifest:
    """Read a JSON-lines manifest. Raises ManifestError listing every bad line: no JSON, a required field missing or
    of another type, a path that leaves the manifest's folder."""
    if not path.is_file():
        raise ManifestError([f"{path}: not found; expected a manifest of pairs, one JSON object per line"])
    expected = REQUIRED | OPTIONAL | {old: OPTIONAL[new] for old, new in _SPELLINGS.items()}
    try:
        table = _read_json(path, expected)
        dates = [name for name in table.column_names if pa.types.is_temporal(table.schema.field(name).type)]
        if dates:  # a field that is not ours and looks like a date stays the text it is
            table = _read_json(path, expected | dict.fromkeys(dates, pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        problems = _bad_lines(path, expected) or [f"{path}: {error}; expected one JSON object per line"]
        raise ManifestError(problems) from error
    if table.num_rows == 0:
        raise ManifestError([f"{path}: no rows; expected one JSON object per line"])
    table = _one_spelling(table).combine_chunks()  # a row is looked up in one chunk, not searched in thousands
    problems = [
        f"{path}:{row + 1}: no field {name!r}"
        for name in REQUIRED
        for row in np.flatnonzero(table.column(name).is_null().to_numpy())
    ]
    for name in table.column_names:
        if name.endswith("_path"):
            outside = pc.fill_null(pc.match_substring_regex(table.column(name), _OUTSIDE), False).to_numpy()
            problems += [
                f"{path}:{row + 1}: {name} is {table.column(name)[int(row)].as_py()!r}, expected a path inside "
                f"{path.parent}"
                for row in np.flatnonzero(outside)
            ]
        elif name.endswith("_len"):
            wrong = pc.fill_null(pc.less(table.column(name), 1), False).to_numpy()
            problems += [
                f"{path}:{row + 1}: {name} is {table.column(name)[int(row)].as_py()}, expected at least 1"
                for row in np.flatnonzero(wrong)
            ]
    if problems:
        raise ManifestError(sorted(problems, key=lambda text: int(text.removeprefix(f"{path}:").split(":")[0])))
    empty = [name for name in OPTIONAL if table.column(name).null_count == table.num_rows]
    return Manifest(table.drop_columns(empty), path)


def _read_json(path: Path, schema: dict[str, pa.DataType]) -> pa.Table:
    options = pyarrow.json.ParseOptions(explicit_schema=pa.schema(list(schema.items())), newlines_in_values=False)
    table = pyarrow.json.read_json(path, parse_options=options)
    table.validate(full=True)  # Arrow reads text that is not UTF-8 without a word
    return table


def _one_spelling(table: pa.Table) -> pa.Table:
    for old, new in _SPELLINGS.items():
        merged = pc.coalesce(table.column(new), table.column(old))
        table = table.set_column(table.column_names.index(new), new, merged)
    return table.drop_columns(list(_SPELLINGS))


def _bad_lines(path: Path, expected: dict[str, pa.DataType]) -> list[str]:
    """The slow way, taken only when the file is known to be bad: which lines, and why."""
    problems = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line.decode("utf-8-sig"))  # not UTF-8 is a ValueError, too
            except ValueError as error:
                problems.append(f"{path}:{number}: not JSON: {error}")
                continue
            if not isinstance(values, dict):
                problems.append(f"{path}:{number}: a JSON {type(values).__name__}, expected an object")
                continue
            problems += [f"{path}:{number}: no field {name!r}" for name in REQUIRED if name not in values]
            for name, value in values.items():
                kind = {pa.string(): str, pa.int64(): int}.get(expected.get(name))
                if kind and value is not None and type(value) is not kind:
                    problems.append(f"{path}:{number}: {name} is {value!r}, expected {kind.__name__}")
    return problems


def write_manifest(manifest: Manifest, path: Path) -> None:
    """JSON lines with the fields that each row has, written atomically, a few thousand rows at a time."""
    rows = (row for part in manifest.table.to_batches(max_chunksize=4096) for row in part.to_pylist())
    present = ({name: value for name, value in row.items() if value is not None} for row in rows)
    write_atomically(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in present))


def digest(manifest: Manifest, rows: np.ndarray) -> int:
    """Checksum of the ids of `rows` in this order: equal only if they are the same pairs in the same order."""
    ids = manifest.strings("id").take(pa.array(rows))
    return zlib.crc32("\n".join(ids.to_pylist()).encode())


def missing_files(manifest: Manifest, columns: Iterable[str], rows: np.ndarray) -> list[str]:
    """`file:line: path does not exist` for the files that these rows name in these columns."""
    problems = []
    for name in columns:
        for row in rows:
            value = manifest.table.column(name)[int(row)].as_py()
            if value is not None and not (manifest.root / value).is_file():
                problems.append(f"{manifest.path}:{row + 1}: {name}: {value} does not exist")
    return problems
