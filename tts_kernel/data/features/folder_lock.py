"""Locks of a feature folder, which a process gives back whatever ends it.

`.job` is held by the job that writes there and says who that is; `.workers` is shared by all shards that are being
written.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

JOB, WORKERS = ".job", ".workers"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

log = logging.getLogger(__name__)


class StoreError(RuntimeError):
    """A feature folder that cannot be written or trusted."""


@contextmanager
def as_worker(folder: Path) -> Iterator[Callable[[], None]]:
    """Marks that something is being written; gives a function that raises StoreError if the job has died meanwhile."""
    parent = multiprocessing.parent_process()

    def still_wanted() -> None:
        if parent is not None and not parent.is_alive():
            raise StoreError(f"{folder}: the job that started this worker has died; nothing more is written")

    with locked(folder / WORKERS, fcntl.LOCK_SH, patient=True):
        yield still_wanted


def end_with_parent() -> None:
    """Start of a pool's worker: ends this process when the one that started it has died, for a worker waits for ever
    for its next task otherwise."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


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
