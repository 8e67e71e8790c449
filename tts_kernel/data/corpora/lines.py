"""Text files of one utterance per line as Arrow columns: a few megabytes at a time, no Python object per line.

Nothing is quoted and nothing is escaped: these formats are lines and separators.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.corpora.table import EXAMPLES, TEXT, Account
from tts_kernel.data.manifest.jsonl import read_chunks

LONGEST = 1 << 20  # bytes of a line with one utterance


@dataclass(frozen=True)
class Lines:
    """Some lines of a file, and their numbers in it from 1."""

    text: pa.Array
    numbers: np.ndarray


def read_lines(path: Path, account: Account) -> Iterator[Lines]:
    """The lines of a UTF-8 file without their ends (\\n or \\r\\n), its BOM, and its empty lines. Lines that are not
    UTF-8, or too long to be an utterance, are dropped; all are counted as read."""
    for chunk in read_chunks(path, lambda data: None):
        if chunk.too_long:  # even for a chunk
            account.read += 1
            account.drop(
                "too long", 1, [f"{path}:{chunk.line}: {chunk.too_long:,} bytes, expected at most {LONGEST:,}"]
            )
            continue
        text, numbers = _decode(chunk.data, chunk.line, path, account)
        text = pc.ascii_rtrim(text, "\r\n")
        filled = pc.not_equal(pc.ascii_trim_whitespace(text), "")
        if not pc.all(filled).as_py():
            text, numbers = text.filter(filled), numbers[filled.to_numpy(zero_copy_only=False)]
        account.read += len(text)
        sizes = pc.binary_length(text).to_numpy()
        if len(sizes) and sizes.max() > LONGEST:
            rows = np.flatnonzero(sizes > LONGEST)
            said = (f"{path}:{numbers[row]}: {sizes[row]:,} bytes, expected at most {LONGEST:,}" for row in rows)
            account.drop("too long", len(rows), said)
            text, numbers = text.filter(pa.array(sizes <= LONGEST)), numbers[sizes <= LONGEST]
        yield Lines(text, numbers)


def _decode(data: bytes, first: int, path: Path, account: Account) -> tuple[pa.Array, np.ndarray]:
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == 0x0A) + 1
    if not len(ends) or ends[-1] != len(data):  # the last line has no end
        ends = np.append(ends, len(data))
    offsets = pa.py_buffer(np.concatenate([[0], ends]).astype(np.int64))
    lines = pa.Array.from_buffers(pa.large_binary(), len(ends), [None, offsets, pa.py_buffer(data)])
    numbers = np.arange(first, first + len(ends))
    try:
        return lines.cast(TEXT), numbers
    except pa.ArrowInvalid:  # which ones, the slow way
        good = np.array([_is_utf8(line) for line in lines.to_pylist()])
        bad = numbers[~good]
        account.read += len(bad)
        account.drop("encoding", len(bad), (f"{path}:{number}: not UTF-8" for number in bad[:EXAMPLES]))
        return lines.filter(pa.array(good)).cast(TEXT), numbers[good]


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def split_fields(
    lines: Lines, separator: str, fields: tuple[int, ...], layout: str, path: Path, account: Account
) -> tuple[list[pa.Array], np.ndarray]:
    """Columns of lines that have one of these numbers of fields, null where a line has fewer, and the lines' numbers.
    An empty separator splits once at blanks. Other lines are dropped; `layout` tells the user what was expected."""
    if separator:
        pieces = pc.split_pattern(lines.text, separator)
    else:
        pieces = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(lines.text), max_splits=1)
    counts = np.diff(pieces.offsets.to_numpy())
    good = np.isin(counts, fields)
    account.drop(
        "malformed line",
        int((~good).sum()),
        (
            f"{path}:{lines.numbers[row]}: {counts[row]} field{'s' if counts[row] != 1 else ''}, expected {layout}"
            for row in np.flatnonzero(~good)[:EXAMPLES]
        ),
    )
    starts, counts = pieces.offsets.to_numpy()[:-1][good], counts[good]
    columns = [
        pieces.values.take(pa.array(np.where(counts > place, starts + place, 0), mask=counts <= place))
        for place in range(max(fields))
    ]
    return columns, lines.numbers[good]


def joined(texts: pa.Array) -> memoryview:
    """The bytes of a text file with these lines."""
    lines = glued(texts, "\n")
    _, offsets, data = lines.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]] if len(lines) else memoryview(b"")


def glued(*parts: str | pa.Array | pa.ChunkedArray, separator: str = "") -> pa.Array | pa.ChunkedArray:
    """Texts and text columns, row by row, one after the other."""
    wide = [pa.scalar(part, TEXT) if isinstance(part, str) else part.cast(TEXT) for part in parts]
    return pc.binary_join_element_wise(*wide, pa.scalar(separator, TEXT))
