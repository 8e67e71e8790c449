"""What every importer has in common: rows come in as columns, leave as a checked table, and every drop is counted.

A path from a corpus may not leave its folder unless the caller allows it. Symbolic links inside the folder are
followed: whoever put them there arranged the folder (data/corpora/walk.py is stricter where links are the data).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.corpora.probe import probe
from tts_kernel.data.corpora.table import (
    EXAMPLES,
    TEXT,
    Account,
    Imported,
    Utterances,
    complete,
    first_of_each,
    with_headers,
)
from tts_kernel.data.corpora.walk import is_utf8

log = logging.getLogger(__name__)

T = TypeVar("T")

_UNUSABLE = r"^\s*$|[\x00-\x1f\\]"  # as data/files.py `inside` has it
_OUTSIDE = r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|^\.$"
_FEW = 20_000  # paths looked up one by one; for more of them whole folders are listed
_PART = 4096  # small files that are read and parsed together
_BATCH = 100_000  # names of files that are Python objects at the same time


class Options(TypedDict, total=False):
    """What every importer takes by keyword."""

    allow_outside: bool  # accept absolute paths and `..` that leave the corpus folder; default False
    check_files: bool  # drop clips whose audio file is missing; default True
    probe: bool  # open every audio file for its duration and sample rate, drop what is unreadable; default False
    workers: int | None  # threads that open files
    speaker: str  # of the clips whose source names none
    language: str  # of the clips whose source names none


class Collector:
    """Rows of one corpus on their way into the common table."""

    def __init__(
        self,
        root: Path,
        account: Account,
        *,
        allow_outside: bool = False,
        check_files: bool = True,
        probe: bool = False,
        workers: int | None = None,
        speaker: str = "",
        language: str = "",
    ) -> None:
        self.root, self.account = root, account
        self.allow_outside, self.check_files, self.probe, self.workers = allow_outside, check_files, probe, workers
        self.unknown = {"speaker": speaker, "language": language}
        self.prefixes = sorted({f"{root.absolute()}/", f"{root.resolve()}/"})
        self.hint = ""  # said of a file that is missing or outside
        self._parts: list[pa.Table] = []
        self._files: list[str] = []

    def add(
        self,
        columns: Mapping[str, pa.Array | pa.ChunkedArray],
        lines: np.ndarray | None = None,
        file: Path | None = None,
    ) -> None:
        """Rows already counted as read. `lines` are their numbers in `file`; without them a row is known by its audio.
        Without an `id` column clips get the names of their files."""
        table = pa.table(dict(columns))
        numbers = np.zeros(table.num_rows, dtype=np.int64) if lines is None else lines
        table = table.append_column("_line", pa.array(numbers)).append_column("_file", self._number(file, len(numbers)))
        for name in {"id", "audio", "text", "speaker", "language"} & set(table.column_names):
            trimmed = pc.utf8_trim_whitespace(table.column(name).cast(TEXT).fill_null(self.unknown.get(name, "")))
            if self.unknown.get(name):
                trimmed = pc.if_else(pc.equal(trimmed, ""), self.unknown[name], trimmed)
            table = table.set_column(table.column_names.index(name), name, trimmed)
        if "duration" in table.column_names:
            table = _without_nonsense(table)
        table = self._inside(table)
        if "id" in table.column_names:
            table = self._drop(table, _mask(pc.equal(table.column("id"), "")), "no id", lambda row: "the id is empty")
        table = self._drop(
            table, _mask(pc.equal(table.column("text"), "")), "empty text", lambda row: f"{row['audio']} has no text"
        )
        self._parts.append(table)

    def finish(self) -> Imported:
        """The table of all rows that are usable: files exist (and are readable when probing), ids are unique."""
        if not self._parts:
            empty = pa.array([], TEXT)
            self.add({"id": empty, "audio": empty, "text": empty})
        table = pa.concat_tables(self._parts, promote_options="default")
        self._parts = []
        if self.check_files:
            found = existing(self.root, table.column("audio"))
            missing = "missing audio"
            table = self._drop(table, ~found, missing, lambda row: f"{row['audio']} does not exist{self.hint}")
        if "id" not in table.column_names:
            first = first_of_each(table.column("audio"))
            table = self._drop(table, ~first, "duplicate id", lambda row: f"{row['audio']} occurs before")
            table = table.append_column("id", names_of_files(table.column("audio")))
        table = self._probed(table) if self.probe else table
        first = first_of_each(table.column("id"))
        table = self._drop(table, ~first, "duplicate id", lambda row: f"id {row['id']!r} occurs before")
        table = table.drop_columns(["_line", "_file"])
        for name, value in self.unknown.items():
            if value and name not in table.column_names:
                table = table.append_column(name, pa.repeat(pa.scalar(value, TEXT), table.num_rows))
        self.account.kept = table.num_rows
        return Imported(Utterances(complete(table), self.root), self.account)

    def _number(self, file: Path | None, rows: int) -> pa.Array:
        name = str(file or "")
        if not self._files or self._files[-1] != name:
            self._files.append(name)
        return pa.array(np.full(rows, len(self._files) - 1, dtype=np.int32))

    def _inside(self, table: pa.Table) -> pa.Table:
        audio = table.column("audio")
        for prefix in self.prefixes:  # an absolute path that stays inside may as well be relative
            within = pc.starts_with(audio, prefix)
            if pc.any(within).as_py():
                audio = pc.if_else(within, pc.utf8_slice_codeunits(audio, len(prefix)), audio)
        table = table.set_column(table.column_names.index("audio"), "audio", audio)
        unusable = _mask(pc.match_substring_regex(audio, _UNUSABLE))
        table = self._drop(
            table, unusable, "bad path", lambda row: f"{row['audio']!r} is no path with '/' between its parts"
        )
        if self.allow_outside:
            return table
        outside = _mask(pc.match_substring_regex(table.column("audio"), _OUTSIDE))
        return self._drop(
            table,
            outside,
            "outside",
            lambda row: f"{row['audio']!r} leaves {self.root}; allow_outside accepts it{self.hint}",
        )

    def _probed(self, table: pa.Table) -> pa.Table:
        heads = probe([self.root / path for path in table.column("audio").to_pylist()], self.workers)
        unreadable = np.zeros(table.num_rows, dtype=bool)
        unreadable[list(heads.problems)] = True
        table = with_headers(complete(table), np.arange(table.num_rows), heads.seconds, heads.rates)
        reasons = iter(heads.problems.values())  # in the order of the rows, as are the examples
        return self._drop(table, unreadable, "unreadable audio", lambda row: f"{row['audio']}: {next(reasons)}")

    def _drop(
        self, table: pa.Table, bad: np.ndarray, reason: str, detail: Callable[[dict[str, object]], str]
    ) -> pa.Table:
        """The table without the bad rows, which are counted."""
        if not bad.any():
            return table
        rows = table.take(pa.array(np.flatnonzero(bad)[:EXAMPLES])).to_pylist()
        said = (f"{self._place(row)}{detail(row)}" for row in rows)
        self.account.drop(reason, int(bad.sum()), said)
        return table.filter(pa.array(~bad))

    def _place(self, row: dict[str, object]) -> str:
        return f"{self._files[int(str(row['_file']))]}:{row['_line']}: " if row["_line"] else ""


def _without_nonsense(table: pa.Table) -> pa.Table:
    """Durations that are none are unknown."""
    seconds = table.column("duration").cast(pa.float64())
    good = pc.and_(pc.is_finite(seconds), pc.greater_equal(seconds, 0.0))
    seconds = pc.if_else(good, seconds, pa.scalar(None, pa.float64()))
    return table.set_column(table.column_names.index("duration"), "duration", seconds)


def _mask(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    values = pc.fill_null(values, False)
    return values.to_numpy() if isinstance(values, pa.ChunkedArray) else values.to_numpy(zero_copy_only=False)


def existing(root: Path, paths: pa.ChunkedArray) -> np.ndarray:
    """(paths,) bool: which are files. Many paths are looked up in listings of their folders: a listing costs far less
    than asking for its files one by one, most of all on a cold or remote disk."""
    if len(paths) <= _FEW:
        return np.array([os.path.isfile(root / path) for path in paths.to_pylist()], dtype=bool)
    parents = pc.unique(pc.replace_substring_regex(paths, r"/?[^/]*$", ""))
    names = pa.chunked_array([part for parent in parents.to_pylist() for part in _files_in(root, parent)], TEXT)
    found = pc.is_in(paths, value_set=names).to_numpy().copy()
    for row in np.flatnonzero(~found)[:_FEW]:  # a path spelt in a way that a listing does not have
        found[row] = os.path.isfile(root / paths[int(row)].as_py())
    return found


def _files_in(root: Path, parent: str) -> Iterator[pa.Array]:
    batch: list[str] = []
    start = f"{parent}/" if parent else ""
    try:
        with os.scandir(root / parent) as entries:
            for entry in entries:
                if entry.is_file():
                    batch.append(start + entry.name)
                if len(batch) == _BATCH:
                    yield _utf8(batch)
                    batch = []
    except OSError:  # no such folder: none of its files exist
        return
    yield _utf8(batch)


def _utf8(names: list[str]) -> pa.Array:
    try:
        return pa.array(names, TEXT)
    except UnicodeEncodeError:  # bytes that are no UTF-8 come as surrogates; no text can name such a file
        return pa.array([name for name in names if is_utf8(name)], TEXT)


def names_of_files(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids for clips that have none: the file's name without its suffix; if two clips share one, the whole path with
    `_` between its parts, for all of them."""
    whole = pc.replace_substring_regex(paths, r"\.[^./]*$", "")
    short = pc.replace_substring_regex(whole, r"^.*/", "")
    if first_of_each(short).all():
        return short
    log.info("file names repeat in different folders: ids are made of whole paths")
    return pc.replace_substring(whole, "/", "_")


def in_parts(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of a few thousand."""
    part: list[T] = []
    for item in items:
        part.append(item)
        if len(part) == _PART:
            yield part
            part = []
    if part:
        yield part
