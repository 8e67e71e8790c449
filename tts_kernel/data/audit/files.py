"""The files that pairs name, opened once each in parallel processes: every audio file and every feature array."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from tts_kernel.data.audit.audio import Sound, listen
from tts_kernel.data.audit.rows import TEXT, Rows
from tts_kernel.data.audit.settings import AuditError
from tts_kernel.data.features import FeatureError, Features
from tts_kernel.data.files import UnsafePathError, inside

CHUNK = 64  # files per task of a worker
FEW = 1000  # files that one process opens sooner than others start
NAMED = pa.schema([("path", TEXT), ("column", TEXT), ("row", pa.int64()), ("length", pa.int64())])
SOUND = pa.schema(
    [
        *[(name, TEXT) for name in ("status", "detail", "digest")],
        *[(name, pa.int32()) for name in ("sample_rate", "channels")],
        *[(name, pa.float64()) for name in ("duration", "level", "peak", "clipping", "lead", "tail")],
    ]
)
ARRAY = pa.schema(
    [
        *[(name, TEXT) for name in ("status", "detail")],  # ok, missing, unreadable, not finite, outside
        *[(name, pa.int64()) for name in ("frames", "width")],  # length of the first axis, of the second or 0
        *[(name, pa.int64()) for name in ("lowest", "highest")],  # of whole numbers
        ("ids", pa.list_(pa.int64())),  # of a text
    ]
)
_LEAVES = "the path leaves the data folder"
_LENGTHS = {"target_text_ids": "target_text_len", "target_codes": "target_code_len"}


def named_files(rows: Rows, chosen: np.ndarray, *, audio: bool) -> pa.Table:
    """The audio, or the feature, files that the rows `chosen` (ascending) name, each once for every length it is said
    to have: columns of `NAMED`, where row is the first that names it and length what that row says, -1 without.
    Files of targets come before those of prompts, so a file that is both counts as its own clip's."""
    columns = [name for name in rows.columns if name.endswith("_path") and name.endswith("_audio_path") == audio]
    parts = []
    for name in sorted(columns, key=lambda name: (name.startswith("prompt_"), name)):
        paths = rows.values(name, chosen)
        filled = np.flatnonzero(paths.is_valid().to_numpy())
        length = _LENGTHS.get(name.removesuffix("_path"), name.removesuffix("_path") + "_len")
        lengths = rows.numbers(length)[chosen[filled]] if length in rows else np.full(len(filled), -1)
        columns_ = [
            paths.take(pa.array(filled)),
            pa.repeat(pa.scalar(name, TEXT), len(filled)),
            chosen[filled],
            lengths,
        ]
        parts.append(pa.Table.from_arrays([_chunked(column) for column in columns_], schema=NAMED))
    table = pa.concat_tables([NAMED.empty_table(), *parts]).combine_chunks()
    codes = table.column("path").combine_chunks().dictionary_encode()
    keys = codes.indices.to_numpy().astype(np.int64) * (1 << 32) + table.column("length").to_numpy() + 1
    return table.take(pa.array(np.sort(np.unique(keys, return_index=True)[1])))


def listen_to_all(root: Path, files: pa.Table, workers: int, *, outside: bool) -> pa.Table:
    """What `listen` finds in each of these files, in their order: columns of `NAMED` and `SOUND`. With `outside` paths
    may leave `root`."""
    work = partial(_listen_chunk, root=root, outside=outside)
    return _with(files, SOUND, _run(work, files, workers, "audio"))


def open_all(root: Path, files: pa.Table, workers: int, *, outside: bool) -> pa.Table:
    """What each of these feature arrays holds, in their order: columns of `NAMED` and `ARRAY`."""
    _features.cache_clear()  # what this process opened for an earlier audit
    work = partial(_open_chunk, root=root, outside=outside)
    return _with(files, ARRAY, _run(work, files, workers, "features"))


@functools.lru_cache(maxsize=1)
def _features(root: Path, outside: bool) -> Features:
    """Opened once per process: the index of a large corpus is large."""
    return Features(root, verify=True, allow_outside=outside)


Chunk = list[tuple[str, str]]  # path and column: a slice of a table would travel with all of the table


def _run(work: Callable[[Chunk], pa.Table], files: pa.Table, workers: int, desc: str) -> Iterator[pa.Table]:
    """`work` on every chunk, in order. Few chunks wait at any time: millions of files do not fill the memory."""
    parts = (files.select(["path", "column"]).slice(start, CHUNK) for start in range(0, len(files), CHUNK))
    chunks = (list(zip(*part.to_pydict().values(), strict=True)) for part in parts)
    with tqdm(total=len(files), desc=desc, unit="file") as bar:
        if workers == 1 or len(files) < FEW:
            for chunk in chunks:
                yield work(chunk)
                bar.update(len(chunk))
            return
        context = multiprocessing.get_context("spawn")  # a fork of a kernel with threads may hang
        waiting: deque[Future[pa.Table]] = deque()
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet) as pool:
            while True:
                waiting += [pool.submit(work, chunk) for chunk in islice(chunks, 4 * workers - len(waiting))]
                if not waiting:
                    return
                try:
                    done = waiting.popleft().result()
                except BrokenProcessPool as error:
                    raise AuditError(
                        f"a worker died while it read {desc}, killed or by a file that its library cannot stand; "
                        f"{bar.n:,} of {len(files):,} files were read. Start again with fewer workers, or with "
                        "workers 1 to see where it ends"
                    ) from error
                yield done
                bar.update(len(done))


def _with(files: pa.Table, schema: pa.Schema, found: Iterator[pa.Table]) -> pa.Table:
    table = pa.concat_tables([schema.empty_table(), *found])
    for name in schema.names:
        files = files.append_column(name, table.column(name))
    return files


def _quiet() -> None:
    """Codecs complain of every damaged file on the worker's own stderr; what matters is in what it returns."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _path(root: Path, relative: str, outside: bool) -> Path | None:
    """Where a manifest's path is; None if it may not be followed."""
    try:
        return inside(root, relative)
    except UnsafePathError:
        return root / relative if outside else None


def _listen_chunk(files: Chunk, root: Path, outside: bool) -> pa.Table:
    found = []
    for relative, _ in files:
        path = _path(root, relative, outside)
        found.append(asdict(listen(path) if path else Sound("outside", _LEAVES)))
    return pa.Table.from_pylist(found, schema=SOUND)


def _open_chunk(files: Chunk, root: Path, outside: bool) -> pa.Table:
    found, features = [], _features(root, outside)
    for relative, column in files:
        if _path(root, relative, outside):
            found.append(_opened(features, relative, keep_ids=column.endswith("text_ids_path")))
        else:
            found.append({"status": "outside", "detail": _LEAVES})
    return pa.Table.from_pylist(found, schema=ARRAY)


def _opened(features: Features, path: str, *, keep_ids: bool) -> dict[str, Any]:
    try:
        array = features.read([path])[0]
    except FeatureError as error:
        return {"status": "missing" if _is_missing(error) else "unreadable", "detail": str(error)}
    if not np.issubdtype(array.dtype, np.number):
        return {"status": "unreadable", "detail": f"holds {array.dtype}, expected numbers"}
    facts: dict[str, Any] = {"status": "ok", "detail": "", "frames": 0, "width": 0}
    if array.ndim:
        facts["frames"] = len(array)
    if array.ndim > 1:
        facts["width"] = array.shape[1]
    if np.issubdtype(array.dtype, np.integer) and array.size:
        within = array.clip(max=np.iinfo(np.int64).max).astype(np.int64)
        facts |= {"lowest": int(within.min()), "highest": int(within.max())}
        if keep_ids:
            facts["ids"] = within.ravel().tolist()
    elif not np.isfinite(array).all():
        bad = ~np.isfinite(array)
        facts |= {"status": "not finite", "detail": f"{int(bad.sum()):,} of {array.size:,} values"}
    return facts


def _is_missing(error: BaseException | None) -> bool:
    """Whether an error began with a file that does not exist."""
    while error is not None and not isinstance(error, FileNotFoundError):
        error = error.__cause__ or error.__context__
    return error is not None


def _chunked(values: pa.ChunkedArray | pa.Array | np.ndarray) -> pa.ChunkedArray:
    if isinstance(values, pa.ChunkedArray):
        return values
    return pa.chunked_array([pa.array(values)])
