"""Packs folders of .npy files into shards. A job that was stopped is started again with the same command.

What is packed already is skipped, unless its file is newer and holds something else: then it is packed once more, and
the newer one holds. Files that cannot be read are named and stay where they are.
"""

from __future__ import annotations

import multiprocessing
import os
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from tts_kernel.data.features.features import FOLDER, Features
from tts_kernel.data.features.folder_lock import end_with_parent
from tts_kernel.data.features.npy_files import list_npy, read_npy
from tts_kernel.data.features.shard_check import shard_faults
from tts_kernel.data.features.shard_format import FeatureError
from tts_kernel.data.features.shards import ShardWriter, index_path, read_index, storable
from tts_kernel.data.features.store_lock import free_names, writing
from tts_kernel.data.files import UnsafePathError, inside

KINDS = ("text_ids", "codes", "condition", "emo_vec", "semantic", "mel")  # folders that are packed by default
OLDER = "differs from what is packed, and is older: delete it, or touch it and pack again"
_COMPARED = 1 << 12  # files that are compared in one go
_NAMES = pa.schema([("kind", pa.string()), ("clip", pa.large_string())])

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PackReport:
    """What packing did. packed + skipped + missing + unreadable = the files it found."""

    packed: int = 0
    skipped: int = 0  # were packed before
    missing: int = 0  # vanished meanwhile
    unreadable: int = 0  # damaged, or not to be stored
    deleted: int = 0  # of the packed and the skipped
    failures: tuple[tuple[str, str], ...] = ()  # (path, reason) of every file that is missing or unreadable

    def __add__(self, other: PackReport) -> PackReport:
        return PackReport(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    @property
    def files(self) -> int:
        return self.packed + self.skipped + self.missing + self.unreadable

    def __str__(self) -> str:
        return (
            f"{self.packed} packed, {self.skipped} skipped, {self.missing} missing, {self.unreadable} unreadable, "
            f"{self.deleted} files deleted"
        )


def pack(
    root: Path,
    kinds: Collection[str] | None = None,
    clips_per_shard: int = 4096,
    half: Collection[str] = (),
    workers: int = 1,
    delete_source: bool = False,
) -> PackReport:
    """Pack `root/<kind>/<clip>.npy` into `root/features/`; without `kinds`, those of KINDS that are there. `half` names
    the kinds to be stored as float16. With 4096 clips in each, 5.48 million make 1,339 shards: 2,678 files with the
    indices, half of that after `compact`.

    `delete_source` removes a file when its array is on the disk, was read back from there and holds the same values.
    Raises StoreError if another job writes there or the disk is full, ValueError if a setting is out of range.
    """
    root = Path(root)
    chosen = [kind for kind in KINDS if (root / kind).is_dir()] if kinds is None else list(kinds)
    _check(root, chosen, clips_per_shard, half, workers)
    with writing(root / FOLDER, "packing"):
        features = Features(root, verify=True)
        fresh, packed, report = _listed(features, chosen)
        suspects = packed if delete_source else packed.filter(packed["newer"])
        report += PackReport(skipped=len(packed) - len(suspects))
        changed = [fresh]
        with tqdm(total=len(fresh) + len(packed), initial=report.skipped, desc="pack", unit="file") as bar:
            compare = partial(_compare, features, delete_source)
            parts = (suspects.slice(start, _COMPARED) for start in range(0, len(suspects), _COMPARED))
            for done, more in _spread(compare, parts, workers):
                report += done
                changed.append(more)
                bar.update(done.files)
            write = partial(_write, root, frozenset(half), delete_source)
            names = free_names(root / FOLDER, "packed")
            shards = ((next(names), part) for part in _by_clip(pa.concat_tables(changed), clips_per_shard))
            for done in _spread(write, shards, workers):
                report += done
                bar.update(done.files)
        features.refresh()  # so that the next to open it need not merge the index
    return report


def _check(root: Path, kinds: list[str], clips_per_shard: int, half: Collection[str], workers: int) -> None:
    problems = [f"{root / kind}: no such folder" for kind in kinds if not inside(root, kind).is_dir()]
    problems += [f"half names {kind!r}, which is not packed" for kind in half if kind not in kinds]
    problems += [
        f"{name} is {value}, expected at least 1"
        for name, value in (("clips_per_shard", clips_per_shard), ("workers", workers))
        if value < 1
    ]
    if not kinds:
        problems.append(f"{root}: none of the folders {', '.join(KINDS)}; name those that hold the .npy files")
    if problems:
        raise ValueError("; ".join(problems))


def _listed(features: Features, kinds: list[str]) -> tuple[pa.Table, pa.Table, PackReport]:
    """Files that are not packed, those that are (with `newer`: changed since), and what cannot even be named."""
    fresh, packed, failures = [_NAMES.empty_table()], [_NAMES.append(pa.field("newer", pa.bool_())).empty_table()], []
    for kind in kinds:
        files = list_npy(features.root / kind)
        made = features.made(kind, files.clips)
        table = pa.table([pa.repeat(kind, len(files.clips)), files.clips], schema=_NAMES)
        table = table.append_column("newer", pa.array(files.times > made))
        fresh.append(table.filter(pa.array(made < 0)).select(_NAMES.names))
        packed.append(table.filter(pa.array(made >= 0)))
        for problem in files.problems:
            path, _, reason = problem.rpartition(": ")
            failures.append((path, reason))
    report = PackReport(unreadable=len(failures), failures=tuple(failures))
    return pa.concat_tables(fresh), pa.concat_tables(packed), report


def _by_clip(files: pa.Table, clips: int) -> Iterator[pa.Table]:
    """The files in parts of so many clips, all kinds of a clip together."""
    files = files.take(pc.sort_indices(files, [("clip", "ascending"), ("kind", "ascending")])).combine_chunks()
    names = files["clip"].combine_chunks() if len(files) else pa.array([], pa.large_string())
    new = np.flatnonzero(pc.not_equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False)) + 1
    starts = [*np.concatenate([[0], new])[::clips].tolist(), len(files)] if len(files) else []
    for start, stop in pairwise(starts):
        yield files.slice(start, stop - start)


def _write(root: Path, half: frozenset[str], delete_source: bool, task: tuple[str, pa.Table]) -> PackReport:
    """One shard."""
    name, files = task
    packed: list[tuple[str, str]] = []
    report = PackReport()
    with ShardWriter(root / FOLDER, name, half) as shard:
        for kind, clip in zip(*files.to_pydict().values(), strict=True):
            path = root / kind / f"{clip}.npy"
            try:
                shard.add(clip, kind, read_npy(path))
                packed.append((kind, clip))
            except (FeatureError, UnsafePathError) as error:
                report += _failure(path, str(error))
    report += PackReport(packed=len(packed))
    return report + _delete_packed(root, shard.path, half) if packed and delete_source else report


def _delete_packed(root: Path, tar: Path, half: frozenset[str]) -> PackReport:
    """Remove the sources of a shard, each if the disk gives back what it holds now."""
    rows, (shard,) = read_index(index_path(tar))
    forget(tar)
    problems: list[str] = []
    bad = {(kind, clip): fault for kind, clip, fault in shard_faults(tar, shard, rows, problems)}
    report = PackReport()
    for kind, clip, crc in zip(*(rows[name].to_pylist() for name in ("kind", "clip", "crc")), strict=True):
        path = root / kind / f"{clip}.npy"
        fault = "; ".join(problems) or bad.get((kind, clip))
        try:
            if fault is None and zlib.crc32(storable(read_npy(path), clip, kind in half).tobytes()) != crc:
                fault = "has changed since it was packed; pack again"
        except FeatureError as error:
            fault = str(error)
        if fault is None:
            path.unlink(missing_ok=True)
            report += PackReport(deleted=1)
        else:
            report += PackReport(failures=((str(path), f"packed, but not deleted: {fault}"),))
    return report


def _compare(features: Features, delete_source: bool, files: pa.Table) -> tuple[PackReport, pa.Table]:
    """Files whose arrays are packed: those that differ and are newer are to be packed again, equal ones are removed."""
    changed: list[tuple[str, str]] = []
    report = PackReport()
    for kind, clip, newer in zip(*files.to_pydict().values(), strict=True):
        path = features.root / kind / f"{clip}.npy"
        try:
            array = read_npy(path)
        except FeatureError as error:
            report += _failure(path, str(error))
            continue
        if _same(features, kind, clip, array):
            if delete_source:
                path.unlink(missing_ok=True)
            report += PackReport(skipped=1, deleted=int(delete_source))
        elif newer:
            changed.append((kind, clip))
        else:
            report += PackReport(skipped=1, failures=((str(path), OLDER),))
    return report, pa.Table.from_pylist([{"kind": kind, "clip": clip} for kind, clip in changed], schema=_NAMES)


def _same(features: Features, kind: str, clip: str, array: np.ndarray) -> bool:
    try:
        (stored,) = features.read_kind(kind, [clip])
        array = storable(array, clip, half=stored.dtype == np.float16)
    except FeatureError:  # damaged in its shard, or beyond what it was stored as
        return False
    return array.dtype == stored.dtype and array.shape == stored.shape and array.tobytes() == stored.tobytes()


def _failure(path: Path, reason: str) -> PackReport:
    there = os.path.lexists(path)
    return PackReport(missing=int(not there), unreadable=int(there), failures=((str(path), reason),))


def forget(path: Path) -> None:
    """Take a file out of the memory it is cached in, so that it is read from the disk."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _spread(call: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """The results of all tasks in order, from processes if `workers` is more than 1; few tasks wait at a time."""
    if workers == 1:
        yield from map(call, tasks)
        return
    tasks = iter(tasks)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        try:
            waiting = deque[Future[Result]](pool.submit(call, task) for task in islice(tasks, 2 * workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(call, task) for task in islice(tasks, 1))
        finally:
            pool.shutdown(cancel_futures=True)
