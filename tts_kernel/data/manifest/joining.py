"""Pieces of an imported manifest -> one table: the types and path rules that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.manifest.fields import OPTIONAL, REQUIRED, PathRule
from tts_kernel.data.manifest.importing import KEY, LINE, Piece, follow
from tts_kernel.data.manifest.jsonl import as_text

_GROUP = 8 << 20  # rows of one batch of the columns' file: a manifest of fewer is one piece, looked up at once


def join(pieces: list[Piece]) -> tuple[pa.Schema, dict[str, PathRule], Callable[[], Iterator[pa.Table]]]:
    """One schema for all pieces, the rules that hold for all, and the tables of some millions of rows each. Columns
    are read one at a time: what is held in memory is one such table, not the pieces beside it."""
    moved = any(piece.moved for piece in pieces)
    pieces = [piece for piece in pieces if piece.rows]
    rules = _common_rules(pieces)
    found: dict[str, list[pa.DataType]] = {}
    for piece in pieces:
        for name, kind in zip(piece.schema.names, piece.schema.types, strict=True):
            found.setdefault(name, []).append(kind)
        for name in piece.rules.keys() - rules.keys():
            found.setdefault(name, []).append(pa.large_string())
    if not pieces:
        return pa.schema([*REQUIRED.items(), (KEY, pa.uint64())]), {}, lambda: iter(())
    names = _in_order(found, moved)
    schema = pa.schema([(name, _common_type(found[name])) for name in names])

    def tables() -> Iterator[pa.Table]:
        dictionaries = {
            item.name: _all_values(pieces, item.name) for item in schema if pa.types.is_dictionary(item.type)
        }
        for group in _groups(pieces):
            columns = []
            for item in schema:
                parts = [_column(piece, item, rules, dictionaries.get(item.name)) for piece in group]
                chunks = [chunk for part in parts for chunk in part.chunks]
                columns.append(pa.chunked_array(chunks, item.type).combine_chunks())
            yield pa.table(columns, schema=schema)

    return schema, rules, tables


def _groups(pieces: list[Piece]) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    for piece in pieces:
        group.append(piece)
        if sum(part.rows for part in group) >= _GROUP:
            yield group
            group = []
    if group:
        yield group


def _in_order(names: Iterable[str], moved: bool) -> list[str]:
    known = [name for name in (*REQUIRED, *OPTIONAL) if name in names]
    others = [name for name in names if name not in known and name not in (KEY, LINE)]
    return [*known, *others, KEY, *([LINE] if moved else [])]


def _common_rules(pieces: list[Piece]) -> dict[str, PathRule]:
    rules: dict[str, PathRule] = {}
    for piece in pieces:
        for name, rule in piece.rules.items():
            rules.setdefault(name, rule)

    def holds(piece: Piece, name: str, rule: PathRule) -> bool:
        if name in piece.rules:
            return piece.rules[name] == rule
        # A piece without the column is one where no row fills it.
        return name not in piece.schema.names and bool(rule.where) and rule.where not in piece.schema.names

    return {name: rule for name, rule in rules.items() if all(holds(piece, name, rule) for piece in pieces)}


def _common_type(types: list[pa.DataType]) -> pa.DataType:
    kinds = list(dict.fromkeys(kind for kind in types if not pa.types.is_null(kind)))
    if len(kinds) == 1:
        return kinds[0]
    if kinds and all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
        return pa.float64()
    return pa.large_string()


def _all_values(pieces: list[Piece], name: str) -> pa.Array:
    chunks = [chunk for piece in pieces if name in piece.schema.names for chunk in piece.column(name).chunks]
    return pc.unique(pa.concat_arrays([chunk.dictionary for chunk in chunks]))


def _column(piece: Piece, item: pa.Field, rules: Mapping[str, PathRule], values: pa.Array | None) -> pa.ChunkedArray:
    """One column of a piece in the type that all pieces share; a path written out where its rule holds only here."""
    if item.name in piece.rules:
        rule = piece.rules[item.name]
        return follow(rule, piece.table([name for name in (rule.key, rule.where) if name]))
    if item.name not in piece.schema.names:
        return pa.chunked_array([pa.nulls(piece.rows, item.type)])
    column = piece.column(item.name)
    if values is not None:
        indices = pc.index_in(column.cast(pa.large_string()), value_set=values)
        return pa.chunked_array([pa.DictionaryArray.from_arrays(chunk, values) for chunk in indices.chunks], item.type)
    if column.type == item.type:
        return column
    if pa.types.is_nested(column.type):
        return pa.chunked_array([as_text(column.to_pylist())])
    return column.cast(item.type)
