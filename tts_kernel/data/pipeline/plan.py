"""Batches before any audio is decoded: the processors' rules applied to lengths, with an account of every processor.

The real iteration reads exactly these batches, so what is counted here is what is trained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tts_kernel.data.pipeline import rules
from tts_kernel.data.pipeline.accounts import MOST_NAMED, Account, Accounts, Drop, first_names
from tts_kernel.data.pipeline.lengths import RATE, Lengths
from tts_kernel.data.pipeline.processors import (
    NAMES,
    Batching,
    ComputeFbank,
    Filter,
    ParquetOpener,
    Pipeline,
    PipelineError,
    Resample,
    Shuffle,
    Sort,
)
from tts_kernel.data.sampler import PlannedBatch, Position

_Dropping = ParquetOpener | Filter | Resample | ComputeFbank


@dataclass(frozen=True)
class Counted:
    """One epoch: the batches and how they came about."""

    pipeline: Pipeline
    lengths: Lengths
    order: np.ndarray  # (kept,) rows of `lengths` in the order that batching met them
    ends: np.ndarray  # (batches,) where in `order` each batch ends
    accounts: Accounts
    empty_first: bool = False  # the reference would begin with an empty batch, and fail there

    def __len__(self) -> int:
        return len(self.ends)

    @cached_property
    def starts(self) -> np.ndarray:
        """(batches,) where in `order` each batch begins."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64) if len(self.ends) else self.ends

    def batch(self, number: int) -> np.ndarray:
        """Rows of `lengths` in one batch, as collected; padding reorders them."""
        return self.order[self.starts[number] : self.ends[number]]

    @cached_property
    def frames(self) -> np.ndarray:
        """(kept,) mel frames of the rows in `order`."""
        return self.lengths.frames[self.order]

    def sizes(self) -> np.ndarray:
        """(batches,) utterances."""
        return self.ends - self.starts

    def padded_frames(self) -> np.ndarray:
        """(batches,) mel frames with padding: longest times rows."""
        return np.maximum.reduceat(self.frames, self.starts) * self.sizes() if len(self) else self.ends

    def padding_waste(self) -> float:
        """Share of the epoch's mel frames that are padding."""
        padded = int(self.padded_frames().sum())
        return 1.0 - int(self.frames.sum()) / padded if padded else 0.0

    def optimiser_steps(self, grad_accumulation: int) -> int:
        """Per epoch; what is left at its end makes a step of its own."""
        return -(-len(self) // grad_accumulation)

    def oversize(self) -> np.ndarray:
        """Rows of `lengths` that exceed max_frames_in_batch alone; each is a batch of its own."""
        batching = self.pipeline.batching
        if batching.batch_type != "dynamic":
            return self.order[:0]
        return self.order[self.frames > batching.max_frames_in_batch]


def count(
    pipeline: Pipeline, lengths: Lengths, *, epoch: int = 0, seed: int = 1986, order: np.ndarray | None = None
) -> Counted:
    """What `pipeline` makes of these utterances. `order`: rows as they are read, all in a row if not given; shuffling
    is by `seed` + `epoch`, so epoch 0 is the reference's with that seed."""
    rows = np.arange(len(lengths)) if order is None else np.asarray(order)
    generator = random.Random(seed + epoch)
    frames = lengths.frames
    accounts: list[Account] = []
    ends, empty_first = np.zeros(0, np.int64), False
    for processor in pipeline.processors:
        entered, note = len(rows), ""
        drops: tuple[Drop, ...] = ()
        if isinstance(processor, _Dropping):
            rows, drops, note = _dropped(processor, lengths, rows)
        elif isinstance(processor, Shuffle):
            rows = rules.shuffled(rows, processor.shuffle_size, generator)
        elif isinstance(processor, Sort):
            rows = rules.in_sorted_runs(rows, frames, processor.sort_size)
        elif isinstance(processor, Batching):
            ends = _ends(processor, frames[rows])
            empty_first = bool(len(ends)) and bool(ends[0] == 0)
            ends = ends[1:] if empty_first else ends
            note = f"{len(ends):,} batch{'' if len(ends) == 1 else 'es'}"
        accounts.append(Account(NAMES[type(processor)], entered, len(rows), drops, note))
    told = Accounts(tuple(accounts), _lost_speakers(pipeline, lengths, rows))
    return Counted(pipeline, lengths, rows, ends, told, empty_first)


def _dropped(processor: _Dropping, lengths: Lengths, rows: np.ndarray) -> tuple[np.ndarray, tuple[Drop, ...], str]:
    here = lengths.take(rows)
    if isinstance(processor, ParquetOpener):
        kept, drops = rules.opened(here)
    elif isinstance(processor, Filter):
        kept, drops = rules.filtered(here, processor)
    elif isinstance(processor, Resample):
        kept, drops = rules.resampled(here, processor)
    else:
        kept, drops = rules.framed(here)
    note = f"{int((here.rates[kept] != RATE).sum()):,} resampled" if isinstance(processor, Resample) else ""
    return rows[kept], tuple(drops), note


def _ends(processor: Batching, frames: np.ndarray) -> np.ndarray:
    """(rows,) mel frames in order -> (batches,) where each batch ends."""
    if processor.batch_type == "static":
        return rules.static_ends(len(frames), processor.batch_size)
    return rules.dynamic_ends(frames, processor.max_frames_in_batch)


def _lost_speakers(pipeline: Pipeline, lengths: Lengths, kept: np.ndarray) -> tuple[str, ...]:
    """`name (12 utterances): 10 too short, 2 too long` of every speaker of whom nothing is left."""
    number = len(lengths.speaker_names)
    came = np.bincount(lengths.speakers, minlength=number)
    stayed = np.bincount(lengths.speakers[kept], minlength=number)
    said = []
    lost = np.flatnonzero((came > 0) & (stayed == 0))
    for speaker in lost[:MOST_NAMED]:
        rows = np.flatnonzero(lengths.speakers == speaker)
        reasons: list[str] = []
        for processor in pipeline.processors:
            if isinstance(processor, _Dropping):
                rows, drops, _ = _dropped(processor, lengths, rows)
                reasons += [f"{drop.count:,} {drop.reason}" for drop in drops]
        utterances = f"{came[speaker]:,} utterance{'' if came[speaker] == 1 else 's'}"
        said.append(f"{lengths.speaker_names[speaker]} ({utterances}): {', '.join(reasons)}")
    return (*said, *(lengths.speaker_names[speaker] for speaker in lost[MOST_NAMED:]))


def check(counted: Counted, min_kept: float = 0.1, allow_lost_speakers: bool = False) -> None:
    """Raises PipelineError where too little is left to train on, naming processor, setting and what keeps the rest."""
    problems = counted.accounts.problems(min_kept, allow_lost_speakers)
    if problems:
        raise PipelineError("\n  ".join(["the pipeline cannot be trained on:", *problems]))


def remarks(counted: Counted) -> list[str]:
    """What is worth knowing although it stops nothing."""
    said, lengths = [], counted.lengths
    if again := len(lengths.paths) - len(set(lengths.paths)):
        said.append(f"data.list names shards twice, {again:,} times in all; what they hold is trained on as often")
    if counted.empty_first:
        first = lengths.utterances[counted.order[0]]
        said.append(f"the first utterance, {first}, exceeds max_frames_in_batch; upstream's loader would fail on it")
    if len(big := counted.oversize()):
        longest = big[np.argmax(lengths.frames[big])]
        limit = counted.pipeline.batching.max_frames_in_batch
        said.append(
            f"longer than max_frames_in_batch {limit}, each a batch of its own: {len(big):,} of "
            f"{len(counted.order):,} utterances; {lengths.utterances[longest]} has {lengths.frames[longest]:,} frames"
        )
    off = counted.order[lengths.trimmed[counted.order] != 0]
    if len(off):
        worst = np.abs(lengths.trimmed[off]).max()
        said.append(
            f"trimmed to 2 mel frames per speech token: {len(off):,} of {len(counted.order):,} utterances, by "
            f"{worst:,} tokens at most: {', '.join(first_names(lengths.utterances[off]))}"
        )
    return said


@dataclass(frozen=True)
class PipelinePlan:
    """Epoch after epoch of batches, from any position; what a BatchLoader and a Trainer take. `world` processes deal
    the batches of one epoch among them, so all of them take equally many steps."""

    pipeline: Pipeline
    lengths: Lengths
    seed: int = 1986
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world} processes; expected a rank below their number")

    @cached_property
    def first(self) -> Counted:
        """The first epoch."""
        return self.counted(0)

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows of `lengths` that are trained on."""
        return np.sort(self.first.order)

    @property
    def available(self) -> int:
        """All of them, from the beginning."""
        return len(self.rows)

    @property
    def batch_size(self) -> int:
        """Utterances in the largest batch of the first epoch."""
        return int(self.first.sizes().max(initial=0))

    @property
    def window(self) -> int:
        """Utterances among which a batch finds its company: those that are sorted together."""
        sort = self.pipeline.of(Sort)
        return sort.sort_size if sort else self.batch_size

    def share(self, rank: int, world: int) -> PipelinePlan:
        """The same plan for one of several processes."""
        return replace(self, rank=rank, world=world)

    def counted(self, epoch: int) -> Counted:
        """One epoch. Shards come in another order in each where the pipeline shuffles."""
        lengths = self.lengths
        order = None
        if self.pipeline.of(Shuffle) is not None and epoch:
            shards = rules.share_of_shards(int(lengths.shards.max(initial=0)) + 1, epoch, 0, 1, 0, 1, True, True)
            order = np.argsort(np.argsort(shards)[lengths.shards], kind="stable")
        return count(self.pipeline, lengths, epoch=epoch, seed=self.seed, order=order)

    def updates_per_epoch(self, grad_accumulation: int = 1) -> int:
        """Of the first epoch; another order may make a batch more or less."""
        return -(-len(self.first) // (grad_accumulation * self.world))

    def exhausted(self, position: Position) -> bool:
        """Never before the end of an epoch."""
        return False

    def epoch(self, position: Position) -> Iterator[PlannedBatch]:
        """From `position` to the end of its epoch. A process without a batch of its own is idle with another's."""
        counted = self.counted(position.epoch) if position.epoch else self.first
        frames = self.lengths.frames
        for number in range(position.batch * self.world, len(counted), self.world):
            own = number + self.rank
            batch = counted.batch(own if own < len(counted) else number)
            after = replace(position, batch=number // self.world + 1)
            yield PlannedBatch(rules.padded_order(batch, frames), after, own >= len(counted))
