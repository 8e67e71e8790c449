"""The arrays of one kind, sorted by the key of the clip's name: from many parts into one memory-mapped file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

# One array, as in shards.SCHEMA; shard and layout are numbers of the merged index.
ROW = np.dtype([("offset", "<u8"), ("shard", "<u4"), ("frames", "<u4"), ("crc", "<u4"), ("layout", "<u4")])
Part = tuple[np.ndarray, np.ndarray, pa.LargeStringArray]  # keys, rows, clips


@dataclass(frozen=True)
class KindIndex:
    """The rows of one kind, sorted by key."""

    keys: np.ndarray  # (n,) uint64
    rows: np.ndarray  # (n,) ROW
    clips: pa.LargeStringArray

    def __len__(self) -> int:
        return len(self.keys)


def open_kind(path: Path) -> KindIndex:
    """A kind's file, memory-mapped. Raises OSError or ValueError."""
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    batch.validate()
    rows = np.frombuffer(batch.column("row").buffers()[1], ROW, count=batch.num_rows)
    return KindIndex(batch.column("key").to_numpy(), rows, batch.column("clip"))


def write_kind(path: Path, index: KindIndex) -> None:
    rows = pa.FixedSizeBinaryArray.from_buffers(pa.binary(ROW.itemsize), len(index), [None, pa.py_buffer(index.rows)])
    batch = pa.record_batch([pa.array(index.keys), rows, index.clips], ["key", "row", "clip"])
    with path.open("wb") as out:
        with pa.ipc.new_file(out, batch.schema) as writer:
            writer.write_batch(batch)
        out.flush()
        os.fsync(out.fileno())  # the catalog that names it must not reach the disk before it


def merged(old: KindIndex | None, new: list[Part], made: np.ndarray) -> KindIndex:
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
