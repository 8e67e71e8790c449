"""Tokens and embeddings that were extracted so far, kept beside the folder to come until its shards are written: a run
that is killed loses the clips of one part at most.

    .<folder>.extracted/
        sample.npz              what the extractor makes of a second of noise: for another one nothing here holds
        part_000000000.parquet  COLUMNS; appears whole or not at all
        .lock                   held by the process that writes here
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tts_kernel.audio.codebook import CodebookError, load_arrays, save_arrays
from tts_kernel.audio.wav import Hz
from tts_kernel.data.corpora import CorpusError
from tts_kernel.data.features.folder_lock import locked

log = logging.getLogger(__name__)

PART = 64  # clips
FORMAT = 1  # of the parts; raise it when a clip is looked at in another way
COLUMNS = pa.schema(
    [
        ("id", pa.large_string()),
        ("content", pa.large_string()),  # digest of the audio file
        ("tokens", pa.list_(pa.int64())),
        ("embedding", pa.list_(pa.float32())),
    ]
)
_NOISE_RATE: Hz = 24_000


class Extractor(Protocol):
    """What fills the columns of a shard; called by several threads at once."""

    def tokens(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        """(samples,) in [-1, 1] -> (tokens,) int64, 25 a second; empty where it cannot."""
        ...

    def embedding(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        """(samples,) in [-1, 1] -> (192,) float32."""
        ...


@dataclass(frozen=True)
class Extracted:
    """Of one clip."""

    name: str
    content: str  # digest of its audio file
    tokens: np.ndarray  # (tokens,) int64
    embedding: np.ndarray  # (192,) float32
    reason: str = ""  # why there is nothing; such a clip is looked at again by every run
    detail: str = ""


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """The place beside `folder` where extraction is kept, for one process at a time. Raises CorpusError if another one
    is at work there. What processes left that have died while they wrote `folder` is removed."""
    work = folder.with_name(f".{folder.name}.extracted")
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / ".lock", fcntl.LOCK_EX) as (_, got):
        if not got:
            raise CorpusError(f"{folder}: another process is preparing it; wait for it, or name another folder")
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.*"):
            number, kind = left.name.split(".")[-2:]
            if kind in ("partial", "unpacked") and number.isdigit() and not _is_running(int(number)):
                shutil.rmtree(left, ignore_errors=True)
        yield work


def read_parts(work: Path, extractor: Extractor) -> dict[str, Extracted]:
    """What was extracted before, by the clip's name. What another extractor made is removed."""
    tokens, embedding = _sample(extractor)
    try:
        number, known_tokens, known = load_arrays(work / "sample.npz", "format", "tokens", "embedding")
        same = int(number) == FORMAT and np.array_equal(known_tokens, tokens) and known.shape == embedding.shape
        same = same and np.allclose(known, embedding, rtol=1e-3, atol=1e-3)  # a GPU adds in another order each time
    except CodebookError:
        same = False
    if not same:
        for path in work.glob("part_*.parquet"):
            path.unlink()
        save_arrays(work / "sample.npz", format=np.array(FORMAT), tokens=tokens, embedding=embedding)
    found: dict[str, Extracted] = {}
    for path in sorted(work.glob("part_*.parquet")):
        try:
            table = pq.read_table(path, schema=COLUMNS)
        except (pa.ArrowInvalid, OSError) as error:  # a disk that lost its power
            log.warning("%s: damaged (%s), its clips are extracted again", path, str(error).splitlines()[0])
            path.unlink()
            continue
        for row in table.to_pylist():
            tokens, embedding = np.array(row["tokens"], np.int64), np.array(row["embedding"], np.float32)
            found[row["id"]] = Extracted(row["id"], row["content"], tokens, embedding)
    return found


def keep_parts(work: Path, clips: Iterable[Extracted], known: Mapping[str, Extracted]) -> Iterator[Extracted]:
    """Hand on what was extracted of each clip. Of those that are not `known` a part is written after every `PART` of
    them, and at the end."""
    number = 1 + max((int(path.stem.removeprefix("part_")) for path in work.glob("part_*.parquet")), default=-1)
    waiting: list[Extracted] = []
    try:
        for clip in clips:
            if not clip.reason and known.get(clip.name) is not clip:
                waiting.append(clip)
            if len(waiting) == PART:
                _write(work / f"part_{number:09d}.parquet", waiting)
                number, waiting = number + 1, []
            yield clip
    finally:  # stopped by hand
        if waiting:
            _write(work / f"part_{number:09d}.parquet", waiting)


def content_of(path: Path) -> str:
    """Digest of a file. Raises OSError if it cannot be read."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _write(path: Path, clips: Sequence[Extracted]) -> None:
    columns = {name: [getattr(clip, "name" if name == "id" else name) for clip in clips] for name in COLUMNS.names}
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(pa.table(columns, schema=COLUMNS), scratch)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _sample(extractor: Extractor) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(0).normal(0, 0.05, _NOISE_RATE).astype(np.float32)
    return extractor.tokens(noise, _NOISE_RATE), extractor.embedding(noise, _NOISE_RATE)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
