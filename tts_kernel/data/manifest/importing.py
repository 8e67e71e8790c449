"""JSON lines -> checked columns: parsed in pieces by two threads, every bad line named, memory bounded.

A path column that follows from another one (`codes/<target_id>.npy`) is kept as its rule. Pieces are put down in
temporary files and joined at the end, when the types and rules that hold for all of them are known.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.manifest.cache import Digest
from tts_kernel.data.manifest.fields import FEW_VALUES, OPTIONAL, REQUIRED, SPELLINGS, PathRule, Problem, Problems
from tts_kernel.data.manifest.jsonl import CHUNK, Chunk, from_values, parse, read_chunks
from tts_kernel.data.string_keys import string_keys

KEY = "_key"  # uint64 of the id: data/string_keys.py
LINE = "_line"  # number of the row's line, only in a manifest where row + 1 is not it
_KNOWN = REQUIRED | OPTIONAL | {old: OPTIONAL[new] for old, new in SPELLINGS.items()}
_OUTSIDE = r"^\s*$|^[/\\~]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|[\x00-\x1f]"  # no path, an absolute one, one that climbs
_NO_NAME = r"[/\\\x00-\x1f]|\.\."  # may be no plain file name
_THREADS = 2
_IN_MEMORY = 4 * CHUNK  # bytes of a source whose pieces need no temporary files


@dataclass
class Piece:
    """The rows of one chunk, in memory or, of a large source, in a file of which columns are read one by one."""

    stored: pa.Table | Path
    schema: pa.Schema
    rows: int
    rules: dict[str, PathRule] = field(default_factory=dict)  # of the path columns that are not stored
    problems: list[Problem] = field(default_factory=list)
    moved: bool = False  # whether line numbers are other than first line + row
    kept: np.ndarray | None = None  # (stored rows,) bool, once rows were left out

    def table(self, names: list[str]) -> pa.Table:
        """Stored columns."""
        if isinstance(self.stored, Path):
            with pa.memory_map(str(self.stored)) as file:  # for as long as the columns are held
                table = pa.ipc.open_file(file).read_all().select(names)
        else:
            table = self.stored.select(names)
        return table if self.kept is None else table.filter(pa.array(self.kept))

    def column(self, name: str) -> pa.ChunkedArray:
        return self.table([name]).column(name)


@dataclass
class Imported:
    """All rows of a source, not yet joined."""

    pieces: list[Piece]
    problems: Problems
    digest: str


def import_lines(source: Path, scratch: Path) -> Imported:
    """Read and check every line; lines that cannot be used are left out and named. `scratch` is a folder for the
    pieces of a large source, removed by the caller once they are joined."""
    digest, problems = Digest(), Problems()
    spill = source.stat().st_size > _IN_MEMORY
    pieces: list[Piece] = []
    waiting: deque[Future[Piece]] = deque()

    def collect() -> None:
        piece = waiting.popleft().result()
        problems.add(piece.problems)
        piece.problems = []
        pieces.append(piece)

    with ThreadPoolExecutor(_THREADS) as pool:
        for number, chunk in enumerate(read_chunks(source, digest.update)):
            place = scratch / f"{number:06d}.arrow" if spill else None
            rules = pieces[0].rules if pieces else {}
            waiting.append(pool.submit(_piece, chunk, rules, place))
            if not pieces or len(waiting) > _THREADS:  # the first one finds the rules
                collect()
        while waiting:
            collect()
    _drop_duplicates(pieces, problems)
    if not problems and not any(piece.rows for piece in pieces):
        problems.add([Problem(0, "no rows", "no rows; expected one JSON object per line")])
    return Imported(pieces, problems, digest.value())


def _piece(chunk: Chunk, rules: dict[str, PathRule], place: Path | None) -> Piece:
    if chunk.too_long:
        message = f"{chunk.too_long:,} bytes in one line, expected at most {CHUNK:,}: one JSON object per line"
        empty = pa.table({})
        return Piece(empty, empty.schema, 0, problems=[Problem(chunk.line, "too long", message)], moved=True)
    table, lines, problems = _parsed(chunk)
    table = _one_spelling(table)
    found = _rules(table, rules)
    bad = np.zeros(len(lines), dtype=bool)
    for row, problem in _unusable(table, lines, found):
        problems.append(problem)
        bad[row] |= problem.reason != "outside"
    moved = bool(bad.any()) or not np.array_equal(lines, np.arange(chunk.line, chunk.line + len(lines)))
    if bad.any():
        table, lines = table.filter(pa.array(~bad)), lines[~bad]
    table = _compact(table.drop_columns(list(found)))
    table = table.append_column(KEY, pa.array(string_keys(table.column("id"))))
    table = table.append_column(LINE, pa.array(lines.astype(np.int64)))
    stored: pa.Table | Path = table
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(place), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        stored = place
    return Piece(stored, table.schema, table.num_rows, found, problems, moved)


def _parsed(chunk: Chunk) -> tuple[pa.Table, np.ndarray, list[Problem]]:
    """Columns, each row's line number, and the lines that could not be parsed."""
    try:
        table = parse(chunk.data, _KNOWN)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _line_by_line(chunk)
    if not _one_object_a_line(chunk.data, table.num_rows):
        return _line_by_line(chunk)
    return table, np.arange(chunk.line, chunk.line + table.num_rows), []


def _one_object_a_line(data: bytes, rows: int) -> bool:
    """Whether row n is line n: no blank line, not two objects in one line, nor one in two."""
    characters = np.frombuffer(data, np.uint8)
    last = np.flatnonzero(characters == ord("\n")) - 1  # of each line
    first = np.append(0, last + 2)
    if not data.endswith(b"\n"):
        last = np.append(last, len(data) - 1)
    first, last = first[: len(last)], np.maximum(last, 0)
    last = last - (characters[last] == ord("\r"))
    return rows == len(last) and bool((characters[first] == ord("{")).all() and (characters[last] == ord("}")).all())


def _line_by_line(chunk: Chunk) -> tuple[pa.Table, np.ndarray, list[Problem]]:
    """The slow way, taken only for a chunk with a line that is not as it should be: which, and why."""
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    problems: list[Problem] = []
    texts = chunk.data.split(b"\n")
    for number, line in enumerate(texts, start=chunk.line):
        if not line.strip():
            continue
        try:
            values = json.loads(line.decode("utf-8"))
            json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair is JSON but no text
        except UnicodeError as error:
            problems.append(Problem(number, "encoding", f"not JSON: {error}; expected UTF-8"))
            continue
        except (ValueError, RecursionError) as error:
            cut = number == chunk.line + len(texts) - 1  # no newline after it: only a file's last line can lack it
            hint = "; the file ends within this line, fetch or write it again" if cut else ""
            problems.append(Problem(number, "not json", f"not JSON: {error}{hint}"))
            continue
        if not isinstance(values, dict):
            problems.append(Problem(number, "not json", f"a JSON {type(values).__name__}, expected an object"))
            continue
        wrong = _wrong_types(number, values)
        if wrong:
            problems += wrong + [
                Problem(number, "missing field", f"no field {name!r}") for name in REQUIRED if values.get(name) is None
            ]
            continue
        rows.append(values)
        lines.append(number)
    names = dict.fromkeys([*_KNOWN, *(name for values in rows for name in values)])
    columns = {
        name: pa.array([values.get(name) for values in rows], _KNOWN[name])
        if name in _KNOWN
        else from_values([values.get(name) for values in rows])
        for name in names
    }
    return pa.table(columns), np.array(lines, dtype=np.int64), problems


def _wrong_types(number: int, values: dict[str, Any]) -> list[Problem]:
    problems = []
    for name, value in values.items():
        kind = {pa.string(): str, pa.int64(): int}.get(_KNOWN.get(name))
        if kind and value is not None and type(value) is not kind:
            problems.append(Problem(number, "wrong type", f"{name} is {value!r}, expected {kind.__name__}"))
        elif kind is int and value is not None and abs(value) >= 1 << 31:
            problems.append(Problem(number, "length", f"{name} is {value}, expected less than {1 << 31}"))
    return problems


def _one_spelling(table: pa.Table) -> pa.Table:
    for old, new in SPELLINGS.items():
        merged = pc.coalesce(table.column(new), table.column(old))
        table = table.set_column(table.column_names.index(new), new, merged)
    return table.drop_columns(list(SPELLINGS))


def _unusable(table: pa.Table, lines: np.ndarray, rules: dict[str, PathRule]) -> Iterator[tuple[int, Problem]]:
    """(row, problem) of every field that is missing, no length, or no path inside the data folder."""
    plain = {key for key in {rule.key for rule in rules.values()} if not _matches(table.column(key), _NO_NAME).any()}
    for name in REQUIRED:
        for row in np.flatnonzero(table.column(name).is_null().to_numpy()).tolist():
            yield row, Problem(int(lines[row]), "missing field", f"no field {name!r}")
    for name in ("id", "target_id", "prompt_id"):
        for row in np.flatnonzero(pc.fill_null(pc.equal(table.column(name), ""), False).to_numpy()).tolist():
            yield row, Problem(int(lines[row]), "missing field", f"{name} is empty, expected a name")
    for name in table.column_names:
        column = table.column(name)
        if name in rules and rules[name].key in plain and re.match(r"\w+/", rules[name].prefix):
            continue  # a plain name in a folder
        if name.endswith("_path") and pa.types.is_string(column.type):
            for row in outside(column):
                yield row, Problem(int(lines[row]), "outside", outside_message(name, column[row].as_py()))
        elif name.endswith("_len") and pa.types.is_integer(column.type):
            wrong = pc.or_(pc.less(column, 1), pc.greater_equal(column, 1 << 31))
            for row in np.flatnonzero(pc.fill_null(wrong, False).to_numpy()).tolist():
                value = column[row].as_py()
                expected = "at least 1" if value < 1 else f"less than {1 << 31}"
                yield row, Problem(int(lines[row]), "length", f"{name} is {value}, expected {expected}")


def outside(column: pa.ChunkedArray) -> list[int]:
    """Rows whose path leaves the manifest's folder."""
    return np.flatnonzero(_matches(column, _OUTSIDE)).tolist()


def outside_message(name: str, path: str) -> str:
    return f"{name} is {path!r}, expected a path inside the manifest's folder"


def _matches(column: pa.ChunkedArray, pattern: str) -> np.ndarray:
    return pc.fill_null(pc.match_substring_regex(column, pattern), False).to_numpy()


def _compact(table: pa.Table) -> pa.Table:
    """Empty optional columns gone, lengths in 32 bits, text with 64-bit offsets, few-valued text by reference."""
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if name not in REQUIRED and column.null_count == len(column):
            continue
        if name.endswith("_len") and pa.types.is_integer(column.type):
            column = column.cast(pa.int32())
        elif pa.types.is_string(column.type):
            column = column.cast(pa.large_string())
            if name in FEW_VALUES:
                column = column.dictionary_encode()
        columns[name] = column
    return pa.table(columns)


def _rules(table: pa.Table, first: dict[str, PathRule]) -> dict[str, PathRule]:
    """The path columns that follow from another one, by the first piece's rule or one found here."""
    found = {}
    for name in table.column_names:
        column = table.column(name)
        if not name.endswith("_path") or not pa.types.is_string(column.type) or column.null_count == len(column):
            continue
        rule = first.get(name) or _guess(table, name)
        if rule is not None and column.equals(follow(rule, table).cast(pa.string())):
            found[name] = rule
    return found


def _guess(table: pa.Table, name: str) -> PathRule | None:
    column, partner = table.column(name), name.removesuffix("_path") + "_len"
    where = ""
    if partner in table.column_names and partner not in REQUIRED:
        where = partner
    row = pc.index(column.is_valid(), True).as_py()
    for key in ("target_id", "prompt_id", "id"):
        path, value = column[row].as_py(), table.column(key)[row].as_py()
        if value in path:
            prefix, suffix = path.split(value, 1)
            return PathRule(prefix, key, suffix, where)
    return None


def follow(rule: PathRule, table: pa.Table) -> pa.ChunkedArray:
    """The column that a rule stands for."""
    text = pa.large_string()
    path = pc.binary_join_element_wise(
        pa.scalar(rule.prefix, text),
        table.column(rule.key).cast(text),
        pa.scalar(rule.suffix, text),
        pa.scalar("", text),
    )
    return pc.if_else(table.column(rule.where).is_valid(), path, pa.scalar(None, text)) if rule.where else path


def _drop_duplicates(pieces: list[Piece], problems: Problems) -> None:
    """Leave out every row whose id an earlier one has."""
    filled = [piece for piece in pieces if piece.rows]
    keys = np.concatenate([np.empty(0, np.uint64), *(piece.column(KEY).to_numpy() for piece in filled)])
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    if not len(same):
        return
    starts = np.cumsum([0, *(piece.rows for piece in filled)])
    rows = np.unique(order[np.concatenate([same, same + 1])])  # whose key occurs twice, in the source's order
    first: dict[str, int] = {}  # line of each of their ids
    for number, piece in enumerate(filled):
        own = rows[(rows >= starts[number]) & (rows < starts[number + 1])] - starts[number]
        if not len(own):
            continue
        kept = np.ones(piece.rows, dtype=bool)
        for row, values in zip(own, piece.table(["id", LINE]).take(own).to_pylist(), strict=True):
            name, line = values["id"], values[LINE]
            if name in first:
                message = f"id {name!r} is also that of line {first[name]}; make them different"
                problems.add([Problem(line, "duplicate id", message)])
                kept[row] = False
            else:
                first[name] = line
        if not kept.all():
            piece.kept, piece.rows, piece.moved = kept, int(kept.sum()), True
