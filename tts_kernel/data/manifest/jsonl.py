"""JSON lines <-> Arrow columns, a few megabytes at a time and without a Python object per row."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

CHUNK = 16 << 20  # bytes parsed at once; a longer line is refused
_BOM = b"\xef\xbb\xbf"


class Chunk(NamedTuple):
    """Whole lines of a file. `too_long` is the size in bytes of one line that was passed over instead."""

    line: int  # number of the first one, from 1
    data: bytes
    too_long: int = 0


def read_chunks(path: Path, seen: Callable[[bytes], None]) -> Iterator[Chunk]:
    """The file in pieces that end with a line; `seen` gets every byte in order, for a checksum. Memory stays bounded
    whatever the lines' lengths."""
    line, rest, skipped = 1, b"", 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(CHUNK):
            seen(block)
            if line == 1 and not rest and not skipped:
                block = block.removeprefix(_BOM)
            if skipped:
                end = block.find(b"\n") + 1
                skipped += end or len(block)
                if not end:
                    continue
                yield Chunk(line, b"", skipped)
                line, skipped, block = line + 1, 0, block[end:]
            end = block.rfind(b"\n") + 1
            if end:
                data, rest = rest + block[:end], block[end:]
                yield Chunk(line, data)
                line += int(
                    np.count_nonzero(np.frombuffer(data, np.uint8) == ord("\n"))
                )  # twice as fast as bytes.count
            elif len(rest) + len(block) > CHUNK:
                rest, skipped = b"", len(rest) + len(block)
            else:
                rest += block
    if skipped:
        yield Chunk(line, b"", skipped)
    elif rest:
        yield Chunk(line, rest)


def parse(data: bytes, known: dict[str, pa.DataType]) -> pa.Table:
    """Lines of JSON objects as columns: every one of `known` in its type, others in the types found; text that looks
    like a date stays text. Raises pa.ArrowInvalid or pa.ArrowNotImplementedError for anything else."""
    table = _parse(data, {})  # a schema would cost a fifth more time, for fields that no line has
    found = {name: table.schema.field(name).type for name in table.column_names}
    dates = [name for name, kind in found.items() if name not in known and pa.types.is_temporal(kind)]
    if dates or any(found.get(name, kind) != kind for name, kind in known.items()):
        table = _parse(data, known | dict.fromkeys(dates, pa.string()))
    for name, kind in known.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, kind))
    table.validate(full=True)  # Arrow reads text that is not UTF-8 without a word
    return table


def _parse(data: bytes, schema: dict[str, pa.DataType]) -> pa.Table:
    return pyarrow.json.read_json(
        io.BytesIO(data),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=pa.schema(list(schema.items()))),
    )


def from_values(values: list[object]) -> pa.Array:
    """Values of one field as a column; where their types differ, numbers become floats and anything else JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.array([None if value is None else float(value) for value in values])  # type: ignore[arg-type]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return as_text(values)


def as_text(values: list[object]) -> pa.Array:
    """Text as it is, everything else as JSON."""
    return pa.array(
        [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values],
        pa.large_string(),
    )


def encode(table: pa.Table) -> memoryview:
    """One line of JSON per row, with the fields that the row fills."""
    pieces: list[pa.Array | str] = ["{"]
    count = pa.array(np.zeros(table.num_rows, dtype=np.int32))  # fields before this one, for the comma
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        label = json.dumps(name, ensure_ascii=False) + ": "
        text = _values(column)
        if column.null_count == 0:
            first = pc.equal(count, 0)
            comma = (
                "" if pc.all(first).as_py() else (", " if not pc.any(first).as_py() else pc.if_else(first, "", ", "))
            )
            pieces += [comma, label, *text]
        else:
            comma = pc.if_else(pc.equal(count, 0), "", ", ")
            whole = _join([comma, label, *text])
            pieces.append(pc.if_else(column.is_valid(), whole, pa.scalar("", pa.large_string())))
        count = pc.add(count, column.is_valid().cast(pa.int32()))
    lines = _join([*pieces, "}\n"])
    if not isinstance(lines, pa.Array):  # no columns
        return memoryview(lines.as_py().encode() * table.num_rows)
    _, offsets, data = lines.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]] if len(lines) else memoryview(b"")


def _join(pieces: list[pa.Array | str]) -> pa.Array:
    """Texts and columns side by side."""
    merged: list[pa.Array | pa.Scalar] = []
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        if text:
            merged.append(pa.scalar(text, pa.large_string()))
            text = ""
        merged.append(piece.cast(pa.large_string()))
    if text:
        merged.append(pa.scalar(text, pa.large_string()))
    options = pc.JoinOptions(null_handling="replace", null_replacement="")
    return pc.binary_join_element_wise(*merged, pa.scalar("", pa.large_string()), options=options)


def _values(column: pa.Array) -> list[pa.Array | str]:
    """The pieces of a column's values in JSON."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return ['"', escape(column.cast(pa.large_string())), '"']
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return [column]
    return [pa.array([json.dumps(value, ensure_ascii=False) for value in column.to_pylist()], pa.large_string())]


def escape(column: pa.Array) -> pa.Array:
    """Text with the characters escaped that JSON does not take as they are; looked for in the bytes of the whole
    column first, as hardly any column has one."""
    _, offsets, data = column.buffers()
    if data is None:
        return column
    bounds = np.frombuffer(offsets, dtype=np.int64)
    used = np.frombuffer(data, dtype=np.uint8)[bounds[column.offset] : bounds[column.offset + len(column)]]
    if len(used) and not ((used == 0x5C) | (used == 0x22) | (used < 0x20)).any():
        return column
    for code in (0x5C, 0x22, *range(0x20)):  # the backslash first: the others bring new ones
        if (used == code).any():
            character = chr(code)
            column = pc.replace_substring(column, character, json.dumps(character)[1:-1])
    return column
