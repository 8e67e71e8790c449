from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.corpora.clips import read, reasons, rows, samples_of, small_corpus
from tts_kernel.data.corpora import CorpusError, Utterances, write_cosyvoice2

# What upstream's shards look like (parity case cosyvoice2/pipeline, facts.columns).
UPSTREAM = [
    ("utt", "large_string"),
    ("audio_data", "binary"),
    ("wav", "large_string"),
    ("text", "large_string"),
    ("spk", "large_string"),
    ("utt_embedding", "list<element: double>"),
    ("spk_embedding", "list<element: double>"),
    ("speech_token", "list<element: int64>"),
]
VECTORS = ("utt_embedding", "spk_embedding", "speech_token")


@pytest.fixture
def corpus(tmp_path: Path) -> Utterances:
    """Fifteen clips with all that a CosyVoice2 training needs."""
    plain = small_corpus(tmp_path / "source")
    chance = np.random.default_rng(0)
    for name in VECTORS[:2]:
        plain = plain.with_column(name, [chance.normal(size=192).tolist() for _ in range(15)])
    return plain.with_column("speech_token", [list(range(number)) for number in range(15)])


def test_shards_have_upstreams_columns_and_types(corpus: Utterances, tmp_path: Path) -> None:
    write_cosyvoice2(corpus, tmp_path / "cv", shard_size=4)
    shards = sorted((tmp_path / "cv").glob("*.tar"))
    assert [pq.ParquetFile(shard).metadata.num_rows for shard in shards] == [4, 4, 4, 3]
    schema = pq.ParquetFile(shards[0]).schema_arrow
    assert [(field.name, str(field.type)) for field in schema] == UPSTREAM
    row = pq.ParquetFile(shards[0]).read().to_pylist()[0]
    assert row["audio_data"] == corpus.paths()[0].read_bytes()
    assert row["wav"] == str(corpus.paths()[0])
    assert len(row["utt_embedding"]) == 192


def test_lists_name_files_that_exist_as_upstream_opens_them(
    corpus: Utterances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cosyvoice2(corpus, tmp_path / "cv", shard_size=4)
    monkeypatch.chdir("/")
    shards = (tmp_path / "cv" / "data.list").read_text(encoding="utf-8").splitlines()
    assert [Path(shard).name for shard in shards] == [f"parquet_{number:09d}.tar" for number in range(4)]
    for kind, column in (("utt", "id"), ("spk", "speaker")):
        found: dict[str, str] = {}
        for file in (tmp_path / "cv" / f"{kind}2data.list").read_text(encoding="utf-8").splitlines():
            assert Path(file).name.startswith(f"{kind}2parquet_0")
            found.update(json.loads(Path(file).read_text(encoding="utf-8")))
        assert set(found) == set(corpus.strings(column).to_pylist())
        for name, shard in found.items():
            assert shard in shards
            assert name in pq.ParquetFile(shard).read(["utt", "spk"]).column(kind).to_pylist()


def test_embeddings_and_tokens_survive(corpus: Utterances, tmp_path: Path) -> None:
    write_cosyvoice2(corpus, tmp_path / "cv")
    imported = read("cosyvoice2", tmp_path / "cv", audio_folder=tmp_path / "audio").utterances
    assert rows(imported, {"id", *VECTORS}) == rows(corpus, {"id", *VECTORS})
    lean = read("cosyvoice2", tmp_path / "cv", allow_outside=True, vectors=False).utterances
    assert not set(VECTORS) & set(lean.table.column_names)


def test_a_vector_that_some_clips_lack_is_not_written(corpus: Utterances, tmp_path: Path) -> None:
    gaps = corpus.with_column("speech_token", [None] + [[1]] * 14)
    write_cosyvoice2(gaps, tmp_path / "cv")
    names = pq.ParquetFile(tmp_path / "cv" / "parquet_000000000.tar").schema_arrow.names
    assert names == [name for name, _ in UPSTREAM[:-1]]


def test_without_unpacking_the_table_names_the_source_files(corpus: Utterances, tmp_path: Path) -> None:
    write_cosyvoice2(corpus, tmp_path / "cv")
    shut = read("cosyvoice2", tmp_path / "cv")
    assert reasons(shut) == {"outside": 15}
    assert "audio_folder unpacks them" in shut.account.drops["outside"].examples[0]
    assert samples_of(read("cosyvoice2", tmp_path / "cv", allow_outside=True).utterances) == samples_of(corpus)


def test_shards_that_moved_with_their_list_are_found(corpus: Utterances, tmp_path: Path) -> None:
    write_cosyvoice2(corpus, tmp_path / "cv")
    shutil.move(tmp_path / "cv", tmp_path / "moved")
    imported = read("cosyvoice2", tmp_path / "moved" / "data.list", audio_folder=tmp_path / "audio")
    assert len(imported.utterances) == 15


def test_shards_outside_are_read_only_where_allowed(corpus: Utterances, tmp_path: Path) -> None:
    write_cosyvoice2(corpus, tmp_path / "cv")
    (tmp_path / "list").mkdir()
    shutil.copy(tmp_path / "cv" / "data.list", tmp_path / "list")
    assert reasons(read("cosyvoice2", tmp_path / "list")) == {"shard outside": 1}
    assert len(read("cosyvoice2", tmp_path / "list", allow_outside=True).utterances) == 15


def test_a_shard_cut_in_the_middle_is_counted_and_the_others_read(corpus: Utterances, tmp_path: Path) -> None:
    write_cosyvoice2(corpus, tmp_path / "cv", shard_size=4)
    bad, gone, *_ = sorted((tmp_path / "cv").glob("*.tar"))
    bad.write_bytes(bad.read_bytes()[:1000])
    gone.unlink()
    imported = read("cosyvoice2", tmp_path / "cv", audio_folder=tmp_path / "audio")
    assert reasons(imported) == {"damaged shard": 2}
    assert len(imported.utterances) == 7


def shard(path: Path, **columns: list[object]) -> Path:
    plain = {"utt": ["a", "b"], "wav": ["a.wav", "b.wav"], "text": ["x", "y"], "spk": ["s", "s"]}
    pq.write_table(pa.table({**plain, **columns}), path)
    return path


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "/etc/x"])
def test_utterances_are_not_unpacked_to_other_places(tmp_path: Path, name: str) -> None:
    path = shard(tmp_path / "x.parquet", utt=[name, "b"], audio_data=[b"RIFF1234", b"RIFF1234"])
    imported = read("cosyvoice2", path, audio_folder=tmp_path / "out" / "audio")
    assert reasons(imported) == {"bad path": 1}
    assert [file.name for file in (tmp_path / "out").rglob("*.*")] == ["b.wav"]


def test_rows_without_audio_or_with_a_known_name_are_dropped(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.parquet", audio_data=[b"", b"fLaC"])
    imported = read("cosyvoice2", path, audio_folder=tmp_path / "one")
    assert reasons(imported) == {"missing audio": 1}
    assert imported.utterances.strings("audio").to_pylist() == ["b.flac"]
    twice = shard(tmp_path / "y.parquet", utt=["a", "a"], audio_data=[b"OggS", b"OggS"])
    assert reasons(read("cosyvoice2", twice, audio_folder=tmp_path / "two")) == {"duplicate id": 1}


def test_a_parquet_file_of_something_else_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"utt": ["a"], "text": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(CorpusError, match="no column wav, spk; expected utt, audio_data"):
        read("cosyvoice2", tmp_path / "x.parquet")


def test_clips_that_lost_their_audio_stop_the_writing(corpus: Utterances, tmp_path: Path) -> None:
    corpus.paths()[9].unlink()
    with pytest.raises(CorpusError, match=f"{corpus.paths()[9].name}: no such audio file"):
        write_cosyvoice2(corpus, tmp_path / "cv", shard_size=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
