"""A run folder in use: one process at a time trains there, and says who it is.

`.lock` is held as long as the process lives and is given back whatever ends it; `process.json` beside it is for people,
and for file systems without locks.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import psutil

from tts_kernel.data.features.folder_lock import locked
from tts_kernel.runs import Run, RunError, write_atomically
from tts_kernel.training.signals import SUPERVISED

LOCK, PROCESS = ".lock", "process.json"

log = logging.getLogger(__name__)

_TRIES, _PAUSE = 5, 0.2  # seconds; somebody who looks whether the run is in use holds the lock for a moment
_CLOCKS = 2.0  # seconds by which a process's start and a file's time may differ, each by a clock of its own
_handles: set[int] = set()  # of locks that this process holds


@dataclass(frozen=True)
class Holder:
    """A process as a file in the run folder names it."""

    pid: int
    host: str
    started: float  # seconds since the epoch, by its clock
    command: list[str]

    @staticmethod
    def of(pid: int, command: Sequence[str]) -> Holder:
        """A process of this machine that was started just now."""
        return Holder(pid, socket.gethostname(), time.time(), list(command))

    @staticmethod
    def this_process() -> Holder:
        return Holder.of(os.getpid(), psutil.Process().cmdline())

    @staticmethod
    def read(path: Path) -> Holder | None:
        """None where there is no such file; a torn one cannot be, it is written atomically."""
        try:
            return Holder(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    def alive(self) -> bool:
        """Whether it runs on this machine. Another process that got its number meanwhile has another command."""
        return self.here and running(self.pid, self.command)

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.started))
        return f"process {self.pid} on host {self.host}, since {since} ({' '.join(self.command)[:200]})"


def running(pid: int, command: Sequence[str]) -> bool:
    """Whether process `pid` of this machine lives and was started by `command`, its interpreter's path aside."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.cmdline()[1:] == list(command)[1:]
    except psutil.Error:  # gone, or one that is not ours to ask
        return False


def in_use(run: Run) -> str:
    """Who trains this run; empty if nobody does."""
    if not (run.folder / LOCK).exists():
        return ""
    with locked(run.folder / LOCK, fcntl.LOCK_SH) as (_, free):
        known = Holder.read(run.folder / PROCESS)
        return "" if free and not (known and known.alive()) else _who(known)


def refusal(run: Run, who: str) -> RunError:
    return RunError(
        f"run {run.name} is in use: {who} trains in {run.folder}. Let it go on and watch its metrics.jsonl, or stop it "
        f"with `touch {run.folder / 'stop'}` (it saves first) and start again, or choose another run_name"
    )


@contextmanager
def held(run: Run) -> Iterator[None]:
    """The run folder is this process's until the context or the process ends; a stop file that is older than this
    session is removed. Raises RunError naming the process that has it. Where the file system has no locks, only
    processes of this machine are noticed."""
    path, who = run.folder / PROCESS, ""
    for left in reversed(range(_TRIES)):
        with locked(run.folder / LOCK, fcntl.LOCK_EX) as (handle, got):
            known = Holder.read(path)
            if got and not (known and known.alive() and known.pid != os.getpid()):
                Holder.this_process().write(path)
                _drop_old_stop(run.stop_file)
                try:
                    with _not_in_children(handle):
                        yield
                finally:
                    path.unlink(missing_ok=True)
                return
            who = _who(known)
        if left:
            time.sleep(_PAUSE)
    raise refusal(run, who)


def _drop_old_stop(stop_file: Path) -> None:
    """One that was asked for before this session began was for another, which was killed before it could obey. Where
    `launch.start.claimed` has begun the session nothing is left of it; a recipe's `train` can be called without."""
    try:
        asked = stop_file.stat().st_mtime
    except FileNotFoundError:
        return
    if asked < _session_began() - _CLOCKS:
        stop_file.unlink(missing_ok=True)
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(asked))
        log.warning("%s was asked for at %s, before this session began: removed", stop_file, when)


def _session_began() -> float:
    """Seconds since the epoch: when this process was started, or the supervisor that has started it."""
    own = psutil.Process()
    try:
        return psutil.Process(int(os.environ.get(SUPERVISED, own.pid))).create_time()
    except psutil.Error:  # the supervisor is gone; its processes save and stop anyway
        return own.create_time()


def _who(known: Holder | None) -> str:
    return str(known) if known else f"a process unknown for want of a {PROCESS}"


@contextmanager
def _not_in_children(handle: int) -> Iterator[None]:
    """A forked child, such as a reader of batches, would keep the lock when it outlives this process for a while."""
    _close_in_children()
    _handles.add(handle)
    try:
        yield
    finally:
        _handles.discard(handle)


@cache
def _close_in_children() -> None:
    def close() -> None:
        while _handles:
            os.close(_handles.pop())

    os.register_at_fork(after_in_child=close)
