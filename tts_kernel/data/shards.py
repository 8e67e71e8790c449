"""Many arrays in one file: an uncompressed tar of .npy members, and beside it the index that says where each lies.

`<name>.tar` follows the WebDataset convention, `<clip>.<kind>.npy`, so webdataset and plain `tar` read it. As that
convention splits a name at its first dot, the clip's own dots are written `%2E` (and `%` as `%25`); a kind that is a
nested folder has `%2F` for its slashes. Members lie as they were added, so the arrays of one clip lie together.
`<name>.arrow` is written last and marks the shard as done: a tar without one is a leftover of a job that was killed.
Shards are never changed. Of two entries of the same clip and kind the one in the newer shard holds.
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
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa

from tts_kernel.data.files import inside
from tts_kernel.data.store_lock import StoreError, as_worker

FORMAT = 1  # of the index beside a shard
BLOCK = tarfile.BLOCKSIZE
FLOAT16_MAX = 65504.0
TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # a file that is being written: .<name>.<pid>.tmp
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_SPECIAL = re.compile(r"[%.]")
_BUFFER = 1 << 20  # bytes


class FeatureError(ValueError):
    """A feature that is missing, damaged or not what the manifest and the model expect."""


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
        if not _NAME.fullmatch(name):
            raise StoreError(f"{name!r} is no name for a shard; use letters, digits, '_', '-' and '.'")
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
            if index_path(self.path).exists():
                raise StoreError(f"{self.path}: exists; shards are only ever added, choose another name")
            self._open.callback(self._temporary.unlink, missing_ok=True)
            with self._disk():
                self._file: BinaryIO = self._open.enter_context(self._temporary.open("wb", buffering=_BUFFER))
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
        array = _storable(array, f"{kind}/{clip}", kind in self.half)
        layout, frames = layout_of(array)
        values = array.data.cast("B") if array.size else b""
        head = npy_head(layout, frames)
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
                with contextlib.suppress(OSError):  # closing flushes: on a full disk that fails once more
                    self._file.close()
                return
            if self._broken:
                raise StoreError(f"{self.path}: not finished, as writing to it failed before; write it again")
            if len(self):
                self._publish()

    def _publish(self) -> None:
        self._still_wanted()
        with self._disk():
            self._file.write(bytes(2 * BLOCK))  # how a tar ends
            self._file.flush()
            os.fsync(self._file.fileno())
            shard = Shard(self.name, self.size + 2 * BLOCK, time.time_ns())
            os.replace(self._temporary, self.path)
            try:
                write_index(index_path(self.path), index_table(self._entries, shard))
            except BaseException:
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
    return tar.with_suffix(".arrow")


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
    """The rows of an index file and the shards they lie in. Raises StoreError if it is none, OSError if it cannot be
    read."""
    try:
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        metadata = table.schema.metadata or {}
        if int(metadata[b"format"]) != FORMAT:
            raise StoreError(f"{path}: format {metadata[b'format'].decode()}, expected {FORMAT}; update this package")
        shards = [Shard(str(name), int(size), int(made)) for name, size, made in json.loads(metadata[b"shards"])]
        return table.cast(SCHEMA.with_metadata(metadata)), shards
    except (pa.ArrowInvalid, KeyError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: not the index of a shard ({error}); see `check`") from error


def key_of(clip: str) -> int:
    """64 bits that stand for a clip's name in a sorted index."""
    return int.from_bytes(key_bytes(clip), "little")


def key_bytes(clip: str) -> bytes:
    return blake2b(clip.encode(), digest_size=8).digest()


def member_name(clip: str, kind: str) -> str:
    """Name of an array in the tar. Raises UnsafePathError for a clip or kind that is no plain path below its folder,
    FeatureError for one that is not written the shortest way or is not valid Unicode."""
    for what, name in (("clip", clip), ("kind", kind)):
        if str(inside(Path(), name)) != name:
            raise FeatureError(f"{what} {name!r}: expected {str(inside(Path(), name))!r}")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise FeatureError(f"{what} {name!r}: not valid Unicode; rename its files") from None
    return name_bytes(clip, kind).decode()


def name_bytes(clip: str, kind: str) -> bytes:
    """The same, unchecked."""
    return f"{_escaped(clip)}.{_escaped(kind).replace('/', '%2F')}.npy".encode()


def _escaped(name: str) -> str:
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", name) if "." in name or "%" in name else name


def name_offset(member: str | bytes) -> int:
    """Bytes from a member's name to its first byte: a long name lies in blocks of its own before the header."""
    length = len(member)
    if length <= tarfile.LENGTH_NAME:
        return BLOCK
    return BLOCK + -(-(length + 1) // BLOCK) * BLOCK


def layout_of(array: np.ndarray) -> tuple[str, int]:
    """Dtype and shape without its first number, such as `<f4 *,80`; and that first number."""
    if array.ndim == 0:
        return array.dtype.str, 1
    return f"{array.dtype.str} {','.join(['*', *map(str, array.shape[1:])])}", array.shape[0]


@lru_cache(maxsize=1 << 16)
def unpacked(layout: str, frames: int) -> tuple[np.dtype, tuple[int, ...], int]:
    """dtype, shape and bytes of an array, from what `layout_of` gave. Raises ValueError for anything else."""
    dtype, _, dimensions = layout.partition(" ")
    shape = (frames, *map(int, dimensions.split(",")[1:])) if dimensions else ()
    kind = np.dtype(dtype)
    return kind, shape, int(np.prod(shape, dtype=np.int64)) * kind.itemsize


@lru_cache(maxsize=1 << 16)
def npy_head(layout: str, frames: int) -> bytes:
    """What a .npy file holds before the values: format 1.0, padded to 64 bytes."""
    dtype, shape, _ = unpacked(layout, frames)
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape}, }}"
    padding = -(10 + len(text) + 1) % 64
    return b"\x93NUMPY\x01\x00" + (len(text) + padding + 1).to_bytes(2, "little") + f"{text}{' ' * padding}\n".encode()


def _storable(array: np.ndarray, name: str, half: bool) -> np.ndarray:
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
