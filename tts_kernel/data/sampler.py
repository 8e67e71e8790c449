"""Length-bucketed batches in a seeded order that can be resumed at any batch, also after the data have grown.

What is available when an epoch begins is one segment of the manifest's order: its rows are shuffled, taken in
windows, and within a window sorted by length and cut into batches, which are shuffled again. When more rows have become
available at its end (more mels, appended behind the ones that were), they are the next segment, so what has been seen
always is a prefix of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Position:
    """Where to go on: a batch of the window that begins at shuffled row `row` of the segment [start, end) of an epoch.
    start == end opens a new segment."""

    epoch: int = 0
    start: int = 0
    end: int = 0
    row: int = 0
    batch: int = 0

    def to_mapping(self) -> dict[str, int]:
        return asdict(self)


class PlannedBatch(NamedTuple):
    rows: np.ndarray  # of the manifest
    after: Position  # where to go on once this batch has been used
    idle: bool = False  # the rows are another process's: there were fewer of them than processes


@dataclass(frozen=True)
class BatchPlan:
    """Which rows form which batch. Equal fields give equal batches; `world` processes share each of them."""

    rows: np.ndarray  # trainable rows of the manifest, in its order
    lengths: np.ndarray  # (len(rows),) what a batch is padded to
    available: int  # how many of `rows`, from the head, can be used now
    batch_size: int  # of all processes together
    window: int = 4096  # rows sorted by length at once; a whole number of batches
    seed: int = 0
    shuffle: bool = True
    rank: int = 0  # of this process
    world: int = 1  # processes; each takes every world-th row of a batch, which is the same whatever their number
    clips: np.ndarray | None = None  # (len(rows),) numbers of the target clips: rows of one clip go to other batches

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world <= self.batch_size:
            raise ValueError(
                f"rank {self.rank} of {self.world} processes with batch_size {self.batch_size}: expected a rank below "
                "their number, and a row of a full batch for each"
            )
        if self.window % self.batch_size:
            object.__setattr__(self, "window", max(self.window // self.batch_size, 1) * self.batch_size)

    def share(self, rank: int, world: int) -> BatchPlan:
        """The same plan for one of several processes."""
        return replace(self, rank=rank, world=world)

    def updates_per_epoch(self, grad_accumulation: int = 1) -> int:
        """Of all rows, available or not: what a learning-rate horizon is computed from."""
        return -(-len(self.rows) // (self.batch_size * grad_accumulation))

    def epoch(self, position: Position) -> Iterator[PlannedBatch]:
        """From `position` to the end of its epoch, or of what is available."""
        while True:
            if position.start == position.end:
                if self.available <= position.start:
                    return
                position = Position(position.epoch, position.start, self.available)
            yield from self._segment(position)
            position = Position(position.epoch, position.end, position.end)

    def _segment(self, position: Position) -> Iterator[PlannedBatch]:
        end = Position(position.epoch, position.end, position.end)
        order = self.segment_rows(position)
        while position.row < len(order):
            batches = self.window_batches(position, order)
            for number in range(position.batch, len(batches)):
                after = replace(position, batch=number + 1)
                if number + 1 == len(batches):
                    after = replace(position, row=position.row + self.window, batch=0)
                    after = after if after.row < len(order) else end
                own = batches[number][self.rank :: self.world]
                idle = len(own) == 0
                yield PlannedBatch(self.rows[batches[number][:1] if idle else own], after, idle)
            position = replace(position, row=position.row + self.window, batch=0)

    def exhausted(self, position: Position) -> bool:
        """Whether everything available is used up although the epoch has more rows."""
        return position.start == position.end >= self.available < len(self.rows)

    def segment_rows(self, position: Position) -> np.ndarray:
        """Indices into `rows`: a segment's, shuffled anew in every epoch."""
        indices = np.arange(position.start, position.end, dtype=np.int32)  # half the memory; manifests have fewer rows
        if self.shuffle:
            np.random.default_rng([self.seed, position.epoch, position.start]).shuffle(indices)
        return indices

    def window_batches(self, position: Position, order: np.ndarray) -> list[np.ndarray]:
        """Indices into `rows`, one array per batch in their order of use, of the window at `position.row`."""
        indices = order[position.row : position.row + self.window]
        indices = indices[self._by_length(indices)]
        batches = np.split(indices, range(self.batch_size, len(indices), self.batch_size))
        if self.shuffle:
            generator = np.random.default_rng([self.seed, position.epoch, position.start, position.row, 1])
            batches = [batches[number] for number in generator.permutation(len(batches))]
        return batches

    def _by_length(self, indices: np.ndarray) -> np.ndarray:
        """Their order: sorted by length. A clip's pairs are equally long and would lie side by side, which leaves a
        batch half as many clips to learn from; so first each clip's first pair by length, then the second ones."""
        lengths = self.lengths[indices]
        if self.clips is None:
            return np.argsort(lengths, kind="stable")
        return np.lexsort((lengths, _occurrences(self.clips[indices])))


def _occurrences(values: np.ndarray) -> np.ndarray:
    """(n,) -> (n,) how many equal values come before each."""
    order = np.argsort(values, kind="stable")
    ranked, place = values[order], np.arange(len(values))
    new = np.append(True, ranked[1:] != ranked[:-1])[: len(values)]
    counts = np.empty(len(values), dtype=np.int64)
    counts[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    return counts


def padding_waste(plan: BatchPlan) -> float:
    """Share of the positions of a first epoch's first windows that are padding."""
    first = Position(end=min(16 * plan.window, plan.available))
    order = plan.segment_rows(first)
    padded = filled = 0
    for row in range(0, len(order), plan.window):
        for batch in plan.window_batches(replace(first, row=row), order):
            lengths = plan.lengths[batch]
            padded += int(lengths.max()) * len(lengths)
            filled += int(lengths.sum())
    return 1.0 - filled / padded if padded else 0.0
