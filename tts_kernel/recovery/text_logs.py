"""Text logs of the guide's trainer and of CosyVoice: which files are some, and their lines as columns."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from tts_kernel.recovery.history import History, Points

_SUFFIXES = (".log", ".txt", ".out", ".err", ".gz", "")
_LOOKED_AT = 4 << 20  # bytes from the beginning that show what a file is
_KNOWN = re.compile(rb"(\[(?:Train|Val)\] [^\n]*\bstep=\d)|\b(?:TRAIN|CV) Batch \d+/\d+ ")
_DIGITS = (0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18)  # of 2025-01-31 09:26:53,589, without the thousandths
_FIELDS = ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19), (20, 23))  # from the year to the thousandths
_PLACES = np.array([[10.0 ** (end - 1 - at) * (begin <= at < end) for begin, end in _FIELDS] for at in range(23)])


def find_text_logs(path: Path) -> list[Path]:
    """The logs that `path` is or holds, in itself, else in its logs/; by name. They may be compressed (.gz)."""
    if path.is_file():
        return [path] if _kind(path) else []
    for pattern in ("*", "logs/*"):
        files = (file for file in path.glob(pattern) if file.suffix in _SUFFIXES and file.is_file())
        if found := sorted(file for file in files if _kind(file)):
            return found
    return []


def read_text_logs(path: Path, files: list[Path]) -> History:
    """Several files are sessions of one run. What a restart repeats takes back what was logged before it."""
    from tts_kernel.recovery.cosyvoice_log import read_cosyvoice_lines
    from tts_kernel.recovery.guide_log import read_guide_lines

    points, problems = Points(), list[str]()
    order, reached = 0, -1
    for file in files:
        lines = _lines(file, problems)
        read = read_guide_lines if _kind(file) == "guide" else read_cosyvoice_lines
        backs = len(points.backs)
        steps = read(file, lines, order, points, problems)
        if len(steps):
            if reached >= 0 and len(points.backs) == backs:  # a restart that the log does not speak of
                points.go_back(order - 1, min(reached, int(steps[0]) - 1))
            reached = int(steps[-1])
        order += len(lines)
    return points.history(path, problems)


def words(rows: Sequence[bytes]) -> list[pa.ChunkedArray] | None:
    """(rows,) lines -> one column of strings for each word; None where not all have as many words. Arrow's reader,
    several times as fast as taking lines apart one by one."""
    content = pa.py_buffer(b"\n".join(rows))
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            pyarrow.csv.ReadOptions(autogenerate_column_names=True, block_size=len(content) + 1, use_threads=False),
            pyarrow.csv.ParseOptions(delimiter=" ", quote_char=False),
            pyarrow.csv.ConvertOptions(
                column_types={f"f{place}": pa.string() for place in range(rows[0].count(b" ") + 1)},
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table.columns if table.num_rows == len(rows) else None


def numbers(texts: pa.ChunkedArray) -> np.ndarray | None:
    """(rows,) strings -> float64; None where one is no number. Commas and units are none."""
    try:
        return pc.cast(texts, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None


def line_times(lines: Sequence[bytes]) -> np.ndarray:
    """(lines,) seconds, NaN where a line does not begin with date and time. They are local times of an unknown place:
    good for differences."""
    if not any(line[:4].isdigit() for line in lines[:1000]):  # print() has none
        return np.full(len(lines), np.nan)
    heads = np.array([line[:23] for line in lines], "S23")
    digits = heads.view(np.uint8).reshape(-1, 23) - np.uint8(ord("0"))
    of_ten = digits < 10
    stamped = of_ten[:, _DIGITS].all(axis=1)
    thousandths = of_ten[stamped, 20:].all(axis=1)
    years, months, days, hours, minutes, seconds, rest = (digits[stamped].astype(np.float64) @ _PLACES).T
    first = (12 * (years - 1970) + months - 1).astype(np.int64).astype("datetime64[M]").astype("datetime64[D]")
    found = np.full(len(lines), np.nan)
    found[stamped] = 60 * (60 * (24 * (first.astype(np.int64) + days - 1) + hours) + minutes) + seconds
    found[stamped] += np.where(thousandths, rest / 1000, 0)
    return found


def _kind(path: Path) -> Literal["guide", "cosyvoice"] | None:
    """Whose log it is; None for anything else."""
    try:
        with path.open("rb") as file:
            begin = _unpacked(path, file.read(_LOOKED_AT))
    except (OSError, zlib.error):
        return None
    found = _KNOWN.search(begin)
    return None if found is None else "guide" if found[1] else "cosyvoice"


def _unpacked(path: Path, content: bytes) -> bytes:
    """As far as a file that is cut goes."""
    return zlib.decompressobj(wbits=31).decompress(content) if path.suffix == ".gz" else content


def _lines(path: Path, problems: list[str]) -> list[bytes]:
    """The whole ones: what a killed process has begun to write is a problem."""
    try:
        content = _unpacked(path, path.read_bytes())
    except (OSError, zlib.error) as error:
        problems.append(f"{path}: cannot be read ({error})")
        return []
    *lines, rest = (content.replace(b"\r", b"\n") if b"\r" in content else content).split(b"\n")
    if rest:
        shown = rest[:60].decode("utf-8", "replace")
        problems.append(f"{path}:{len(lines) + 1}: torn line passed over: {shown!a}")
    return lines
