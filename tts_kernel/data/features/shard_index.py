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

from tts_kernel.data.features.folder_lock import StoreError, locked
from tts_kernel.data.features.kind_index import ROW, KindIndex, Part, merged, open_kind, write_kind
from tts_kernel.data.features.shards import Shard, read_index
from tts_kernel.data.files import inside
from tts_kernel.runs import cache_folder, write_atomically

FORMAT = 1  # of the merged index
MERGED, CATALOG, LOCK = ".index", "catalog.json", ".lock"
_RACES = 20  # a file listed a moment ago may be gone, where another process puts indices together

log = logging.getLogger(__name__)

Stamp = list[int]  # size in bytes, modification time in nanoseconds


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
    odd: list[str]  # files that cannot be used, with the reason

    @classmethod
    def of(cls, folder: Path) -> Listing:
        listing = cls({}, {}, [])
        kinds = {".arrow": listing.indices, ".tar": listing.tars}
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = kinds.get(os.path.splitext(entry.name)[1])
                if kind is None or entry.name.startswith("."):
                    continue
                try:
                    entry.name.encode()
                    found = entry.stat()
                    kind[entry.name] = [found.st_size, found.st_mtime_ns]
                except UnicodeEncodeError:
                    listing.odd.append(f"{os.fsencode(entry.path)!r}: the name is not valid Unicode; rename it")
                except OSError as error:  # a link to nowhere, a loop of links, or gone
                    listing.odd.append(f"{entry.path}: {error.strerror}")
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
    for place in places:
        if index is not None and index.indices == listing.indices:
            break
        with _kept(place) as kept:
            if kept:
                listing = Listing.of(folder)  # another process may have merged while this one waited
                index = _load(folder, places, listing)
                if index is None or index.indices != listing.indices:
                    index = _merge(index or Index(folder), listing, place)
    else:
        if index is None or index.indices != listing.indices:
            index = _merge(index or Index(folder), listing, None)
    index.problems += listing.odd
    return index


def _places(folder: Path) -> list[Path]:
    name = blake2b(os.fsencode(folder.resolve()), digest_size=8).hexdigest()
    return [folder / MERGED, cache_folder() / "features" / name]


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
            kinds = {kind: open_kind(inside(place, file)) for kind, file in facts["files"].items()}
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
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:  # none, torn, or replaced
            log.debug("%s: no index (%s)", place, error)
    return None


@dataclass(frozen=True)
class _Part:
    """The rows of one index file, its numbers not yet the merged index's."""

    table: pa.Table
    shards: np.ndarray  # (shards of the file,) number in the merged index
    usable: np.ndarray  # (shards of the file,) bool
    layouts: np.ndarray  # (layouts of the file,) number in the merged index

    def of(self, kind: str) -> Part:
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
    if place is not None and place != index.place:  # what lies in the other one may change at any time
        parts = {kind: [] for kind in index.kinds} | parts
        index.files = {}
    index.place = place
    for kind, added in sorted(parts.items()):
        rows = merged(index.kinds.get(kind), [part.of(kind) for part in added], made)
        if len(rows):
            index.kinds[kind] = rows if index.place is None else _keep(index, kind, rows)
    if index.place is not None:
        _keep_catalog(index, index.place)
    pa.default_memory_pool().release_unused()  # a training that opened new shards need not hold this for hours
    return index


def _numbered(index: Index, table: pa.Table, shards: list[Shard], listing: Listing) -> _Part:
    first = len(index.shards)
    for shard in shards:
        path = index.folder / f"{shard.name}.tar"
        tar = listing.tars.get(path.name) or _stamp(path)  # it may have come while the folder was listed
        if tar is None:
            index.problems.append(f"{path}: is missing, though an index lists it; put it back")
        elif tar[0] != shard.size:
            index.problems.append(f"{path}: {tar[0]} bytes, its index says {shard.size}")
        index.shards.append(shard)
        index.seen.append(tar)
    usable = [tar is not None and tar[0] == shard.size for shard, tar in zip(shards, index.seen[first:], strict=True)]
    numbers = np.arange(first, len(index.shards), dtype=np.uint32)
    layouts = table["layout"].combine_chunks().dictionary.to_pylist()
    index.layouts += [layout for layout in layouts if layout not in index.layouts]
    places = np.array([index.layouts.index(layout) for layout in layouts], dtype=np.uint32)
    return _Part(table, numbers, np.array(usable, dtype=bool), places)


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _keep(index: Index, kind: str, rows: KindIndex) -> KindIndex:
    """The same, from disk; as it is where the disk is full."""
    assert index.place is not None
    name = f"{quote(kind, safe='')}-{time.time_ns():x}.arrow"
    try:
        write_kind(index.place / name, rows)
    except OSError as error:
        log.warning("%s: the index stays in memory (%s)", index.place, error)
        (index.place / name).unlink(missing_ok=True)
        index.place, index.files = None, {}
        return rows
    index.files[kind] = name
    return open_kind(index.place / name)


def _keep_catalog(index: Index, place: Path) -> None:
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
