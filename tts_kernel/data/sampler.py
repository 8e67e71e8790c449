"""Length-bucketed batches in a seeded order that can be resumed at any batch, also after the data have grown.

Rows are taken in windows of the manifest's order: within a window they are sorted by length, cut into batches and
the batches shuffled. A window that is done is never opened again in the same epoch, so what has been seen is always
a prefix of the rows plus part of one window. When more rows become available (more mels, appended behind the ones
that were), the next window starts at the first row not yet seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Position:
    """Where to go on: the next batch of the window of rows [start, end) of an epoch; start == end opens a new one."""

    epoch: int = 0
    start: int = 0
    end: int = 0
    batch: int = 0

    def to_mapping(self) -> dict[str, int]:
        return asdict(self)


class PlannedBatch(NamedTuple):
    rows: np.ndarray  # of the manifest
    after: Position  # where to go on once this batch has been used


@dataclass(frozen=True)
class BatchPlan:
    """Which rows form which batch. Equal fields give equal batches."""

    rows: np.ndarray  # trainable rows of the manifest, in its order
    lengths: np.ndarray  # (len(rows),) what a batch is padded to
    available: int  # how many of `rows`, from the head, can be used now
    batch_size: int
    window: int = 4096  # rows; a whole number of batches, so that only an epoch's last one is short
    seed: int = 0
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.window % self.batch_size:
            object.__setattr__(self, "window", max(self.window // self.batch_size, 1) * self.batch_size)

    def updates_per_epoch(self, grad_accumulation: int = 1) -> int:
        """Of all rows, available or not: what a learning-rate horizon is computed from."""
        return -(-len(self.rows) // (self.batch_size * grad_accumulation))

    def epoch(self, position: Position) -> Iterator[PlannedBatch]:
        """From `position` to the end of its epoch, or of what is available."""
        while True:
            if position.start == position.end:
                end = min(position.start + self.window, self.available)
                if end <= position.start:
                    return
                position = Position(position.epoch, position.start, end, 0)
            batches = self.window_batches(position)
            for number in range(position.batch, len(batches)):
                done = number + 1 == len(batches)
                after = (
                    Position(position.epoch, position.end, position.end, 0)
                    if done
                    else Position(position.epoch, position.start, position.end, number + 1)
                )
                yield PlannedBatch(self.rows[batches[number]], after)
            position = Position(position.epoch, position.end, position.end, 0)

    def exhausted(self, position: Position) -> bool:
        """Whether everything available is used up although the epoch has more rows."""
        return position.start == position.end >= self.available < len(self.rows)

    def window_batches(self, position: Position) -> list[np.ndarray]:
        """Indices into `rows`, one array per batch, in their order of use."""
        indices = np.arange(position.start, position.end)
        generator = np.random.default_rng([self.seed, position.epoch, position.start])
        if self.shuffle:
            indices = generator.permutation(indices)  # so that rows of one length meet others in every epoch
        indices = indices[np.argsort(self.lengths[indices], kind="stable")]
        batches = [indices[first : first + self.batch_size] for first in range(0, len(indices), self.batch_size)]
        if self.shuffle:
            batches = [batches[number] for number in generator.permutation(len(batches))]
        return batches


def padding_waste(plan: BatchPlan) -> float:
    """Share of the positions of a first epoch's first window that are padding."""
    end = min(plan.window, plan.available)
    batches = plan.window_batches(Position(end=end)) if end else []
    lengths = [plan.lengths[batch] for batch in batches]
    padded = sum(int(batch.max()) * len(batch) for batch in lengths)
    return 1.0 - sum(int(batch.sum()) for batch in lengths) / padded if padded else 0.0
