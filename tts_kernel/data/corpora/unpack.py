"""Audio that lies inside of other files, written out as files of its own: WebDataset tars, parquet columns."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tts_kernel.data.corpora.table import Account
from tts_kernel.data.corpora.walk import AUDIO_SUFFIXES, is_utf8
from tts_kernel.data.corpora.write import refuse_existing
from tts_kernel.data.files import UnsafePathError, inside

_END = bytes(tarfile.BLOCKSIZE)  # what follows the last member of a whole archive


class Member(NamedTuple):
    """One clip of a tar."""

    audio: str  # where its audio lies now, relative to the folder
    data: bytes  # its JSON


def read_tars(files: Sequence[Path], folder: Path, account: Account) -> Iterator[Member]:
    """The clips of WebDataset tars: `<name>.json` and `<name>.<audio suffix>` in either order. Their audio is written
    to `folder/<tar>/<name>.<suffix>`; nothing else is unpacked. What was read of a damaged tar is kept.
    Raises CorpusError if `folder` is not empty."""
    refuse_existing(folder)
    for file in files:
        try:
            with tarfile.open(file) as tar:
                yield from _clips(tar, file, folder, account)
                if tar.fileobj is not None:
                    tar.fileobj.seek(tar.offset)
                    if tar.fileobj.read(len(_END)) != _END:  # tarfile takes a torn header for the end
                        _drop(account, "damaged tar", f"{file}: cut off after {tar.offset:,} bytes")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            _drop(account, "damaged tar", f"{file}: {error}")


def _clips(tar: tarfile.TarFile, file: Path, folder: Path, account: Account) -> Iterator[Member]:
    waiting: dict[str, str | bytes] = {}  # audio path or JSON by name, until the other comes
    try:
        for member in tar:
            stem, dot, suffix = member.name.rpartition(".")
            kind = f"{dot}{suffix}".lower()
            if member.isdir() or kind not in (".json", *AUDIO_SUFFIXES):
                continue
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                _drop(account, "outside", f"{file}: {member.name} is a link")
                continue
            if kind == ".json":
                found: str | bytes = content.read()
            else:
                placed = f"{file.stem}/{member.name.removeprefix('./')}"
                problem = "outside" if member.name.startswith("/") else _write(folder, placed, content.read())
                if problem:
                    _drop(account, problem, f"{file}: {member.name!r}")
                    continue
                found = placed
            other = waiting.pop(stem, None)
            if isinstance(found, str) and isinstance(other, bytes):
                account.read += 1
                yield Member(found, other)
            elif isinstance(found, bytes) and isinstance(other, str):
                account.read += 1
                yield Member(other, found)
            else:
                waiting[stem] = found if other is None else other
                if other is not None:
                    _drop(account, "duplicate id", f"{file}: {member.name!r}")
                if other is not None and isinstance(found, str):
                    (folder / found).unlink()
    finally:
        for stem, found in waiting.items():
            if isinstance(found, str):
                (folder / found).unlink()
            reason = "missing audio" if isinstance(found, bytes) else "no text"
            _drop(account, reason, f"{file}: {stem} has only one of json and audio")


def _write(folder: Path, relative: str, data: bytes) -> str:
    """Write a new file; returns why that cannot be, or nothing."""
    if not is_utf8(relative):
        return "encoding"
    try:
        path = inside(folder, relative)
    except UnsafePathError:
        return "outside"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as out:
            out.write(data)
    except FileExistsError:
        return "duplicate id"
    return ""


def write_bytes(folder: Path, name: str, data: bytes | None) -> tuple[str, str]:
    """Write a clip's encoded audio to `folder/<name>.<suffix by its content>`; returns the path relative to `folder`
    and the reason why there is none."""
    if not data:
        return "", "missing audio"
    relative = f"{name}{_suffix(data)}"
    reason = "bad path" if "/" in name or name.startswith(".") else _write(folder, relative, data)
    return ("", reason) if reason else (relative, "")


def _suffix(data: bytes) -> str:
    if data[:4] in (b"RIFF", b"RF64"):
        return ".wav"
    if data[:4] == b"fLaC":
        return ".flac"
    if data[:4] == b"OggS":
        return ".opus" if b"OpusHead" in data[:64] else ".ogg"
    return ".mp3"  # may begin with an ID3 tag or with any frame; what is no audio is found when it is opened


def _drop(account: Account, reason: str, example: str) -> None:
    account.read += 1
    account.drop(reason, 1, [example])
