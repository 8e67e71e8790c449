"""Folders of files in a fixed order, each folder once, whatever its symbolic links do."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tts_kernel.data.corpora.table import Account

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")  # what libsndfile reads


class Folder(NamedTuple):
    """One folder below the root: its path relative to it ("" for the root), and the names of its files, sorted."""

    path: str
    files: list[str]

    def relative(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name


def walk(root: Path, account: Account, allow_outside: bool) -> Iterator[Folder]:
    """Every folder below `root` with its files. Hidden files and folders are passed over (macOS leaves `._x.wav`).

    Dropped and counted: a name that is not UTF-8, a link to a folder that was read already (so a loop ends), and,
    unless allowed, a link that leads out of `root`."""
    inside = root.resolve()
    seen: set[tuple[int, int]] = set()
    real, linked = deque([""]), deque[str]()  # links come last, so that a folder is known by its own name
    while real or linked:
        through_link = not real
        here = linked.popleft() if through_link else real.popleft()
        status = os.stat(root / here)
        if (status.st_dev, status.st_ino) in seen:
            _drop(account, "link to a folder read before", root / here)
            continue
        seen.add((status.st_dev, status.st_ino))
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(root / here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except PermissionError as error:
            _drop(account, "unreadable folder", root / here, str(error.strerror))
            continue
        for entry in found:
            if entry.name.startswith("."):
                continue
            if not is_utf8(entry.name):
                _drop(account, "encoding", os.fsencode(entry.path), "the name is not UTF-8")
            elif entry.is_symlink() and not allow_outside and not _within(inside, entry.path):
                _drop(account, "outside", entry.path, f"a link out of {root}; allow_outside follows it")
            elif os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                (linked if entry.is_symlink() else folders).append(f"{here}/{entry.name}" if here else entry.name)
            elif os.path.isfile(entry) if entry.is_symlink() else entry.is_file():
                files.append(entry.name)
            elif entry.is_symlink():
                _drop(account, "missing file", entry.path, "the link leads nowhere")
        (linked if through_link else real).extendleft(reversed(folders))
        yield Folder(here, files)


def _drop(account: Account, reason: str, path: object, why: str = "") -> None:
    account.read += 1
    account.drop(reason, 1, [f"{path}: {why}" if why else f"{path}"])


def _within(inside: Path, path: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(inside)


def is_utf8(text: str) -> bool:
    """Whether text can be written as UTF-8; bytes of a file's name that are not come as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
