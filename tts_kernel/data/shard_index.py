"""Where every array of a feature folder lies: the shards' indices, merged and sorted, kept on disk and memory-mapped.

In `.index/` lies one Arrow file for each kind, sorted by the key of the clip's name, and `catalog.json`, which says
what they were merged from: the size and time of every shard and every index. Where shards were added their rows are
merged in; where anything else changed all is merged anew. A folder that cannot be written has its `.index` in the
cache folder; where that fails, too, the merged index lives in memory.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from tts_kernel.data.shards import Shard, read_index
from tts_kernel.data.store_lock import StoreError, locked
from tts_kernel.runs import cache_folder, write_atomically

FORMAT = 1  # of the merged index
FOLDER, CATALOG, LOCK = ".index", "catalog.json", ".lock"
ROW = np.dtype([("offset", "<u8"), ("shard", "<u4"), ("frames", "<u4"), ("crc", "<u4"), ("layout", "<u4")])
_RACES = 20  # a file listed a moment ago may be gone, where another process puts indices together

log = logging.getLogger(__name__)

Stamp = list[int]  # size in bytes, modification time in nanoseconds


@dataclass(frozen=True)
class KindIndex:
    """The arrays of one kind, sorted by key."""

    keys: np.ndarray  # (n,) uint64
    rows: np.ndarray  # (n,) ROW
    clips: pa.LargeStringArray

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class Index:
    """Everything that can be read in a feature folder, and what that was merged from."""

    folder: Path
    place: Path | None = None  # where the files lie; None for memory
    indices: dict[str, Stamp] = field(default_factory=dict)
    shards: list[Shard] = field(default_factory=list)
    seen: list[Stamp | None] = field(default_factory=list)  # each shard's when it was merged
    layouts: list[str] = field(default_factory=list)
    kinds: dict[str, KindIndex] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # of each kind, in `place`
    problems: list[str] = field(default_factory=list)  # shards and indices left out, with the reason


@dataclass(frozen=True)
class Listing:
    """What lies in a feature folder."""

    indices: dict[str, Stamp]
    tars: dict[str, Stamp]

    @classmethod
    def of(cls, folder: Path) -> Listing:
        listing = cls({}, {})
        kinds = {".arrow": listing.indices, ".tar": listing.tars}
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = kinds.get(os.path.splitext(entry.name)[1])
                if kind is not None and not entry.name.startswith("."):
                    found = entry.stat()
                    kind[entry.name] = [found.st_size, found.st_mtime_ns]
        return listing


def open_index(folder: Path) -> Index:
    """The merged index of `folder`, brought up to date. Raises StoreError for a folder that keeps changing."""
    for _ in range(_RACES):
        try:
            index = _open(folder)
        except FileNotFoundError:  # listed a moment ago, gone now
            if not folder.is_dir():
                raise
            time.sleep(0.05)
            continue
        for problem in index.problems:
            log.warning("%s", problem)
        return index
    raise StoreError(f"{folder}: its files keep changing; start again when the job that does it has ended")


def _open(folder: Path) -> Index:
    listing, places = Listing.of(folder), _places(folder)
    index = _load(folder, places, listing)
    if index is not None and index.indices == listing.indices:
        return index
    for place in places:
        with _kept(place) as kept:
            if kept:
                listing = Listing.of(folder)  # another process may have merged while this one waited
                index = _load(folder, places, listing)
                if index is None or index.indices != listing.indices:
                    index = _merge(index or Index(folder), listing, place)
                return index
    return _merge(index or Index(folder), listing, None)


def _places(folder: Path) -> list[Path]:
    name = blake2b(os.fsencode(folder.resolve()), digest_size=8).hexdigest()
    return [folder / FOLDER, cache_folder() / "features" / name]


@contextmanager
def _kept(place: Path) -> Iterator[bool]:
    """Whether files can be kept in `place`; if so nobody else changes them meanwhile."""
    with ExitStack() as stack:
        try:
            place.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(place / LOCK, fcntl.LOCK_EX, patient=True))
            kept = os.access(place, os.W_OK)
        except (StoreError, OSError) as error:
            log.debug("%s: no index can be kept here (%s)", place, error)
            kept = False
        yield kept


def _load(folder: Path, places: list[Path], listing: Listing) -> Index | None:
    """The index that is kept, if all that it was merged from is as it was."""
    for place in places:
        try:
            facts = json.loads((place / CATALOG).read_text(encoding="utf-8"))
            if facts["format"] != FORMAT:
                continue
            shards = [Shard(*shard) for shard in facts["shards"]]
            same = all(listing.indices.get(name) == stamp for name, stamp in facts["indices"].items()) and all(
                listing.tars.get(f"{shard.name}.tar") == stamp
                for shard, stamp in zip(shards, facts["seen"], strict=True)
            )
            if not same:
                continue
            kinds = {kind: open_kind(place / file) for kind, file in facts["files"].items()}
            return Index(
                folder,
                place,
                facts["indices"],
                shards,
                facts["seen"],
                facts["layouts"],
                kinds,
                facts["files"],
                facts["problems"],
            )
        except (OSError, KeyError, TypeError, ValueError) as error:  # none, torn, or being replaced: merge anew
            log.debug("%s: no index (%s)", place, error)
    return None


def open_kind(path: Path) -> KindIndex:
    """A kind's file, memory-mapped. Raises OSError or ValueError."""
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    rows = np.frombuffer(batch.column("row").buffers()[1], ROW, count=batch.num_rows)
    return KindIndex(batch.column("key").to_numpy(), rows, batch.column("clip"))


def write_kind(path: Path, index: KindIndex) -> None:
    rows = pa.FixedSizeBinaryArray.from_buffers(pa.binary(ROW.itemsize), len(index), [None, pa.py_buffer(index.rows)])
    batch = pa.record_batch([pa.array(index.keys), rows, index.clips], ["key", "row", "clip"])
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, batch.schema) as writer:
        writer.write_batch(batch)


@dataclass(frozen=True)
class _Part:
    """The rows of one index file, its numbers not yet the merged index's."""

    table: pa.Table
    shards: np.ndarray  # (shards of the file,) number in the merged index
    usable: np.ndarray  # (shards of the file,) bool
    layouts: np.ndarray  # (layouts of the file,) number in the merged index

    def of(self, kind: str) -> tuple[np.ndarray, np.ndarray, pa.Array]:
        """Keys, rows and clips."""
        kinds, layouts = (self.table[name].combine_chunks() for name in ("kind", "layout"))
        number = kinds.dictionary.index(kind).as_py()
        own = self.table["shard"].to_numpy()
        chosen = np.flatnonzero((kinds.indices.to_numpy() == number) & self.usable[own])
        rows = np.empty(len(chosen), ROW)
        for name in ("offset", "frames", "crc"):
            rows[name] = self.table[name].to_numpy()[chosen]
        rows["shard"] = self.shards[own[chosen]]
        rows["layout"] = self.layouts[layouts.indices.to_numpy()[chosen]]
        clips = self.table["clip"].combine_chunks().take(pa.array(chosen)).cast(pa.large_string())
        return self.table["key"].to_numpy()[chosen], rows, clips


def _merge(index: Index, listing: Listing, place: Path | None) -> Index:
    """Add the index files that are not in `index` yet; keep the result in `place`."""
    parts: dict[str, list[_Part]] = {}
    for name in sorted(set(listing.indices) - set(index.indices)):
        try:
            table, shards = read_index(index.folder / name)
        except StoreError as error:
            index.problems.append(str(error))
        else:
            part = _numbered(index, table, shards, listing)
            for kind in table["kind"].unique().to_pylist():
                parts.setdefault(kind, []).append(part)
        index.indices[name] = listing.indices[name]
    made = np.array([shard.made_ns for shard in index.shards], dtype=np.int64)
    if place != index.place:  # the other place's files may go at any time
        parts = {kind: [] for kind in index.kinds} | parts
        index.place, index.files = place, {}
    old = set(index.files.values())
    for kind, added in sorted(parts.items()):
        merged = _merged(index.kinds.get(kind), [part.of(kind) for part in added], made)
        if len(merged):
            index.kinds[kind] = merged if index.place is None else _keep(index, kind, merged)
    if index.place is not None:
        _keep_catalog(index, index.place, old)
    return index


def _numbered(index: Index, table: pa.Table, shards: list[Shard], listing: Listing) -> _Part:
    known = {shard.name for shard in index.shards}
    numbers, usable = np.zeros(len(shards), dtype=np.uint32), np.zeros(len(shards), dtype=bool)
    for place, shard in enumerate(shards):
        if shard.name in known:  # in two index files, while they are being put together
            continue
        name = f"{shard.name}.tar"
        tar = listing.tars.get(name)
        if tar is None:
            index.problems.append(f"{index.folder / name}: is missing, though an index lists it; put it back")
        elif tar[0] != shard.size:
            index.problems.append(f"{index.folder / name}: {tar[0]} bytes, its index says {shard.size}")
        numbers[place], usable[place] = len(index.shards), tar is not None and tar[0] == shard.size
        index.shards.append(shard)
        index.seen.append(tar)
    layouts = table["layout"].combine_chunks().dictionary.to_pylist()
    index.layouts += [layout for layout in layouts if layout not in index.layouts]
    return _Part(table, numbers, usable, np.array([index.layouts.index(layout) for layout in layouts], dtype=np.uint32))


def _merged(old: KindIndex | None, new: list[tuple[np.ndarray, np.ndarray, pa.Array]], made: np.ndarray) -> KindIndex:
    """One sorted index; of the rows of a clip, the one in the newest shard."""
    pieces = ([(old.keys, old.rows, old.clips)] if old is not None else []) + new
    keys = np.concatenate([piece[0] for piece in pieces])
    rows = np.concatenate([piece[1] for piece in pieces])
    clips = pa.concat_arrays([piece[2] for piece in pieces])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        stay = np.ones(len(order), dtype=bool)
        stay[_superseded(np.union1d(twice, twice + 1), order, keys, rows, clips, made)] = False
        keys, order = keys[stay], order[stay]
    return KindIndex(keys, rows[order], clips.take(pa.array(order)))


def _superseded(
    places: np.ndarray, order: np.ndarray, keys: np.ndarray, rows: np.ndarray, clips: pa.Array, made: np.ndarray
) -> np.ndarray:
    """Of the places that share a key with another, those whose clip has a newer row."""
    own = order[places]
    names = clips.take(pa.array(own)).dictionary_encode().indices.to_numpy()
    by_age = np.lexsort((made[rows["shard"][own]], names, keys[places]))
    names, of_key = names[by_age], keys[places][by_age]
    return places[by_age[:-1][(names[1:] == names[:-1]) & (of_key[1:] == of_key[:-1])]]


def _keep(index: Index, kind: str, merged: KindIndex) -> KindIndex:
    """The same, from disk; as it is where the disk is full."""
    assert index.place is not None
    name = f"{quote(kind, safe='')}-{time.time_ns():x}.arrow"
    try:
        write_kind(index.place / name, merged)
    except OSError as error:
        log.warning("%s: the index stays in memory (%s)", index.place, error)
        (index.place / name).unlink(missing_ok=True)
        index.place, index.files = None, {}
        return merged
    index.files[kind] = name
    return open_kind(index.place / name)


def _keep_catalog(index: Index, place: Path, old: set[str]) -> None:
    facts = {
        "format": FORMAT,
        "indices": index.indices,
        "shards": [[shard.name, shard.size, shard.made_ns] for shard in index.shards],
        "seen": index.seen,
        "layouts": index.layouts,
        "files": index.files,
        "problems": index.problems,
    }
    try:
        write_atomically(place / CATALOG, json.dumps(facts, ensure_ascii=False))
    except OSError as error:
        log.warning("%s: the index will have to be merged again (%s)", place, error)
        return
    for path in place.glob("*.arrow"):
        if path.name not in index.files.values():  # whoever has them open keeps them
            path.unlink(missing_ok=True)
