"""Folders of .npy files, one array for each clip: read one, list them, and learn their shapes from the headers alone.

`.shapes.arrow` in the folder, or in the cache folder where that cannot be written, remembers the shapes of files whose
size and time have not changed.
"""

from __future__ import annotations

import io
import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.features.shard_format import FeatureError, form_of, layout_of
from tts_kernel.runs import cache_folder

SHAPES = ".shapes.arrow"
_HEAD = 128  # bytes of most headers
_ROWS = 1 << 16  # names that become a column at once
_CHUNK = 512  # files that one thread looks at in one go
_THREADS = 8  # the disk answers several at a time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NpyFiles:
    """The .npy files of a folder and the folders in it, in no order."""

    clips: pa.LargeStringArray  # path below the folder, without its suffix
    sizes: np.ndarray  # (n,) bytes
    times: np.ndarray  # (n,) modification time in nanoseconds
    problems: list[str] = field(default_factory=list)  # files that cannot be named or looked at


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, read-only. Raises FeatureError, naming the file and what is wrong with it."""
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except FileNotFoundError:
        raise FeatureError(f"{path}: does not exist; extract it, or remove its rows from the manifest") from None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    layout, frames, start = head_of(data, path)
    form = form_of(layout.lstrip("F"), frames)
    if len(data) < start + form.size:
        expected = f"{start + form.size} for {list(form.shape)} of {form.dtype}"
        raise _unreadable(path, f"{len(data)} bytes, expected {expected}")
    return np.ndarray(form.shape, form.dtype, data, start, order="F" if layout.startswith("F") else "C")


def head_of(data: bytes, path: Path) -> tuple[str, int, int]:
    """Layout (`F` before it where the values lie in Fortran's order), frames, and where the values begin."""
    wide = data[6:7] > b"\x01"  # later formats have a longer length
    end = (12 if wide else 10) + int.from_bytes(data[8 : 12 if wide else 10], "little")
    if len(data) < end or not data:
        raise _unreadable(path, f"{len(data)} bytes, which is no whole header")
    try:
        return (*_parsed(data[:end]), end)
    except (ValueError, EOFError, SyntaxError) as error:
        raise _unreadable(path, str(error)) from error


@lru_cache(maxsize=1 << 14)
def _parsed(head: bytes) -> tuple[str, int]:
    source = io.BytesIO(head)
    version = np.lib.format.read_magic(source)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(source)
    if dtype.kind not in "fiub":
        raise ValueError("Object arrays cannot be loaded, they may run code" if dtype.hasobject else f"holds {dtype}")
    layout, frames = layout_of(np.broadcast_to(np.empty((), dtype), shape))
    return ("F" if fortran and len(shape) > 1 else "") + layout, frames


def list_npy(folder: Path) -> NpyFiles:
    """Every .npy below `folder`, hidden ones apart. Folders that are links are followed, each folder once."""
    parts: list[pa.Array] = []
    names: list[str] = []
    sizes: list[int] = []
    times: list[int] = []
    problems: list[str] = []
    for name, entry in _walk(folder, problems):
        try:
            name.encode()
            found = entry.stat()
        except UnicodeEncodeError:
            problems.append(f"{os.fsencode(entry.path)!r}: the name is not valid Unicode; rename it")
            continue
        except OSError as error:  # a link to nowhere, or gone
            problems.append(f"{entry.path}: {error.strerror}")
            continue
        names.append(name[:-4])
        sizes.append(found.st_size)
        times.append(found.st_mtime_ns)
        if len(names) == _ROWS:
            parts.append(pa.array(names, pa.large_string()))
            names = []
    parts.append(pa.array(names, pa.large_string()))
    return NpyFiles(pa.concat_arrays(parts), np.array(sizes, dtype=np.int64), np.array(times, dtype=np.int64), problems)


def npy_shapes(folder: Path, damaged: list[str] | None = None) -> pa.Table:
    """clip, frames, layout of every .npy below `folder`, from its header, in no order. What cannot be read is added to
    `damaged` and left out; without that list it raises FeatureError, naming the first."""
    files = list_npy(folder)
    known = _known(folder)
    old = known.take(pc.index_in(files.clips, known["clip"]))  # a row of nulls where a file is new
    same = pc.and_(pc.equal(old["size"], files.sizes), pc.equal(old["time"], files.times)).fill_null(False)
    fresh, problems = _from_heads(folder, files, np.flatnonzero(~same.to_numpy()))
    problems = files.problems + problems
    if problems and damaged is None:
        raise FeatureError(problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))
    if damaged is not None:
        damaged += problems
    table = pa.concat_tables([old.filter(same), fresh])
    if len(fresh) or len(table) != len(known):
        _remember(folder, table)
    return table.select(["clip", "frames", "layout"])


_SCHEMA = pa.schema(
    [
        ("clip", pa.large_string()),
        ("frames", pa.int64()),
        ("layout", pa.dictionary(pa.int32(), pa.string())),
        ("size", pa.int64()),
        ("time", pa.int64()),
    ]
)


def _from_heads(folder: Path, files: NpyFiles, rows: np.ndarray) -> tuple[pa.Table, list[str]]:
    """The table of these rows of `files`, those that cannot be read apart."""

    def look(some: np.ndarray) -> list[tuple[str, int] | FeatureError]:
        clips, sizes = files.clips.take(pa.array(some)).to_pylist(), files.sizes[some].tolist()
        return [_shape(folder / f"{clip}.npy", size) for clip, size in zip(clips, sizes, strict=True)]

    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        found = [item for part in pool.map(look, chunks) for item in part]
    shapes = [item for item in found if not isinstance(item, FeatureError)]
    good = rows[[not isinstance(item, FeatureError) for item in found]] if found else rows
    columns = [
        files.clips.take(pa.array(good)),
        pa.array([frames for _, frames in shapes], pa.int64()),
        pa.array([layout for layout, _ in shapes], pa.string()).dictionary_encode(),
        pa.array(files.sizes[good]),
        pa.array(files.times[good]),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA), [
        str(item) for item in found if isinstance(item, FeatureError)
    ]


def _shape(path: Path, size: int) -> tuple[str, int] | FeatureError:
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read(_HEAD)
            if len(data) == _HEAD and int.from_bytes(data[8:10], "little") > _HEAD - 10:
                data += file.read(1 << 16)
        layout, frames, start = head_of(data, path)
    except FeatureError as error:
        return error
    except OSError as error:
        return _unreadable(path, error.strerror or str(error))
    expected = start + form_of(layout.lstrip("F"), frames).size
    if size < expected:
        return _unreadable(path, f"{size} bytes, expected {expected}")
    return layout.lstrip("F"), frames


def _places(folder: Path) -> list[Path]:
    name = blake2b(os.fsencode(folder.resolve()), digest_size=8).hexdigest()
    return [folder / SHAPES, cache_folder() / "features" / f"{name}{SHAPES}"]


def _known(folder: Path) -> pa.Table:
    for place in _places(folder):
        try:
            with pa.OSFile(str(place)) as source:
                table = pa.ipc.open_file(source).read_all()
            table.validate(full=True)  # a damaged file could name text that lies outside it
        except (OSError, ValueError, pa.ArrowException):  # none, or torn
            continue
        if table.schema.equals(_SCHEMA):
            return table
    return _SCHEMA.empty_table()


def _remember(folder: Path, table: pa.Table) -> None:
    for place in _places(folder):
        scratch = place.with_name(f"{place.name}.{os.getpid()}.tmp")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(scratch), "wb") as out, pa.ipc.new_file(out, _SCHEMA) as writer:
                writer.write_table(table.unify_dictionaries().combine_chunks())
            os.replace(scratch, place)
        except OSError as error:  # read-only, or full: the headers are read again next time
            log.debug("%s: %s", place, error)
            continue
        finally:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
        return


def _unreadable(path: Path, reason: str) -> FeatureError:
    return FeatureError(f"{path}: not a readable .npy ({reason}); delete it and extract it again")


def _walk(folder: Path, problems: list[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(path below `folder`, entry) of every .npy."""
    waiting, visited = deque([""]), set()
    while waiting:
        below = waiting.pop()
        try:
            found = os.stat(folder / below)
            if (found.st_dev, found.st_ino) in visited:  # a link to a folder above would never end
                continue
            visited.add((found.st_dev, found.st_ino))
            with os.scandir(folder / below) as listed:
                entries = [entry for entry in listed if not entry.name.startswith(".")]
        except OSError as error:  # not to be read, or gone
            problems.append(f"{folder / below}: {error.strerror}")
            continue
        for entry in entries:
            if entry.name.endswith(".npy"):
                yield below + entry.name, entry
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(f"{below}{entry.name}/")
            elif entry.is_symlink() and os.path.isdir(entry.path):
                waiting.appendleft(f"{below}{entry.name}/")  # last, so that a folder in here keeps its own name
