"""Many arrays in one file: an uncompressed tar of .npy members, and beside it the index that says where each lies.

`<name>.tar` follows the WebDataset convention (see shard_format.py), so webdataset and plain `tar` read it. Members lie
as they were added: the arrays of one clip together. `<name>.arrow` is written last and marks the shard as done; a tar
without one was left by a job that was killed. Shards are never changed. Of two entries of the same clip and kind the
one in the newer shard holds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tarfile
import time
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa

from tts_kernel.data.features.folder_lock import StoreError, as_worker
from tts_kernel.data.features.shard_format import BLOCK, FeatureError, form_of, key_of, layout_of, member_name

FORMAT = 1  # of the index beside a shard
FLOAT16_MAX = 65504.0
JOINED = "index-"  # how the index of several shards is called; see compact
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # a file that is being written: .<name>.<pid>.tmp
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_BUFFER = 1 << 20  # bytes


@dataclass(frozen=True)
class Shard:
    name: str  # of the tar, without its suffix
    size: int  # bytes
    made_ns: int  # when it was finished, in nanoseconds since 1970


@dataclass
class Entries:
    """Columns of an index, a row for each array."""

    clip: list[str] = field(default_factory=list)
    kind: list[str] = field(default_factory=list)
    key: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    layout: list[str] = field(default_factory=list)
    crc: list[int] = field(default_factory=list)


SCHEMA = pa.schema(
    [
        ("clip", pa.string()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("shard", pa.int32()),  # number in the list of shards in the metadata
        ("key", pa.uint64()),  # of the clip's name, as `key_of` gives it
        ("offset", pa.int64()),  # bytes from the start of the tar to the array's first value
        ("frames", pa.uint32()),  # the shape's first number; 1 for a single value without a shape
        ("layout", pa.dictionary(pa.int32(), pa.string())),  # dtype and the rest of the shape, as `layout_of` gives it
        ("crc", pa.uint32()),  # zlib.crc32 of the values
    ]
)


class ShardWriter:
    """Writes one shard: `folder/<name>.tar`, and on clean exit its index, both whole or not at all.

        with ShardWriter(root / "features", "mel-000001", half={"mel"}) as shard:
            shard.add("clip-1", "mel", mel)

    `half` names the kinds whose floating point values are stored as float16. Nothing is published if the block
    raises, if the process dies, or if nothing was added.
    Raises StoreError if the name is taken, the folder cannot be written or the disk is full.
    """

    def __init__(self, folder: Path, name: str, half: Collection[str] = ()) -> None:
        if not _NAME.fullmatch(name) or name.startswith(JOINED):
            raise StoreError(f"{name!r} is no name for a shard; use letters, digits, '_', '-' and '.', not {JOINED!r}")
        self.folder, self.name, self.half = Path(folder), name, frozenset(half)
        self.path = self.folder / f"{name}.tar"
        self.size = 0  # bytes so far
        self._entries = Entries()
        self._seen: set[tuple[str, str]] = set()
        self._broken = False
        self._temporary = self.folder / f".{name}.{os.getpid()}.tmp"

    def __len__(self) -> int:
        """Arrays so far."""
        return len(self._entries.clip)

    def __enter__(self) -> Self:
        with self._disk():
            self.folder.mkdir(parents=True, exist_ok=True)
        self._open = contextlib.ExitStack()
        try:
            self._still_wanted = self._open.enter_context(as_worker(self.folder))
            self._check_free()
            self._open.callback(self._temporary.unlink, missing_ok=True)
            with self._disk():
                self._file: BinaryIO = self._temporary.open("wb", buffering=_BUFFER)
                self._open.callback(self._close)
        except BaseException:
            self._open.close()
            raise
        return self

    def add(self, clip: str, kind: str, array: np.ndarray) -> None:
        """Append one array. Raises FeatureError, naming the clip, if the array cannot be stored or the clip has this
        kind already in this shard; UnsafePathError if a name would leave its folder."""
        if (clip, kind) in self._seen:
            raise FeatureError(f"{kind}/{clip}: added twice to shard {self.name}; give every clip once")
        name = member_name(clip, kind)
        array = storable(array, f"{kind}/{clip}", kind in self.half)
        layout, frames = layout_of(array)
        values = array.data.cast("B") if array.size else b""
        head = form_of(layout, frames).head
        entry = tarfile.TarInfo(name)
        entry.size = len(head) + array.nbytes
        block = entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
        padding = -entry.size % BLOCK
        with self._disk():
            for piece in (block, head, values, bytes(padding)):
                self._file.write(piece)
        entries = self._entries
        entries.clip.append(clip)
        entries.kind.append(kind)
        entries.key.append(key_of(clip))
        entries.offset.append(self.size + len(block) + len(head))
        entries.frames.append(frames)
        entries.layout.append(layout)
        entries.crc.append(zlib.crc32(values))
        self._seen.add((clip, kind))
        self.size += len(block) + entry.size + padding

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if kind is not None:
                return
            if self._broken:
                raise StoreError(f"{self.path}: not finished, as writing to it failed before; write it again")
            if len(self):
                self._publish()

    def _check_free(self) -> None:
        if index_path(self.path).exists() or (self.path.exists() and self.name in listed_shards(self.folder)):
            raise StoreError(f"{self.path}: exists; shards are only ever added, choose another name")

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # it flushes: on a full disk that fails once more
            self._file.close()

    def _publish(self) -> None:
        self._still_wanted()
        self._check_free()
        with self._disk():
            self._file.write(bytes(2 * BLOCK))  # how a tar ends
            self._file.flush()
            os.fsync(self._file.fileno())
            shard = Shard(self.name, self.size + 2 * BLOCK, time.time_ns())
            os.replace(self._temporary, self.path)
            try:
                write_index(index_path(self.path), index_table(self._entries, shard))
            except BaseException:  # a stop signal, too, even when the index is there already
                index_path(self.path).unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)
                raise

    @contextlib.contextmanager
    def _disk(self) -> Any:
        try:
            yield
        except OSError as error:
            self._broken = True
            hint = "free some space and start again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "nothing kept"
            raise StoreError(f"{self.path}: cannot be written ({error.strerror or error}); {hint}") from error


def index_path(tar: Path) -> Path:
    return tar.with_name(f"{tar.name.removesuffix('.tar')}.arrow")


def listed_shards(folder: Path) -> set[str]:
    """Names of the shards that a joint index lists. Raises StoreError if one cannot be read."""
    return {shard.name for path in folder.glob(f"{JOINED}*.arrow") for shard in read_index(path)[1]}


def index_table(entries: Entries, shard: Shard) -> pa.Table:
    """The index of one shard."""
    columns = dict(vars(entries), shard=np.zeros(len(entries.clip), dtype=np.int32))
    arrays = [pa.array(columns[item.name], _plain(item.type)).cast(item.type) for item in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA).replace_schema_metadata(shards_metadata([shard]))


def shards_metadata(shards: list[Shard]) -> dict[bytes, bytes]:
    listed = [[shard.name, shard.size, shard.made_ns] for shard in shards]
    return {b"format": str(FORMAT).encode(), b"shards": json.dumps(listed).encode()}


def write_index(path: Path, table: pa.Table) -> None:
    """Write an index, on the disk when this returns, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as out:
            with pa.ipc.new_file(out, table.schema) as writer:
                writer.write_table(table)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def read_index(path: Path) -> tuple[pa.Table, list[Shard]]:
    """The rows of an index file, memory-mapped, and the shards they lie in. Raises StoreError if it is none."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)  # a damaged file could name text that lies outside it
        metadata = table.schema.metadata or {}
        if int(metadata[b"format"]) != FORMAT:
            raise StoreError(f"{path}: format {metadata[b'format'].decode()}, expected {FORMAT}; update this package")
        shards = [Shard(str(name), int(size), int(made)) for name, size, made in json.loads(metadata[b"shards"])]
        for shard in shards:
            if not _NAME.fullmatch(shard.name):
                raise ValueError(f"lists a shard {shard.name!r}")
        table = table.cast(SCHEMA.with_metadata(metadata))
        for layout in table["layout"].unique().to_pylist():
            form_of(layout, 1)
        numbers = table["shard"].to_numpy()
        if len(table) and not 0 <= numbers.min() <= numbers.max() < len(shards):
            raise ValueError(f"names a shard beyond the {len(shards)} it lists")
    except FileNotFoundError:
        raise
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise StoreError(f"{path}: not the index of a shard ({error})") from error
    return table, shards


def storable(array: np.ndarray, name: str, half: bool) -> np.ndarray:
    """C order, little endian; float16 if `half` and floating point."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise FeatureError(f"{name}: holds {array.dtype}, expected numbers")
    if half and array.dtype.kind == "f" and array.dtype.itemsize > 2:
        with np.errstate(over="ignore"):
            small = array.astype("<f2")
        lost = int((np.isinf(small) & np.isfinite(array)).sum())
        if lost:
            raise FeatureError(
                f"{name}: {lost} of {array.size} values lie beyond {FLOAT16_MAX:.0f}, which float16 cannot hold; "
                "store this kind as it is"
            )
        array = small
    array = np.ascontiguousarray(array) if array.ndim else array
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
