"""Putting a run's old files out of a restart's way: renamed on their own file system, never copied or overwritten."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tts_kernel.training.checkpoints.room import readable


class BackupError(OSError):
    """Old files that cannot be put away; they are where they were."""


@dataclass(frozen=True)
class Move:
    """One rename: of a whole run folder, or of one checkpoint file."""

    source: Path
    target: Path

    def __str__(self) -> str:
        count, size = _extent(self.source if self.source.exists() else self.target)
        files = f"{count} files, {readable(size)}" if count > 1 else readable(size)
        return f"move {self.source} -> {self.target} ({files})"

    @property
    def done(self) -> bool:
        """The target's name has the time in it: nobody else makes it."""
        return self.target.exists()

    def carry_out(self) -> None:
        """Once; a second call changes nothing. Raises BackupError."""
        if self.done:
            return
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(self.source, self.target)
        except OSError as error:
            raise BackupError(
                f"{self.source}: could not be moved to {self.target} ({error.strerror}); it is where it was"
            ) from error


def moves(folder: Path, files: Sequence[Path], *, ours: bool) -> tuple[Move, ...]:
    """A run of this workbench goes away whole, as `<name>-backup-<UTC time>` beside itself, so that its history can
    still be read; of another program's only the checkpoints are moved, into a folder beside them."""
    stamp = time.strftime("backup-%Y%m%d-%H%M%S", time.gmtime())
    if ours:
        return (Move(folder, folder.with_name(f"{folder.name}-{stamp}")),)
    return tuple(Move(file, file.parent / stamp / file.name) for file in files)


def check(planned: Sequence[Move], runs: Path) -> None:
    """Raise BackupError unless each target lies on its source's file system and `runs`, where the new checkpoints will
    be written, has room for as many bytes as the old ones have: those stay."""
    for move in planned:
        if not move.done and _device(move.source) != _device(move.target.parent):
            raise BackupError(
                f"{move.target.parent}: another file system than {move.source}, where moving would mean copying; "
                "expected the same"
            )
    needed = sum(_extent(move.target if move.done else move.source)[1] for move in planned)
    free = shutil.disk_usage(_existing(runs)).free
    if needed > free:
        raise BackupError(
            f"{runs}: the old checkpoints ({readable(needed)}) are kept, and the new ones will need as much; "
            f"{readable(free)} are free. Make room, or name another disk in TTS_KERNEL_RUNS"
        )


def copy(source: Path, target: Path) -> None:
    """Whole or not at all."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, scratch)
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def _extent(path: Path) -> tuple[int, int]:
    """Files and their bytes, several names of one file counted once."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    found = {(status.st_dev, status.st_ino): status.st_size for status in (each.stat() for each in files)}
    return len(files), sum(found.values())


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
