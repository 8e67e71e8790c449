"""Reads everything in a feature folder and lists each array that is not what was written."""

from __future__ import annotations

import logging
import mmap
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from tts_kernel.data.features.folder_lock import StoreError
from tts_kernel.data.features.npy_files import npy_shapes
from tts_kernel.data.features.shard_format import form_of, name_bytes, name_offset
from tts_kernel.data.features.shard_index import MERGED, Listing
from tts_kernel.data.features.shards import Shard, read_index

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckReport:
    """What a check found."""

    arrays: int  # packed, and compared with their checksum
    files: int  # .npy files whose header and size were compared
    damaged: list[str]  # arrays and files that are not what was written
    problems: list[str]  # shards and indices that cannot be used, or belong to nothing

    def __str__(self) -> str:
        return (
            f"{self.arrays} packed arrays and {self.files} .npy files checked: {len(self.damaged)} damaged, "
            f"{len(self.problems)} shards or indices with problems"
        )


def check(root: Path, folder: Path, kinds: list[str]) -> CheckReport:
    """Compare every array of the shards in `folder` with its checksum, its name and shape with the index, and the size
    of every .npy of `kinds` with its header. The merged index is removed, to be made anew from what was checked."""
    damaged: list[str] = []
    problems: list[str] = []
    arrays = files = 0
    if folder.is_dir():
        shutil.rmtree(folder / MERGED, ignore_errors=True)
        arrays = _check_shards(folder, damaged, problems)
    for kind in kinds:
        files += len(npy_shapes(root / kind, damaged))
    return CheckReport(arrays, files, damaged, problems)


def _check_shards(folder: Path, damaged: list[str], problems: list[str]) -> int:
    listing, listed, arrays = Listing.of(folder), set[str](), 0
    problems += listing.odd
    with tqdm(total=sum(size for size, _ in listing.tars.values()), desc="check", unit="B", unit_scale=True) as bar:
        for name in sorted(listing.indices):
            try:
                table, shards = read_index(folder / name)
            except StoreError as error:
                problems.append(str(error))
                listed.add(name.removesuffix(".arrow"))  # its shard waits for it
                continue
            for number, shard in enumerate(shards):
                rows = table.filter(pa.array(table["shard"].to_numpy() == number))
                listed.add(shard.name)
                arrays += len(rows)
                path = folder / f"{shard.name}.tar"
                faults = shard_faults(path, shard, rows, problems)
                damaged += [f"{kind}/{clip} in {path}: {fault}" for kind, clip, fault in faults]
                bar.update(shard.size)
    for name in sorted(listing.tars):
        if name.removesuffix(".tar") not in listed:
            problems.append(f"{folder / name}: has no index: it is being written, or the next job removes it")
    return arrays


def shard_faults(path: Path, shard: Shard, rows: pa.Table, problems: list[str]) -> Iterator[tuple[str, str, str]]:
    """(kind, clip, what is wrong) of every array that is not what was written; what is wrong with the shard itself is
    added to `problems`."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if len(data) != shard.size:
                problems.append(f"{path}: {len(data)} bytes, its index says {shard.size}; it was cut, or replaced")
            yield from _faults(data, rows)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        problems.append(f"{path}: cannot be read ({error}); put it back, or delete its index")


def _faults(data: mmap.mmap, rows: pa.Table) -> Iterator[tuple[str, str, str]]:
    order = np.argsort(rows["offset"].to_numpy())  # as they lie, for the disk's sake
    columns = (rows[name].take(pa.array(order)).to_pylist() for name in ("kind", "clip", "offset", "layout", "frames"))
    crcs = rows["crc"].to_numpy()[order].tolist()
    with memoryview(data) as view:
        for kind, clip, offset, layout, frames, crc in zip(*columns, crcs, strict=True):
            form, name = form_of(layout, frames), name_bytes(clip, kind)
            start, end = offset - len(form.head), offset + form.size
            at = start - name_offset(name)
            if end > len(data):
                yield kind, clip, f"ends at byte {end}, the shard at {len(data)}; extract it again"
            elif at < 0 or bytes(view[at : at + len(name)]) != name:
                yield kind, clip, "the index does not match the shard: another name is there"
            elif bytes(view[start:offset]) != form.head:
                yield kind, clip, f"the index does not match the shard: not {list(form.shape)} of {form.dtype} there"
            elif zlib.crc32(view[offset:end]) != crc:
                yield kind, clip, "its checksum differs; extract it again"
