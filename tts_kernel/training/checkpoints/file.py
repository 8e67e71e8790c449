"""One checkpoint file: written whole or not at all, checked by its checksums, read without running code."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tts_kernel.models.weights import CheckpointError, read_checkpoint, reason

# What zipfile raises for damaged bytes, wherever they lie.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write beside `path`, flush to the disk, read the names and values back, rename. Raises CheckpointError when the
    disk is full, the folder not writable or the content not readable again; what was there before is then untouched."""
    with _beside(path) as scratch:
        torch.save(dict(content), str(scratch))  # by its name: torch then writes without holding up other threads
        _flush(scratch)
        try:
            read_checkpoint(scratch)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: not written, since it could not be read again ({error})") from error


def link(source: Path, target: Path) -> None:
    """`target` becomes one more name for the bytes of `source`, or a copy where the file system has no hard links."""
    with _beside(target) as scratch:
        try:
            os.link(source, scratch)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(source, scratch)
            _flush(scratch)


def has_links(folder: Path) -> bool:
    """Whether the file system of `folder` has hard links."""
    one, other = scratch_of(folder / "link"), scratch_of(folder / "linked")
    try:
        other.unlink(missing_ok=True)
        one.touch()
        os.link(one, other)
        return True
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise _unwritable(one, error) from error
    finally:
        one.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


def scratch_of(path: Path) -> Path:
    """Where `path` is written before it gets its name; what a killed process leaves behind."""
    return path.with_name(f".{path.name}.part")


def flush_folder(folder: Path) -> None:
    """Make renames last through a power cut."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot, and need not
            raise


def verify(path: Path) -> None:
    """Compare every record with its CRC-32, which reading alone does not do. Raises CheckpointError naming the file and
    the damaged record."""
    if not path.is_file():
        raise CheckpointError(f"{path}: does not exist; expected a checkpoint")
    try:
        with zipfile.ZipFile(path) as records:
            damaged = records.testzip()
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path}: truncated or damaged ({path.stat().st_size:,} bytes: {reason(error)}); take an older checkpoint"
        ) from error
    if damaged is not None:
        raise CheckpointError(
            f"{path}: record {damaged} does not match its checksum, so the disk or a copy changed it; take an older "
            "checkpoint"
        )


def read(path: Path) -> dict[str, Any]:
    """A verified file's content. It is not mapped: a file may be replaced while its content is in use."""
    verify(path)
    return read_checkpoint(path, mmap=False)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path to write to, which is renamed to `path` in the end; nothing of it stays after an error."""
    scratch = scratch_of(path)
    try:
        scratch.unlink(missing_ok=True)
        yield scratch
        os.replace(scratch, path)
    except (OSError, RuntimeError) as error:  # torch wraps a failed write into a RuntimeError
        raise _unwritable(path, error) from error
    finally:
        scratch.unlink(missing_ok=True)


def _unwritable(path: Path, error: Exception) -> CheckpointError:
    free = shutil.disk_usage(path.parent).free
    return CheckpointError(
        f"{path}: could not be written ({reason(error)}); {free / 1e6:,.0f} MB are free. "
        "The checkpoints that were there are untouched; make room and resume the run"
    )


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
