"""Where an imported manifest is kept, and whether it still is the import of its source.

Beside `pairs.jsonl` lie `.pairs.jsonl.arrow`, the columns, and `.pairs.jsonl.json`, what they were made from; in a
folder that cannot be written, both lie in the cache folder instead. The source's size, times and inode say that it is
unchanged; where they differ (an edit, or the folder was copied) its bytes decide.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tts_kernel.data.manifest.jsonl import CHUNK
from tts_kernel.runs import cache_folder, write_atomically

FORMAT = 2  # of the two files; raise it when what an import holds changes
_SETTLED = 1_000_000_000  # ns: an edit sooner after an import than file systems keep time may leave no other trace


@dataclass(frozen=True)
class Stamp:
    """What a file system says of a file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class Digest:
    """Length and CRC-32 of a file's bytes, in the order they come: made to notice edits, seven times as fast as a
    cryptographic hash."""

    def __init__(self) -> None:
        self._size = self._crc = 0

    def update(self, data: bytes | memoryview) -> None:
        self._size += len(data)
        self._crc = zlib.crc32(data, self._crc)

    def value(self) -> str:
        return f"{self._size}-{self._crc:08x}"


def digest_of(path: Path) -> str:
    digest = Digest()
    with path.open("rb", buffering=0) as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.value()


def places(source: Path) -> list[Path]:
    """The columns' file for `source`: beside it, else in the cache folder."""
    name = hashlib.blake2b(str(source.resolve()).encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return [source.with_name(f".{source.name}.arrow"), cache_folder() / "manifests" / f"{name}-{source.name}.arrow"]


def load(source: Path) -> tuple[Path, dict[str, Any]] | None:
    """The columns' file and the facts stored with it; None if there is none that holds."""
    stamp, digest = Stamp.of(source), ""
    for place in places(source):
        facts_path = place.with_suffix(".json")
        try:
            facts = json.loads(facts_path.read_text(encoding="utf-8"))
            if facts["format"] != FORMAT or facts["stamp"]["size"] != stamp.size:
                continue
            newest = max(stamp.mtime_ns, stamp.ctime_ns)
            if facts["stamp"] != asdict(stamp) or facts["made_ns"] - newest < _SETTLED:
                digest = digest or digest_of(source)
                if facts["digest"] != digest:
                    continue
                _note(facts_path, facts | {"stamp": asdict(stamp), "made_ns": time.time_ns()})
            table = open_columns(place)
        except (OSError, ValueError, KeyError, TypeError):  # none there, torn, or another program's: import again
            continue
        if (table.schema.metadata or {}).get(b"source") == facts["digest"].encode():
            return place, facts
    return None


def open_columns(path: Path) -> pa.Table:
    """Memory-mapped: pages are read when they are looked at."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def store(
    source: Path,
    schema: pa.Schema,
    tables: Callable[[], Iterable[pa.Table]],
    stamp: Stamp,
    digest: str,
    facts: dict[str, Any],
) -> Path:
    """Write the tables, all of them with `schema`, and the facts, in the first place that can be written; the columns
    appear whole, the facts after them. Returns their file. Raises OSError, with each place's reason, if none can be."""
    schema = schema.with_metadata({**(schema.metadata or {}), b"source": digest.encode()})
    refused: list[str] = []
    for place in places(source):
        scratch = place.with_name(f"{place.name}.{os.getpid()}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(scratch), "wb") as out, pa.ipc.new_file(out, schema) as writer:
                for table in tables():
                    writer.write_table(table.cast(schema))
            os.replace(scratch, place)
            facts = {"format": FORMAT, "stamp": asdict(stamp), "digest": digest, "made_ns": time.time_ns(), **facts}
            write_atomically(place.with_suffix(".json"), json.dumps(facts, ensure_ascii=False) + "\n")
        except OSError as error:  # read-only, or full
            refused.append(f"{place}: {error.strerror or error}")
            continue
        finally:
            scratch.unlink(missing_ok=True)
        return place
    raise OSError("; ".join(refused) + ". Free some space, or name a folder with some in TTS_KERNEL_CACHE")


def _note(path: Path, facts: dict[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(facts, ensure_ascii=False) + "\n")
    except OSError:  # read-only now: the next open compares the bytes again
        return
