"""`data.list` and its parquet shards, as upstream's tools write them: columns checked, rows fetched by their place.

A shard's columns are utt, text, spk (strings, large or not), audio_data (the bytes of an audio file), utt_embedding and
spk_embedding (lists of floats), speech_token and perhaps reject_speech_token (lists of integers); others are passed
over.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tts_kernel.data.pipeline.lengths import EMBEDDING
from tts_kernel.data.pipeline.processors import PipelineError

STRINGS, VECTORS, TOKENS = ("utt", "text", "spk"), ("utt_embedding", "spk_embedding"), ("speech_token",)
REJECTED = "reject_speech_token"  # a column of some preference data
COLUMNS = (*STRINGS, "audio_data", *VECTORS, *TOKENS)
_KEPT_GROUPS = 4  # row groups held in memory: batches come from neighbouring ones
_KEPT_FILES = 16  # open at a time; a list may name more shards than a process may open files


def read_list(path: Path) -> list[Path]:
    """The shards that a data.list names, one per line, relative to it or absolute; one that has moved beside its list
    is found there. Raises PipelineError naming every line whose file is missing, and for an empty list."""
    path = Path(path)
    path = path / "data.list" if path.is_dir() else path
    if not path.is_file():
        raise PipelineError(f"{path}: no such file; expected a data.list with one parquet shard per line")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        what = "a shard itself" if path.read_bytes()[:4] == b"PAR1" else "no text in UTF-8"
        raise PipelineError(f"{path}: {what}; expected a data.list with one parquet shard per line") from error
    shards, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not (name := line.strip()):
            continue
        named, beside = path.parent / name, path.parent / Path(name).name
        found = named if os.path.isfile(named) else beside  # pathlib raises for a line that is too long for a name
        if not os.path.isfile(found):
            problems.append(f"{path}:{number}: {name:.200} does not exist, nor {beside.name:.80} beside the list")
        shards.append(found)
    if problems:
        problems.append("copy the shards beside their list, or write the list again")
        raise PipelineError("\n".join(problems))
    if not shards:
        raise PipelineError(f"{path}: names no shard; expected one parquet file per line")
    return shards


def check_columns(path: Path, schema: pa.Schema) -> None:
    """Raises PipelineError listing every column that is missing or of another type."""
    problems = []
    for name in (*COLUMNS, *([REJECTED] if REJECTED in schema.names else [])):
        if name not in schema.names:
            made = name in (*VECTORS, *TOKENS)
            how = "python -m tts_kernel.data.voices computes it" if made else "upstream's tools write it in a shard"
            problems.append(f"no column {name}; {how}")
            continue
        found = schema.field(name).type
        expected = _problem(name, found)
        if expected:
            problems.append(f"column {name} is {found}, expected {expected}")
    if problems:
        raise PipelineError("\n  ".join([f"{path}: {len(problems)} problems:", *problems]))


def _problem(name: str, found: pa.DataType) -> str:
    """What was expected of this column, if it is something else."""
    if name in STRINGS:
        return "" if pa.types.is_string(found) or pa.types.is_large_string(found) else "text"
    if name == "audio_data":
        return "" if pa.types.is_binary(found) or pa.types.is_large_binary(found) else "bytes of an audio file"
    listed = pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
    if name in VECTORS:
        return "" if listed and pa.types.is_floating(found.value_type) else f"a list of {EMBEDDING} floats"
    return "" if listed and pa.types.is_integer(found.value_type) else "a list of integers"


def open_shard(path: Path) -> pq.ParquetFile:
    """Raises PipelineError if it is no parquet file, or its columns are others."""
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise PipelineError(f"{path}: no such shard; it was there when the list was read") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise PipelineError(f"{path}: no parquet file ({str(error).splitlines()[0]}); copy it again") from error
    check_columns(path, file.schema_arrow)
    return file


@dataclass(frozen=True)
class _Opened:
    file: pq.ParquetFile
    starts: np.ndarray  # (row groups + 1,) first row of each


class RowReader:
    """Rows of shards by their place. The last few row groups stay in memory, which is where batches come from; shards
    that upstream wrote have one group each."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self._files: OrderedDict[int, _Opened] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {"paths": self.paths, "_files": OrderedDict(), "_groups": OrderedDict()}

    def row(self, shard: int, row: int) -> dict[str, Any]:
        """Columns by name: text, bytes, and arrays of float32 and int64."""
        opened = self._file(shard)
        group = int(np.searchsorted(opened.starts, row, side="right")) - 1
        key = (shard, group)
        if key not in self._groups:
            try:
                self._groups[key] = opened.file.read_row_group(group, columns=list(COLUMNS))
            except (pa.ArrowInvalid, OSError) as error:
                raise PipelineError(f"{self.paths[shard]}: damaged ({error}); copy it again") from error
            if len(self._groups) > _KEPT_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        table, place = self._groups[key], row - int(opened.starts[group])
        values = {name: table.column(name)[place] for name in COLUMNS}
        found: dict[str, Any] = {name: values[name].as_py() for name in (*STRINGS, "audio_data")}
        found |= {name: _numbers(values[name], np.float32) for name in VECTORS}
        return found | {name: _numbers(values[name], np.int64) for name in TOKENS}

    def _file(self, shard: int) -> _Opened:
        if shard not in self._files:
            file = open_shard(self.paths[shard])
            groups = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            self._files[shard] = _Opened(file, np.concatenate([[0], np.cumsum(groups)]))
            if len(self._files) > _KEPT_FILES:
                _, oldest = self._files.popitem(last=False)
                oldest.file.close()
        self._files.move_to_end(shard)
        return self._files[shard]


def _numbers(value: pa.Scalar, dtype: type[np.generic]) -> np.ndarray:
    """A list's values; empty where there is none."""
    return np.zeros(0, dtype) if value.values is None else value.values.to_numpy(zero_copy_only=False).astype(dtype)
