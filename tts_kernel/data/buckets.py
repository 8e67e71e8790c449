"""MeloTTS's own batches: buckets of fixed lengths, which discard clips that none of them holds and take others twice.

A bucket holds the lengths above its lower and up to its upper boundary. It is shuffled by the epoch's number alone,
filled up to whole batches with its first clips once more, and the batches of all buckets are shuffled together. Our own
way is `sampler.BatchPlan`, which uses every clip once; this one is for comparing with runs of the reference.
Source: parity case training_facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from tts_kernel.data.sampler import PlannedBatch, Position

BOUNDARIES = (32, 300, 400, 500, 600, 700, 800, 900, 1000)  # spectrogram frames


def discards(lengths: np.ndarray, boundaries: Sequence[int] = BOUNDARIES) -> dict[str, int]:
    """Reason -> how many clips of these lengths, in frames, no bucket would hold."""
    shortest, longest = boundaries[0], boundaries[-1]
    found = {
        f"{shortest:,} frames or fewer": int((lengths <= shortest).sum()),
        f"more than {longest:,} frames": int((lengths > longest).sum()),
    }
    return {reason: count for reason, count in found.items() if count}


@dataclass(frozen=True)
class Bucket:
    """Clips of one range of lengths."""

    upper: int  # the longest that it holds; it begins behind the bucket before it
    rows: np.ndarray  # numbers of its clips


def buckets_of(lengths: np.ndarray, boundaries: Sequence[int] = BOUNDARIES) -> list[Bucket]:
    """The buckets that are not empty; the room of an empty one goes to the next. Raises ValueError for boundaries that
    do not rise, and where all clips would be discarded."""
    if len(boundaries) < 2 or (np.diff(boundaries) <= 0).any():
        raise ValueError(f"boundaries: found {list(boundaries)}, expected at least two that rise")
    place = np.searchsorted(boundaries, lengths, side="left")  # of the upper boundary
    found = [Bucket(upper, np.flatnonzero(place == number)) for number, upper in enumerate(boundaries) if number]
    kept = [bucket for bucket in found if len(bucket.rows)]
    if not kept:
        raise ValueError(
            f"no bucket holds any of {len(lengths):,} clips ({discards(lengths, boundaries)}); expected lengths above "
            f"{boundaries[0]} and up to {boundaries[-1]} frames: bring others, or batch by windows"
        )
    return kept


@dataclass(frozen=True)
class BucketPlan:
    """Which rows form which batch, as `sampler.BatchPlan`. With `world` processes each takes every world-th row of a
    batch, as the reference's processes do where each has `batch_size // world` rows."""

    rows: np.ndarray  # of the manifest, those that are discarded among them
    lengths: np.ndarray  # (len(rows),) frames
    batch_size: int  # of all processes together
    boundaries: tuple[int, ...] = BOUNDARIES
    rank: int = 0  # of this process
    world: int = 1  # processes

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world or self.batch_size % self.world:
            raise ValueError(
                f"rank {self.rank} of {self.world} processes with batch_size {self.batch_size}: expected a rank below "
                "their number, and a batch_size that they can share evenly"
            )

    def __str__(self) -> str:
        used, repeated = sum(len(bucket.rows) for bucket in self.buckets), self.repeated
        lost = discards(self.lengths, self.boundaries)
        lines = [f"buckets: {used:,} of {len(self.rows):,} clips, {repeated:,} of them twice or more in every epoch"]
        return "\n".join([*lines, *(f"{count:,} clips discarded: {reason}" for reason, count in lost.items())])

    @cached_property
    def buckets(self) -> list[Bucket]:
        return buckets_of(self.lengths, self.boundaries)

    @property
    def available(self) -> int:
        return len(self.rows)

    @property
    def window(self) -> int:
        return len(self.rows)

    @property
    def repeated(self) -> int:
        """How many rows an epoch has beyond one of each clip that it uses."""
        return sum(self.padded(bucket) - len(bucket.rows) for bucket in self.buckets)

    def padded(self, bucket: Bucket) -> int:
        """Rows that a bucket has once its last batch is full."""
        return -(-len(bucket.rows) // self.batch_size) * self.batch_size

    def share(self, rank: int, world: int) -> BucketPlan:
        """The same plan for one of several processes."""
        return replace(self, rank=rank, world=world)

    def updates_per_epoch(self, grad_accumulation: int = 1) -> int:
        batches = sum(self.padded(bucket) for bucket in self.buckets) // self.batch_size
        return -(-batches // grad_accumulation)

    def exhausted(self, position: Position) -> bool:
        """Never: all rows are available from the start."""
        return False

    def epoch(self, position: Position) -> Iterator[PlannedBatch]:
        """From `position` to the end of its epoch."""
        count = len(self.rows)
        if position.start >= count:
            return
        batches = self.batches(position.epoch)
        for number in range(position.batch, len(batches)):
            after = Position(position.epoch, 0, count, batch=number + 1)
            if number + 1 == len(batches):
                after = Position(position.epoch, count, count)
            yield PlannedBatch(self.rows[batches[number][self.rank :: self.world]], after)

    def batches(self, epoch: int) -> np.ndarray:
        """(batches, batch_size) indices into `rows`, of all processes, in their order of use."""
        generator = torch.Generator().manual_seed(epoch)
        # All buckets are shuffled before the order of batches is drawn: the numbers come from one sequence.
        filled = [
            np.resize(bucket.rows[torch.randperm(len(bucket.rows), generator=generator).numpy()], self.padded(bucket))
            for bucket in self.buckets
        ]
        batches = np.concatenate(filled).reshape(-1, self.batch_size)
        return batches[torch.randperm(len(batches), generator=generator).numpy()]

    def padding_waste(self) -> float:
        """Share of the positions of an epoch that are padding."""
        lengths = self.lengths[self.batches(0)]
        return 1.0 - float(lengths.sum()) / float(lengths.max(axis=1).sum() * self.batch_size)
