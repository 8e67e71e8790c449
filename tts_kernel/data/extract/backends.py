"""Where an extraction job runs: in this process, in processes of this machine, or on a Ray or Dask cluster.

A backend takes slices from `pull` while it has idle workers and yields (slice, what became of it): an `Outcome`, or
`Died` where the worker ended without a word (killed, out of memory, crashed in a decoder). What to do then is up to
the job. An error of the extractor or of the disk is raised here. Closing the generator stops all workers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tts_kernel.data.extract.clip_work import Outcome, Slice, Work, make_shard, one_thread
from tts_kernel.data.features.folder_lock import end_with_parent

BACKENDS = ("local", "ray", "dask")
PATIENCE = 5.0  # seconds that a stopped worker has to put its files away
Pull = Callable[[], Slice | None]  # None: nothing more at present
Tick = Callable[[int], None]  # clips worked on since the last call; negative where a dead worker's are to be redone


class JobError(RuntimeError):
    """A job that cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Died:
    """A worker that ended while it had a slice."""

    reason: str


Finished = Generator[tuple[Slice, Outcome | Died], None, None]


def run(work: Work, pull: Pull, tick: Tick, backend: str, workers: int | None, address: str | None) -> Finished:
    """Slices as they are finished. `workers` None is one process here, or all of a cluster."""
    if backend == "ray":
        from tts_kernel.data.extract.clusters import on_ray

        return on_ray(work, pull, tick, workers, address)
    if backend == "dask":
        from tts_kernel.data.extract.clusters import on_dask

        return on_dask(work, pull, tick, workers, address)
    return in_process(work, pull, tick) if (workers or 1) == 1 else in_processes(work, pull, tick, workers or 1)


def in_process(work: Work, pull: Pull, tick: Tick) -> Finished:
    """One slice after the other, in the calling process."""
    while (todo := pull()) is not None:
        with one_thread():
            outcome = make_shard(todo, work, lambda: tick(1))
        yield todo, outcome


@dataclass
class _Worker:
    """A process and the slice that it has. It writes into `shared`: its process id, the clips done in the slice."""

    pool: ProcessPoolExecutor  # of one process, so that its death is nobody else's
    shared: Any
    todo: Slice
    result: Future[Outcome]
    told: int = 0  # of the clips done, passed on to `tick`

    def give(self, todo: Slice) -> None:
        self.shared[1], self.told, self.todo = 0, 0, todo
        self.result = self.pool.submit(_make, todo)

    def progress(self) -> int:
        """Clips done since the last call."""
        before, self.told = self.told, self.shared[1]
        return self.told - before

    def signalled(self, number: signal.Signals) -> None:
        if self.shared[0] and not self.result.done():
            with suppress(ProcessLookupError):
                os.kill(self.shared[0], number)


def in_processes(work: Work, pull: Pull, tick: Tick, workers: int) -> Finished:
    """`workers` fresh processes; one that dies is replaced. They are spawned, as a fork of a process with threads may
    hang, and end when this process does.
    Raises JobError if they die before they begin."""
    busy: list[_Worker] = []
    try:
        while True:
            while len(busy) < workers and (todo := pull()) is not None:
                busy.append(_start(work, todo))
            if not busy:
                return
            wait([worker.result for worker in busy], timeout=0.2, return_when=FIRST_COMPLETED)
            for worker in list(busy):
                tick(worker.progress())
                if not worker.result.done():
                    continue
                outcome = _outcome(worker)
                tick(-worker.told if isinstance(outcome, Died) else worker.progress())
                yield worker.todo, outcome
                following = None if isinstance(outcome, Died) else pull()
                if following is not None:
                    worker.give(following)
                else:
                    busy.remove(worker)
                    worker.pool.shutdown()
    finally:
        for worker in busy:
            worker.signalled(signal.SIGTERM)  # raises SystemExit there: no half-written file stays
        wait([worker.result for worker in busy], timeout=PATIENCE)
        for worker in busy:
            worker.signalled(signal.SIGKILL)
            worker.pool.shutdown(cancel_futures=True)


def _start(work: Work, todo: Slice) -> _Worker:
    context = multiprocessing.get_context("spawn")
    shared = context.Array("q", 2, lock=False)
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(work, shared))
    return _Worker(pool, shared, todo, pool.submit(_make, todo))


def _outcome(worker: _Worker) -> Outcome | Died:
    error = worker.result.exception()
    if error is None:
        return worker.result.result()
    if isinstance(error, SystemExit):
        return Died("it was told to stop (SIGTERM)")
    if not isinstance(error, BrokenProcessPool):
        raise error
    if not worker.shared[0]:
        raise JobError(
            "a worker process ended before it began; its own message is above. A script that starts a job needs "
            '`if __name__ == "__main__":` around it'
        ) from error
    return Died("it was killed, ran out of memory or crashed in a library")


_in_worker: dict[str, Any] = {}  # filled once in a worker process, read by its slices


def _begin(work: Work, shared: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the job tells its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    end_with_parent()  # the next job sweeps its unfinished shard
    _in_worker.update(work=work, shared=shared)
    shared[0] = os.getpid()


def _make(todo: Slice) -> Outcome:
    shared = _in_worker["shared"]

    def tick() -> None:
        shared[1] += 1

    with one_thread():
        return make_shard(todo, _in_worker["work"], tick)
