"""One job at a time writes to a feature folder, with as many workers as it likes.

A job that died holds nothing. The next one waits for workers that outlived it, then removes what they left unfinished.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tts_kernel.data.features.folder_lock import JOB, WORKERS, StoreError, locked
from tts_kernel.data.features.shards import TEMPORARY, index_path, listed_shards

__all__ = ["JOB", "WORKERS", "StoreError", "free_names", "locked", "writing"]

log = logging.getLogger(__name__)


@contextmanager
def writing(folder: Path, job: str, wait: float = 60.0) -> Iterator[None]:
    """The right to write to `folder`, for a whole job and its workers.

    Waits up to `wait` seconds for workers that an earlier job left behind, and removes files that were not finished.
    Raises StoreError, naming the other job, if one is writing there.
    """
    _prepare(folder)
    with locked(folder / JOB, fcntl.LOCK_EX) as (handle, got):
        if not got:
            raise StoreError(f"{folder}: {_owner(handle)} is writing here; wait until it ends, or stop it")
        with suppress(OSError):  # on a full disk only the next job's message lacks something
            _describe(handle, job)
        try:
            _clean_up(folder, wait)
            yield
        finally:
            os.ftruncate(handle, 0)


def free_names(folder: Path, stem: str) -> Iterator[str]:
    """Names for new shards, counting on from those there: `<stem>-000001`, ... For a job that holds the folder."""
    taken = {path.stem for path in Path(folder).glob(f"{stem}-*.*")}
    return (name for name in (f"{stem}-{number:06d}" for number in itertools.count(1)) if name not in taken)


def _clean_up(folder: Path, wait: float) -> None:
    until, told = time.monotonic() + wait, False
    while True:
        with locked(folder / WORKERS, fcntl.LOCK_EX) as (_, alone):
            if alone:
                return remove_unfinished(folder)
        if time.monotonic() >= until:
            files = sorted(path.name for path in folder.iterdir() if TEMPORARY.fullmatch(path.name))
            raise StoreError(
                f"{folder}: workers of an earlier job are still writing ({', '.join(files) or 'no file yet'}); "
                "stop the processes whose ids these names hold, or wait until they end"
            )
        if not told:
            log.warning("%s: waiting for workers of an earlier job", folder)
            told = True
        time.sleep(0.05)


def remove_unfinished(folder: Path) -> None:
    """Remove half-written files. A shard without an index stays: its job may have died between the two, but it may
    also be that the index was lost on the way here, and the arrays with it if the shard were removed."""
    for path in folder.iterdir():
        if TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)
    alone = [path for path in folder.glob("*.tar") if not index_path(path).exists()]
    if not alone:
        return
    try:
        finished = listed_shards(folder)
    except StoreError as error:  # what it lists is not to be taken for unfinished
        log.warning("%s; %d shards without an index of their own stay", error, len(alone))
        return
    left = [path.name for path in alone if path.stem not in finished]
    if left:
        log.warning(
            "%s: %d shards without an index are not read, such as %s; put their .arrow files back, or delete these "
            "shards if a job died while it wrote them",
            folder,
            len(left),
            left[0],
        )


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
