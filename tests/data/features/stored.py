"""Small feature folders."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tts_kernel.data.features import FeatureError, Features, shard_index
from tts_kernel.data.features.shards import ShardWriter, index_path, read_index, write_index


def write_shard(folder: Path, name: str, arrays: Mapping[str, np.ndarray], half: tuple[str, ...] = ()) -> Path:
    """A shard of `{"kind/clip": array}`; the kind is what comes before the first slash."""
    with ShardWriter(folder, name, half) as shard:
        for path, array in arrays.items():
            kind, _, clip = path.partition("/")
            shard.add(clip, kind, array)
    return folder / f"{name}.tar"


def save_all(root: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """The same as .npy files."""
    for path, array in arrays.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / f"{path}.npy", array)


def edit_index(tar: Path, column: str, values: list[int]) -> None:
    """Replace a column of a shard's index."""
    table, _ = read_index(index_path(tar))
    number = table.schema.get_field_index(column)
    changed = table.set_column(number, table.schema.field(number), pa.array(values, table.schema.field(number).type))
    write_index(index_path(tar), changed.replace_schema_metadata(table.schema.metadata))


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert found.shape == expected.shape


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def mel(value: float, frames: int = 4) -> np.ndarray:
    return np.full((frames, 3), value, dtype=np.float32)


class Store:
    """A data folder whose features are added bit by bit."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.folder = root, root / "features"
        self.root.mkdir()
        self.merges = 0  # how often an index was merged
        real = shard_index._merge

        def counted(*arguments: Any) -> shard_index.Index:
            self.merges += 1
            return real(*arguments)

        monkeypatch.setattr(shard_index, "_merge", counted)
        monkeypatch.setenv("TTS_KERNEL_CACHE", str(root.parent / "cache"))

    def add(self, name: str, arrays: dict[str, np.ndarray]) -> Path:
        return write_shard(self.folder, name, arrays)

    def value(self, path: str) -> float:
        return float(Features(self.root).read([path])[0].reshape(-1)[0])

    def refusal(self, path: str, verify: bool = False) -> str:
        with pytest.raises(FeatureError) as caught:
            Features(self.root, verify=verify).read([path])
        return str(caught.value)
