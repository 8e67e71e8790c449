"""One job at a time writes to a feature folder, with as many workers as it likes.

`.job` is locked by the job (flock, so a job that died holds nothing) and says who that is; `.workers` is shared by all
shards that are being written, so the next job waits for workers that outlived theirs before it cleans up.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import logging
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

JOB, WORKERS = ".job", ".workers"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

log = logging.getLogger(__name__)


class StoreError(RuntimeError):
    """A feature folder that cannot be written or trusted."""


@contextmanager
def writing(folder: Path, job: str, wait: float = 60.0) -> Iterator[None]:
    """The right to write to `folder`, for a whole job and its workers.

    Waits up to `wait` seconds for workers that an earlier job left behind.
    Raises StoreError, naming the other job, if one is writing there.
    """
    _prepare(folder)
    with locked(folder / JOB, fcntl.LOCK_EX) as (handle, got):
        if not got:
            raise StoreError(f"{folder}: {_owner(handle)} is writing here; wait until it ends, or stop it")
        _describe(handle, job)
        try:
            _outlive_workers(folder, wait)
            yield
        finally:
            os.ftruncate(handle, 0)


@contextmanager
def as_worker(folder: Path) -> Iterator[Callable[[], None]]:
    """Marks that something is being written; gives a function that raises StoreError if the job has died meanwhile."""
    parent = multiprocessing.parent_process()

    def still_wanted() -> None:
        if parent is not None and not parent.is_alive():
            raise StoreError(f"{folder}: the job that started this worker has died; nothing more is written")

    with locked(folder / WORKERS, fcntl.LOCK_SH, patient=True):
        yield still_wanted


def free_names(folder: Path, stem: str) -> Iterator[str]:
    """Names for new shards, counting on from those there: `<stem>-000001`, ... For a job that holds the folder."""
    taken = {path.stem for path in Path(folder).glob(f"{stem}-*.*")}
    return (name for name in (f"{stem}-{number:06d}" for number in itertools.count(1)) if name not in taken)


def _outlive_workers(folder: Path, wait: float) -> None:
    until, told = time.monotonic() + wait, False
    while True:
        with locked(folder / WORKERS, fcntl.LOCK_EX) as (_, alone):
            if alone:
                return
        if time.monotonic() >= until:
            raise StoreError(
                f"{folder}: workers of an earlier job are still writing; stop the processes named in "
                f"{', '.join(sorted(path.name for path in folder.glob('.*.tmp'))) or 'none'} (.<shard>.<pid>.tmp)"
            )
        if not told:
            log.warning("%s: waiting for workers of an earlier job", folder)
            told = True
        time.sleep(0.05)


@contextmanager
def locked(path: Path, how: int, patient: bool = False) -> Iterator[tuple[int, bool]]:
    """The file's handle, and whether the lock was got."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be written ({error.strerror})") from error
    got = False
    try:
        try:
            fcntl.flock(handle, how if patient else how | fcntl.LOCK_NB)
            got = True
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            log.warning("%s: this file system has no locks; let only one job write there", path.parent)
            got = True
        yield handle, got
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # closing is not enough where a forked child has the handle, too
        os.close(handle)


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made ({error.strerror})") from error


def _describe(handle: int, job: str) -> None:
    facts = {"job": job, "pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(facts).encode(), 0)


def _owner(handle: int) -> str:
    try:
        facts = json.loads(os.pread(handle, 4096, 0))
        return f"job {facts['job']!r} (pid {facts['pid']} on {facts['host']}, since {facts['since']})"
    except (ValueError, KeyError, TypeError):  # it has only just begun
        return "another job"
