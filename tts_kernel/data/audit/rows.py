"""Every pair of every split as columns, and the clips they are made of: what the checks look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.manifest import Manifest, Problems

TEXT = pa.large_string()
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: keys multiplied by it lie far apart


@dataclass(frozen=True)
class Split:
    """One manifest: the pairs that can be used, and what is wrong with the other lines."""

    name: str  # train or validation
    manifest: Manifest
    problems: Problems


@dataclass(frozen=True)
class Rows:
    """Pairs of all splits, one after the other. A clip is a distinct `target_id`, numbered by first appearance."""

    splits: tuple[Split, ...]
    _categories: dict[str, tuple[list[str], np.ndarray]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return sum(len(split.manifest) for split in self.splits)

    def __contains__(self, column: str) -> bool:
        return any(column in split.manifest for split in self.splits)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for split in self.splits for name in split.manifest.columns))

    @cached_property
    def starts(self) -> np.ndarray:
        """(splits + 1,): the row at which each split begins, and their number."""
        return np.cumsum([0, *(len(split.manifest) for split in self.splits)])

    @cached_property
    def _targets(self) -> pa.ChunkedArray:
        return self.values("target_id").dictionary_encode()

    @cached_property
    def clips(self) -> pa.Array:
        """(clips,) ids."""
        return self._targets.chunk(0).dictionary if self._targets.num_chunks else pa.array([], TEXT)

    @cached_property
    def clip(self) -> np.ndarray:
        """(rows,) int32: the target's number."""
        return _indices(self._targets)

    @cached_property
    def prompt(self) -> np.ndarray:
        """(rows,) int32: the prompt's number, -1 where it is no target of any row."""
        found = pc.index_in(self.values("prompt_id"), value_set=self.clips)
        return found.fill_null(-1).to_numpy()

    @cached_property
    def first(self) -> np.ndarray:
        """(clips,) the first row of each clip, ascending."""
        first = np.empty(len(self.clips), dtype=np.int64)
        first[self.clip[::-1]] = np.arange(len(self) - 1, -1, -1)
        return first

    def values(self, column: str, rows: np.ndarray | None = None) -> pa.ChunkedArray:
        """A column over all rows, or over ascending `rows`; text as text, null where a split does not have it."""
        parts: list[pa.ChunkedArray] = []
        for number, split in enumerate(self.splits):
            manifest, start, end = split.manifest, self.starts[number], self.starts[number + 1]
            if rows is not None:
                inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, end)] - start
                manifest = manifest.select([column]).take(inside)
                end = start + len(inside)
            if column in manifest:
                values = manifest.strings(column)
                parts.append(values.cast(TEXT) if _is_text(values.type) else values)
            else:
                parts.append(pa.chunked_array([pa.nulls(int(end - start))]))
        known = [part.type for part in parts if not pa.types.is_null(part.type)]
        kind = known[0] if known else TEXT
        if any(other != kind for other in known):  # a field of the user's that is a number in one split only
            kind = TEXT
        return pa.chunked_array([chunk for part in parts for chunk in part.cast(kind).chunks], kind)

    def texts(self, column: str, rows: np.ndarray | None = None) -> pa.ChunkedArray:
        """The same, as text whatever it was: a field that is not of the schema can be a number."""
        return self.values(column, rows).cast(TEXT)

    def numbers(self, column: str) -> np.ndarray:
        """(rows,) int64: an integer column, -1 where it is not filled."""
        parts = [
            split.manifest.numbers(column) if column in split.manifest else np.full(len(split.manifest), -1)
            for split in self.splits
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def has(self, column: str) -> np.ndarray:
        """(rows,) bool: where a column is filled."""
        return np.concatenate([np.empty(0, bool), *(split.manifest.has(column) for split in self.splits)])

    def categories(self, column: str) -> tuple[list[str], np.ndarray]:
        """The distinct values of a text column with few of them, and (rows,) int32 which of them each row has, -1 for
        none, as everywhere if there is no such column."""
        if column not in self._categories:
            encoded = self.values(column).dictionary_encode()
            names = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
            self._categories[column] = names, _indices(encoded)
        return self._categories[column]

    def split_of(self, rows: np.ndarray) -> np.ndarray:
        """(rows,) the number of the split that each of these rows is in."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def places(self, rows: np.ndarray) -> list[str]:
        """`file:line` of each of these rows."""
        manifests = [self.splits[number].manifest for number in self.split_of(rows)]
        within = rows - self.starts[self.split_of(rows)]
        return [f"{each.path.name}:{each.line(int(row))}" for each, row in zip(manifests, within, strict=True)]


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _indices(encoded: pa.ChunkedArray) -> np.ndarray:
    parts = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    return np.concatenate([np.empty(0, np.int32), *parts])
