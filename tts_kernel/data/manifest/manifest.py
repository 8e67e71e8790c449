"""Prompt/target pairs as columns: opened from a memory-mapped cache, written back in the guide's JSON-lines schema.

The schema is documented in data/demo/corpus.py. A JSON-lines file is imported once (importing.py) and again when it
has changed. No row becomes a Python object on the way to a batch.
"""

from __future__ import annotations

import logging
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.manifest.cache import Digest, Stamp, load, open_columns, places, store
from tts_kernel.data.manifest.fields import ManifestError, PathRule, Problem, Problems
from tts_kernel.data.manifest.importing import KEY, LINE, follow, import_lines, outside, outside_message
from tts_kernel.data.manifest.joining import join
from tts_kernel.data.manifest.jsonl import encode

log = logging.getLogger(__name__)

_WRITTEN = 1 << 16  # rows that become text at once


@dataclass(frozen=True)
class Manifest:
    """The rows of one JSON-lines file, in its order. Paths in it are relative to `root`."""

    stored: pa.Table  # what lies in the cache; ask for columns by the methods below
    path: Path
    rules: Mapping[str, PathRule] = field(default_factory=dict)  # path columns that follow from another one
    place: Path | None = None  # file that `stored` is a memory map of, if it is one

    def __reduce__(self) -> tuple[Any, ...]:
        """To a worker process goes the file's name, not millions of rows."""
        rest = (self.path, self.rules, self.place)
        return (_opened, (self.stored.column_names, *rest)) if self.place else (Manifest, (self.stored, *rest))

    @property
    def root(self) -> Path:
        return self.path.parent

    @property
    def columns(self) -> list[str]:
        return [name for name in [*self.stored.column_names, *self.rules] if name not in (KEY, LINE)]

    def __len__(self) -> int:
        return self.stored.num_rows

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def strings(self, column: str) -> pa.ChunkedArray:
        """A text column; speaker, language and style are dictionaries."""
        return follow(self.rules[column], self.stored) if column in self.rules else self.stored.column(column)

    @property
    def digest(self) -> str:
        """Checksum of the file that the rows were read from."""
        return self._facts().get(b"source", b"").decode()

    @property
    def made_from(self) -> str:
        """What `write_manifest` was told; empty once the file was edited."""
        return self._facts().get(b"made_from", b"").decode()

    def _facts(self) -> dict[bytes, bytes]:
        return self.stored.schema.metadata or {}

    def numbers(self, column: str) -> np.ndarray:
        """(rows,) an integer column, nulls as -1."""
        values = self.stored.column(column)
        return (values.fill_null(-1) if values.null_count else values).to_numpy()

    def has(self, column: str) -> np.ndarray:
        """(rows,) bool: where the column is filled."""
        if column not in self:
            return np.zeros(len(self), dtype=bool)
        if column in self.rules:
            where = self.rules[column].where
            return self.has(where) if where else np.ones(len(self), dtype=bool)
        return self.stored.column(column).is_valid().to_numpy()

    def categories(self, column: str) -> tuple[list[str], np.ndarray]:
        """The distinct values of a text column, and (rows,) which of them each row has, -1 for none."""
        values = self.strings(column).combine_chunks()
        values = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        return values.dictionary.to_pylist(), values.indices.fill_null(-1).to_numpy(zero_copy_only=False)

    def keys(self) -> np.ndarray:
        """(rows,) uint64 that stands for each row's id."""
        return self.stored.column(KEY).to_numpy()

    def line(self, row: int | np.integer) -> int:
        """Number of the row's line in the file, from 1."""
        return int(self.stored.column(LINE)[int(row)].as_py()) if LINE in self.stored.column_names else int(row) + 1

    def take(self, rows: np.ndarray) -> Manifest:
        return replace(self, stored=self.stored.take(pa.array(rows)), place=None)

    def select(self, columns: Iterable[str]) -> Manifest:
        """The same rows with these columns only, and those that their paths follow from."""
        names = [name for name in columns if name in self]
        rules = {name: self.rules[name] for name in names if name in self.rules}
        needed = {KEY, LINE, *names, *(rule.key for rule in rules.values()), *(rule.where for rule in rules.values())}
        stored = self.stored.select([name for name in self.stored.column_names if name in needed])
        return replace(self, stored=stored, rules=rules)

    def table(self, columns: Iterable[str] | None = None) -> pa.Table:
        """Columns with the paths filled in, all of them if none are named."""
        return pa.table({name: self.strings(name) for name in (self.columns if columns is None else columns)})

    def with_columns(self, columns: Mapping[str, pa.Array | PathRule]) -> Manifest:
        """The same rows with columns replaced or added, as values or as the rule of a path."""
        kept = [name for name in self.stored.column_names if name not in columns and name not in (KEY, LINE)]
        table = self.stored.select(kept)
        for name, values in columns.items():
            if not isinstance(values, PathRule):
                table = table.append_column(name, values)
        for name in (KEY, LINE):
            if name in self.stored.column_names:
                table = table.append_column(name, self.stored.column(name))
        rules = {name: rule for name, rule in self.rules.items() if name not in columns}
        added = {name: values for name, values in columns.items() if isinstance(values, PathRule)}
        return Manifest(table, self.path, rules | added)


def _opened(columns: list[str], path: Path, rules: Mapping[str, PathRule], place: Path) -> Manifest:
    return Manifest(open_columns(place).select(columns), path, rules, place)


def read_manifest(path: Path, *, allow_outside: bool = False) -> Manifest:
    """Open a JSON-lines manifest, importing it first if that was not done since it last changed. Raises ManifestError
    listing every bad line: no JSON, a required field missing or of another type, an id twice, a path that leaves the
    manifest's folder (unless `allow_outside`)."""
    manifest, problems = import_manifest(path)
    if allow_outside:
        problems = problems.without("outside")
    if problems:
        raise ManifestError.of(path, problems)
    return manifest


def import_manifest(path: Path) -> tuple[Manifest, Problems]:
    """As `read_manifest`, but lines that cannot be used are left out and returned as problems; rows whose paths leave
    the folder are returned as problems and stay. Raises ManifestError if there is no such file, or no place to keep
    the import."""
    if not path.is_file():
        raise ManifestError([f"{path}: not found; expected a manifest of pairs, one JSON object per line"])
    try:
        place, facts = load(path) or _import(path)
    except OSError as error:
        raise ManifestError([f"{path}: cannot be imported: {error}"]) from error
    problems = Problems()
    problems.counts.update(facts["counts"])
    problems.listed = [Problem(*values) for values in facts["problems"]]
    rules = {name: PathRule(*values) for name, values in facts["rules"].items()}
    return Manifest(open_columns(place), path, rules, place), problems


def _import(path: Path) -> tuple[Path, dict[str, Any]]:
    log.info("%s: importing %s MB once; later runs open the copy", path.name, f"{path.stat().st_size / 1e6:,.0f}")
    stamp = Stamp.of(path)
    scratch = _scratch(path)
    try:
        imported = import_lines(path, scratch)
        if Stamp.of(path) != stamp:
            raise ManifestError([f"{path}: was changed while it was read; start again when it is complete"])
        schema, rules, tables = join(imported.pieces)
        facts = {
            "rules": rules,
            "counts": imported.problems.counts,
            "problems": list(imported.problems),
        }
        return store(path, schema, tables, stamp, imported.digest, facts), facts
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch(path: Path) -> Path:
    """Folder for an import's pieces: where its result will lie."""
    beside, cache = places(path)
    place = beside if os.access(path.parent, os.W_OK) else cache
    return place.with_name(f"{place.name}.{os.getpid()}.parts")


def write_manifest(manifest: Manifest, path: Path, made_from: str = "") -> None:
    """JSON lines with the fields that each row has, whole or not at all, and the columns that make opening them
    quick. `made_from` is the digest of the manifest whose rows these are."""
    digest = Digest()
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb", buffering=0) as file:
            for text in _texts(manifest):
                digest.update(text)
                file.write(text)
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    hidden = [LINE] if LINE in manifest.stored.column_names else []  # rows are lines now
    table = manifest.stored.drop_columns(hidden).replace_schema_metadata({b"made_from": made_from})
    problems = Problems()
    for name in (name for name in table.column_names if name.endswith("_path")):
        column = table.column(name)
        if pc.any(pc.or_(pc.match_substring(column, ".."), pc.starts_with(column, "/"))).as_py():  # quick, and rare
            shown = ((row, column[row].as_py()) for row in outside(column))
            problems.add(Problem(row + 1, "outside", outside_message(name, value)) for row, value in shown)
    facts = {"rules": dict(manifest.rules), "counts": problems.counts, "problems": list(problems)}
    try:
        store(path, table.schema, lambda: [table], Stamp.of(path), digest.value(), facts)
    except OSError as error:
        log.warning("%s is written, its columns are not (%s); opening it will import it", path, error)


def _texts(manifest: Manifest) -> Iterator[memoryview]:
    """The lines in order, made by two threads."""

    def part(start: int) -> memoryview:
        return encode(replace(manifest, stored=manifest.stored.slice(start, _WRITTEN), place=None).table())

    starts = iter(range(0, len(manifest), _WRITTEN))
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(part, start) for start in islice(starts, 3)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(part, start) for start in islice(starts, 1)]


def digest(manifest: Manifest, rows: np.ndarray) -> int:
    """Checksum of the ids of `rows` in this order: equal only if they are the same pairs in the same order."""
    return zlib.crc32(manifest.keys()[rows].tobytes())
