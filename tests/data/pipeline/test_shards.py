from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.data.pipeline.written import SCHEMA, WORDS, row, rows, write_shards
from tts_kernel.data.pipeline import PipelineError, read_lengths, read_list, shards
from tts_kernel.data.pipeline.shards import RowReader


def changed_type(name: str, kind: pa.DataType) -> pa.Schema:
    return SCHEMA.set(SCHEMA.get_field_index(name), pa.field(name, kind))


def test_every_missing_file_of_a_list_is_named(tmp_path: Path) -> None:
    path = write_shards(tmp_path, rows(2))
    path.write_text(path.read_text() + "\nelsewhere/gone.tar\nparquet_9.tar\n", encoding="utf-8")
    with pytest.raises(PipelineError) as caught:
        read_list(path)
    said = str(caught.value)
    assert "data.list:3: elsewhere/gone.tar does not exist" in said
    assert "data.list:4: parquet_9.tar does not exist" in said
    assert "copy the shards beside their list" in said
    with pytest.raises(PipelineError, match=r"none/data\.list: no such file"):
        read_list(tmp_path / "none" / "data.list")
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="names no shard"):
        read_list(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, r"parquet_000000000\.tar: a shard itself; expected a data\.list with one parquet shard per line"),
        ("a.tar\n".encode("utf-16"), r"data\.list: no text in UTF-8; expected a data\.list"),
        (b"x" * 5000, r"data\.list:1: x+ does not exist, nor x+ beside the list"),
        (b"{}\n", r"data\.list:1: \{\} does not exist"),
        (b".\n", r"data\.list:1: \. does not exist"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = write_shards(tmp_path, rows(1))
    if content is None:
        path = tmp_path / "parquet_000000000.tar"
    else:
        path.write_bytes(content)
    with pytest.raises(PipelineError, match=reason):
        read_list(path)


def test_a_list_of_more_shards_than_files_may_be_open_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_KEPT_FILES", 2)
    paths = tuple(read_list(write_shards(tmp_path, *([row(f"u{at}")] for at in range(5)))))
    reader, before = RowReader(paths), len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert [reader.row(at, 0)["utt"] for at in range(5)] == [f"u{at}" for at in range(5)]
    assert len(os.listdir("/proc/self/fd")) - before <= 2


def test_a_list_that_has_moved_with_its_shards_is_read(tmp_path: Path) -> None:
    write_shards(tmp_path / "here", rows(2))
    moved = Path(shutil.move(tmp_path / "here", tmp_path / "there"))
    assert [path.parent for path in read_list(moved)] == [moved]
    assert len(read_lengths(moved, WORDS)) == 2


@pytest.mark.parametrize(
    ("name", "hint"),
    [("utt_embedding", "tts_kernel.data.voices"), ("speech_token", "tts_kernel.data.voices"), ("spk", "in a shard")],
)
def test_a_missing_column_is_named_with_what_makes_it(tmp_path: Path, name: str, hint: str) -> None:
    path = write_shards(tmp_path, rows(2), schema=SCHEMA.remove(SCHEMA.get_field_index(name)))
    with pytest.raises(PipelineError, match=f"no column {name}.*{hint}"):
        read_lengths(path, WORDS)


@pytest.mark.parametrize(
    ("name", "kind", "value", "expected"),
    [
        ("utt_embedding", pa.list_(pa.list_(pa.float64())), [[0.5] * 192], "a list of 192 floats"),
        ("spk_embedding", pa.string(), "[0.5, 0.5]", "a list of 192 floats"),
        ("utt_embedding", pa.binary(), b"pickled", "a list of 192 floats"),
        ("speech_token", pa.list_(pa.float64()), [1.0, 2.0], "a list of integers"),
        ("audio_data", pa.string(), "a.wav", "bytes of an audio file"),
        ("text", pa.list_(pa.string()), ["x"], "text"),
    ],
)
def test_a_column_of_objects_or_another_type_is_refused(
    tmp_path: Path, name: str, kind: pa.DataType, value: Any, expected: str
) -> None:
    path = write_shards(tmp_path, [row("a", **{name: value})], schema=changed_type(name, kind))
    with pytest.raises(PipelineError, match=rf"column {name} is .*, expected {expected}"):
        read_lengths(path, WORDS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("utt_embedding", pa.list_(pa.float32())),
        ("spk_embedding", pa.list_(pa.float64(), 192)),
        ("utt_embedding", pa.large_list(pa.float64())),
        ("speech_token", pa.list_(pa.int32())),
        ("utt", pa.string()),
        ("audio_data", pa.large_binary()),
    ],
)
def test_what_other_versions_of_pandas_write_reads_the_same(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    given = rows(3)
    plain = RowReader(tuple(read_list(write_shards(tmp_path / "plain", given))))
    other = RowReader(tuple(read_list(write_shards(tmp_path / "other", given, schema=changed_type(name, kind)))))
    for place in range(3):
        for column, value in plain.row(0, place).items():
            assert np.array_equal(value, other.row(0, place)[column]), column
    assert len(read_lengths(tmp_path / "other", WORDS)) == 3


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    path = write_shards(tmp_path, rows(2))
    (tmp_path / "parquet_000000000.tar").write_bytes(b"no parquet at all")
    with pytest.raises(PipelineError, match=r"parquet_000000000\.tar: no parquet file"):
        read_lengths(path, WORDS)


def test_a_reader_goes_to_a_worker_process(tmp_path: Path) -> None:
    reader = RowReader(tuple(read_list(write_shards(tmp_path, rows(2)))))
    assert reader.row(0, 1)["utt"] == "u01"
    assert pickle.loads(pickle.dumps(reader)).row(0, 1)["utt"] == "u01"
