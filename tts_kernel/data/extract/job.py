"""The state of an extraction job in the process that runs it: what is to do, what was done, what failed and why."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from tts_kernel.audio.wav import Seconds
from tts_kernel.data.extract.backends import Died, JobError
from tts_kernel.data.extract.clip_list import Supply
from tts_kernel.data.extract.clip_work import FAILURES, MISSING, UNREADABLE, Outcome, Slice, failure_table, readable
from tts_kernel.data.features.features import FOLDER, Features
from tts_kernel.data.features.store_lock import free_names

SMALLEST = 32  # clips in a shard that is made smaller so that every worker has one
DEATHS = 2  # of workers with the same slice before it is halved
HOPELESS = 24  # deaths without a slice finished in between: it is not the clips
SAVE_EVERY = 60.0  # seconds between two versions of the table of failures

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractionReport:
    """What an extraction did. made + skipped + missing + unreadable + left = the clips it was given."""

    made: int
    skipped: int  # their array was there before
    missing: int  # no such audio file
    unreadable: int  # audio that cannot be decoded, or that the extractor refuses
    left: int  # not tried, because of the limit
    table: Path  # CSV of `failures`
    failures: pa.Table = field(repr=False)  # clip, audio, status, reason of every missing or unreadable clip
    audio_seconds: Seconds = field(default=0.0, compare=False)  # in what was made
    wall_seconds: Seconds = field(default=0.0, compare=False)

    def __str__(self) -> str:
        return (
            f"{self.made} made, {self.skipped} skipped, {self.missing} missing audio, {self.unreadable} unreadable, "
            f"{self.left} left"
        )


class Job:
    """Hands out slices, takes their outcomes, keeps count. Make one only while the folder is locked: what exists is
    looked up here."""

    def __init__(
        self,
        clips: pa.Table,
        data: Path,
        kinds: tuple[str, ...],
        audio_root: Path,
        *,
        limit: int | None,
        shard_size: int,
        workers: int,
    ) -> None:
        """`clips`: row, clip, audio."""
        stem = "-".join(kinds).replace("/", "_")
        self.limit, self.names = limit, free_names(data / FOLDER, stem)
        self.table = data / FOLDER / f"failures-{stem}.csv"
        self.made, self.given_out, self.deaths = 0, 0, 0
        self.seconds: Seconds = 0.0
        self.unreadable = FAILURES.empty_table()  # and what vanished after the job had seen it
        self.again: deque[Slice] = deque()
        self.start = self.saved = time.monotonic()

        have, features = np.zeros(len(clips), dtype=np.int64), Features(data)
        for bit, kind in enumerate(kinds):
            have |= features.exists(kind, clips.column("clip")).astype(np.int64) << bit
        needed = have != (1 << len(kinds)) - 1
        todo = clips.append_column("have", pa.array(have)).filter(pa.array(needed))
        self.skipped, self.needed = len(clips) - len(todo), len(todo)
        wanted = len(todo) if limit is None else min(len(todo), limit)
        self.slice_size = min(shard_size, max(-(-wanted // workers), SMALLEST))
        self.supply = Supply(todo, audio_root)

    @property
    def expected(self) -> int:
        """Clips that will be tried, as far as is known."""
        there = self.needed - len(self.supply.missing)
        return there if self.limit is None else min(there, self.limit + len(self.unreadable))

    def pull(self) -> Slice | None:
        """The next slice, or None while the limit leaves none."""
        if self.again:
            todo = self.again.popleft()
        else:
            allowed = self.needed if self.limit is None else self.limit - self.made - self.given_out
            rows = self.supply.take(min(self.slice_size, allowed))
            if rows is None:
                return None
            todo = Slice(next(self.names), rows)
        self.given_out += len(todo)
        return todo

    def note(self, todo: Slice, outcome: Outcome | Died) -> None:
        """Take over what became of a slice. Raises JobError if workers die over and over."""
        self.given_out -= len(todo)
        if isinstance(outcome, Died):
            self._retry(todo, outcome)
        else:
            self.deaths = 0
            self.made, self.seconds = self.made + outcome.made, self.seconds + outcome.seconds
            self.unreadable = pa.concat_tables([self.unreadable, outcome.failures])
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()

    def _retry(self, todo: Slice, died: Died) -> None:
        """Give a slice whose worker died to another one; in the end halve it, to find the clip that kills them."""
        self.deaths += 1
        if self.deaths >= HOPELESS:
            raise JobError(
                f"{self.deaths} workers died one after the other ({died.reason}); is there enough memory for all of "
                "them? Start again with fewer"
            )
        log.warning("a worker died with %d clips (%s); they are given to another", len(todo), died.reason)
        if todo.deaths + 1 < DEATHS:
            self.again.append(replace(todo, deaths=todo.deaths + 1))
        elif len(todo) > 1:
            places = np.arange(len(todo))
            for half in np.array_split(places, 2):
                self.again.append(Slice(next(self.names), todo.rows.take(half), deaths=DEATHS - 1))
        else:
            [row] = todo.rows.to_pylist()
            reason = f"every worker that decoded it died ({died.reason}); decode the clip again"
            failure = failure_table([(row["row"], row["clip"], readable(row["audio"]), UNREADABLE, reason)])
            self.unreadable = pa.concat_tables([self.unreadable, failure])

    def describe(self) -> str:
        """Speed and what failed so far, for the bar."""
        speed = self.seconds / max(time.monotonic() - self.start, 1e-9)
        failed = len(self.unreadable) + len(self.supply.missing)
        return f"{speed:,.0f}x real time" + (f", {failed} failed" if failed else "")

    def failures(self) -> pa.Table:
        """In the order of the clips."""
        found = pa.concat_tables([self.supply.missing, self.unreadable])
        return found.sort_by("row").drop_columns(["row"])

    def save(self) -> None:
        """Write the table of failures, whole or not at all."""
        scratch = self.table.with_name(f".{self.table.name}.{os.getpid()}.tmp")
        try:
            pa.csv.write_csv(self.failures(), scratch)
            os.replace(scratch, self.table)
        except OSError as error:  # a full disk has stopped the job by then, and said so
            log.warning("%s: cannot be written (%s)", self.table, error)
        finally:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
        self.saved = time.monotonic()

    def report(self) -> ExtractionReport:
        failures = self.failures()
        missing = pc.sum(pc.equal(failures.column("status"), MISSING)).as_py() or 0
        return ExtractionReport(
            made=self.made,
            skipped=self.skipped,
            missing=missing,
            unreadable=len(failures) - missing,
            left=self.supply.left,
            table=self.table,
            failures=failures,
            audio_seconds=self.seconds,
            wall_seconds=time.monotonic() - self.start,
        )
