"""What every exporter has in common: a folder that appears whole or not at all, audio put in place, rows that fit."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from tts_kernel.data.corpora.lines import glued, joined
from tts_kernel.data.corpora.table import EXAMPLES, TEXT, Account, CorpusError, Utterances

log = logging.getLogger(__name__)

# link: the same file under a second name, which costs no space (a copy where the disk cannot); refer: nothing is
# placed, the corpus names the files where they are, so only this machine can read it, and only with allow_outside.
Audio = Literal["link", "copy", "refer"]

# What the name of a file cannot be, as patterns and what they mean.
FILE_NAME = {"^$": "no character", r"^\.": "a dot in front", r"[/\\\x00-\x1f]": "a '/', '\\' or control character"}
_WAV_DEPTHS = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
_LONGEST_NAME = 200  # bytes of a file name, so that a suffix fits into the 255 of most file systems
_ROWS = 1 << 17  # rows of a text file that are joined at once


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A scratch folder beside `folder` that takes its name if all goes well and is removed if not.
    Raises CorpusError if `folder` exists and is not empty."""
    refuse_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
        if folder.is_dir():
            folder.rmdir()  # empty: not every system renames onto a folder
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refuse_existing(folder: Path) -> None:
    """Raises CorpusError if something lies where a corpus is to be written."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise CorpusError(f"{folder}: exists and is not an empty folder; name another one, or remove it first")


def fitting(
    utterances: Utterances, layout: str, cannot: dict[str, dict[str, str]], drop_unfit: bool
) -> tuple[Utterances, Account]:
    """The rows that a layout can hold, and an account of the others. `cannot`: column -> pattern -> what it means.
    Raises CorpusError naming them unless they may be dropped."""
    account = Account(layout, read=len(utterances))
    good = np.ones(len(utterances), dtype=bool)
    ids = utterances.strings("id")
    for name, patterns in cannot.items():
        if name not in utterances.table.column_names:
            continue
        column = utterances.strings(name)
        found = [(pc.match_substring_regex(column, pattern), what) for pattern, what in patterns.items()]
        if patterns.keys() >= FILE_NAME.keys() - {"^$"}:
            found.append((pc.greater(pc.binary_length(column), _LONGEST_NAME), f"more than {_LONGEST_NAME} bytes"))
        for mask, what in found:
            bad = mask.fill_null(False).to_numpy() & good
            good &= ~bad
            rows = np.flatnonzero(bad)[:EXAMPLES]
            said = (f"{ids[int(row)].as_py()!r}: {column[int(row)].as_py()!r:.100}" for row in rows)
            account.drop(f"{name} has {what}", int(bad.sum()), said)
    account.kept = int(good.sum())
    if not account.dropped:
        return utterances, account
    if not drop_unfit:
        raise CorpusError(f"{account}\nwrite these clips otherwise, change them, or leave them out with drop_unfit")
    log.warning("%s", account)
    return utterances.where(good), account


def refuse_reference(how: Audio) -> None:
    """Raises CorpusError where clips must have audio files of their own."""
    if how == "refer":
        raise CorpusError("audio='refer': these clips need audio files of their own here; use link or copy")


def place_audio(
    utterances: Utterances, folder: Path, names: pa.ChunkedArray, how: Audio, as_wav: bool = False
) -> pa.Array:
    """Put every clip's audio at `folder/<name>.<suffix of the source>`; returns the paths relative to `folder`.

    A clip that is a part of a longer file (column `start`), and with `as_wav` one that is no wav, becomes a wav file
    of its own. With "refer" nothing is placed and the paths are absolute.
    Raises CorpusError naming the first clips whose audio is missing or unreadable."""
    if how not in ("link", "copy", "refer"):
        raise CorpusError(f"audio={how!r}: expected link, copy or refer")
    sources = utterances.paths()
    cuts: list[tuple[float, float | None] | None] = [None] * len(utterances)
    if utterances.has("start").any():
        starts, seconds = utterances.strings("start").to_pylist(), utterances.strings("duration").to_pylist()
        cuts = [None if start is None else (start, length) for start, length in zip(starts, seconds, strict=True)]
    if how == "refer":
        if any(cuts):
            refuse_reference(how)
        return pa.array([str(source.absolute()) for source in sources], TEXT)
    tasks = []
    for source, name, cut in zip(sources, names.to_pylist(), cuts, strict=True):
        new = cut is not None or (as_wav and source.suffix.lower() != ".wav")
        tasks.append((source, f"{name}.wav" if new or as_wav else f"{name}{source.suffix}", cut, new))
    for parent in {os.path.dirname(name) for _, name, _, _ in tasks}:
        (folder / parent).mkdir(parents=True, exist_ok=True)

    def place(task: tuple[Path, str, tuple[float, float | None] | None, bool]) -> str:
        source, name, cut, new = task
        return _decode(source, folder / name, cut) if new else _transfer(source, folder / name, how)

    hidden = True if len(tasks) < 10_000 else None
    with ThreadPoolExecutor(8) as pool:
        problems = list(tqdm(pool.map(place, tasks, chunksize=256), total=len(tasks), desc="audio", disable=hidden))
    if any(problems):
        bad = [f"{tasks[row][0]}: {problem}" for row, problem in enumerate(problems) if problem]
        shown = "\n".join(bad[:EXAMPLES])
        raise CorpusError(f"{len(bad)} of {len(tasks)} clips have no usable audio; import again to drop them:\n{shown}")
    return pa.array([name for _, name, _, _ in tasks], TEXT)


def _transfer(source: Path, target: Path, how: Audio) -> str:
    """Returns what is wrong with the source, or nothing. An error of the disk that is written to is raised."""
    if not source.is_file():
        return "no such file"
    if how == "link":
        try:
            os.link(os.path.realpath(source), target)
            return ""
        except OSError:  # another disk, or one without links
            target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    return ""


def _decode(source: Path, target: Path, cut: tuple[float, float | None] | None) -> str:
    """Write a file, or `(start, length)` seconds of it, as wav: at the source's depth if wav has it, else 16 bit."""
    import soundfile

    if not source.is_file():
        return "no such file"
    try:
        with soundfile.SoundFile(str(source)) as file:
            rate = file.samplerate
            start, length = cut or (0.0, None)
            first = round(start * rate)
            if first >= file.frames:
                return f"ends before {start} s"
            file.seek(first)
            samples = file.read(-1 if length is None else round(length * rate), dtype="float64")  # holds any depth
            subtype = file.subtype if file.subtype in _WAV_DEPTHS else "PCM_16"
    except (soundfile.SoundFileError, RuntimeError) as error:
        return f"not readable as audio ({error})"
    soundfile.write(str(target), samples, rate, format="WAV", subtype=subtype)
    return ""


def write_fields(path: Path, columns: Sequence[pa.Array | pa.ChunkedArray], separator: str) -> None:
    """One line per row, its fields joined by `separator`."""
    table = pa.table({str(place): column for place, column in enumerate(columns)})
    with path.open("wb") as file:
        for batch in table.to_batches(max_chunksize=_ROWS):
            row = glued(*batch.columns, separator=separator) if batch.num_columns > 1 else batch.column(0)
            file.write(joined(row))
