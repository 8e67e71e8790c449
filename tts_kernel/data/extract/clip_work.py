"""What a worker of an extraction job does: a slice of clips in, one shard out, and a reason for each clip left out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tts_kernel.audio import wav as audio
from tts_kernel.audio.wav import Hz, Resampler, Seconds
from tts_kernel.data.features.shards import ShardWriter, index_path, read_index

MISSING, UNREADABLE = "missing", "unreadable"
ABSENT = "no such audio file"
FAILURES = pa.schema(
    [
        ("row", pa.int64()),  # in the job's list of clips
        ("clip", pa.large_string()),
        ("audio", pa.large_string()),
        ("status", pa.string()),  # MISSING or UNREADABLE
        ("reason", pa.large_string()),
    ]
)
Compute = Callable[[np.ndarray], "np.ndarray | dict[str, np.ndarray]"]


@dataclass(frozen=True)
class Extractor:
    """One array per clip, or several kinds of them."""

    kinds: tuple[str, ...]
    compute: Compute
    """(samples,) float32 mono in [-1, 1] -> the array, or all kinds by name. Picklable, as workers get a copy each.
    A ValueError is its word on a clip that it cannot use; any other error stops the job."""
    sample_rate: Hz


@dataclass(frozen=True)
class Work:
    """What is the same for all slices of a job."""

    store: Path  # folder of the shards
    audio_root: Path  # where relative audio paths start
    extractor: Extractor
    half: bool  # store floating point values as float16


@dataclass(frozen=True)
class Slice:
    """Clips that become one shard."""

    name: str  # of the shard
    rows: pa.Table  # row: int64, clip: string, audio: string or binary, have: int64, a bit for each kind that is there
    deaths: int = 0  # workers that ended while they had it

    def __len__(self) -> int:
        return self.rows.num_rows


@dataclass(frozen=True)
class Outcome:
    """What became of a slice."""

    made: int
    failures: pa.Table  # of the schema FAILURES
    seconds: Seconds  # of audio in what was made


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS, and torch if it is loaded, compute in one thread: N workers with N threads each fight for N cores, and the
    last bit of a sum would depend on the number of workers."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    with threadpool_limits(1):
        try:
            if torch:
                torch.set_num_threads(1)
            yield
        finally:
            if torch:
                torch.set_num_threads(threads)


def make_shard(todo: Slice, work: Work, tick: Callable[[], None] = lambda: None) -> Outcome:
    """Extract a slice into its shard; `tick` is called after each clip.

    Where the shard is there already (its worker died before it could say so), only what it lacks is done.
    Raises StoreError if the shard cannot be written, and whatever is wrong with the extractor itself."""
    name, done = todo.name, set[str]()
    while index_path(work.store / f"{name}.tar").exists():
        done.update(read_index(index_path(work.store / f"{name}.tar"))[0].column("clip").to_pylist())
        name += "-rest"
    made, seconds = len(done), 0.0
    failures: list[tuple[int, str, str, str, str]] = []
    resampler = Resampler(work.extractor.sample_rate)
    with ShardWriter(work.store, name, half=work.extractor.kinds if work.half else ()) as shard:
        for row, clip, named, have in zip(*todo.rows.to_pydict().values(), strict=True):
            if clip not in done:
                path = work.audio_root / os.fsdecode(named)
                try:
                    samples, _ = audio.read(path, resampler=resampler)
                    for bit, (kind, array) in enumerate(_arrays(work.extractor, samples)):
                        if not have >> bit & 1:
                            shard.add(clip, kind, array)
                    made, seconds = made + 1, seconds + len(samples) / work.extractor.sample_rate
                except FileNotFoundError:  # since the job looked
                    failures.append((row, clip, readable(named), MISSING, ABSENT))
                except ValueError as error:  # AudioError, FeatureError, or the extractor's own word on this clip
                    reason = readable(str(error).removeprefix(f"{path}: "))
                    failures.append((row, clip, readable(named), UNREADABLE, reason))
            tick()
    return Outcome(made, failure_table(failures), seconds)


def _arrays(extractor: Extractor, samples: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Every kind in the extractor's order, once all are known to be finite."""
    found = extractor.compute(samples)
    arrays = found if isinstance(found, dict) else {extractor.kinds[0]: found}
    if arrays.keys() != set(extractor.kinds):
        raise TypeError(f"the extractor made {sorted(arrays)}, expected {sorted(extractor.kinds)}")
    for kind, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{kind}: {int((~np.isfinite(array)).sum())} of {array.size} values are not finite")
    return ((kind, arrays[kind]) for kind in extractor.kinds)


def failure_table(rows: Sequence[tuple[int, str, str, str, str]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[]] * len(FAILURES)
    return pa.table([pa.array(values, item.type) for values, item in zip(columns, FAILURES, strict=True)], FAILURES)


def readable(name: str | bytes) -> str:
    """A name or message as text that any file can hold: what is no UTF-8 becomes `\\udcb0`."""
    return os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
