from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.data.pipeline.written import SCHEMA, WORDS, encoded, row, rows, write_shards
from tts_kernel.data.pipeline import Encoder, PipelineError, read_lengths
from tts_kernel.data.pipeline.lengths import UNREADABLE


def test_lengths_are_those_of_the_rows(tmp_path: Path) -> None:
    stereo = np.zeros((36_000, 2))
    stereo[:, 0] = 0.2
    second = row("b", audio_data=encoded(stereo, 24_000), speech_token=[1, 2], spk="kim")
    given = [row("a", 2.0, 44_100, words=3), second]
    found = read_lengths(write_shards(tmp_path, given, [row("c", words=0)]), WORDS)
    assert found.utterances.tolist() == ["a", "b", "c"]
    assert found.samples.tolist() == [88_200, 36_000, 48_000]
    assert found.rates.tolist() == [44_100, 24_000, 24_000]
    assert found.text_tokens.tolist() == [3, 8, 0]
    assert found.speech_tokens.tolist() == [50, 2, 50]
    assert [found.speaker_names[number] for number in found.speakers] == ["somebody", "kim", "somebody"]
    assert (found.shards.tolist(), found.rows.tolist()) == ([0, 0, 1], [0, 1, 0])
    assert found.reject_tokens.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("name", ["speech_token", "text", "spk", "utt_embedding", "spk_embedding"])
def test_a_missing_value_is_an_error_and_no_empty_one(tmp_path: Path, name: str) -> None:
    empty: dict[str, Any] = {name: None}
    with pytest.raises(PipelineError, match=rf"1 rows with no {name}, such as b$"):
        read_lengths(write_shards(tmp_path, [row("a"), row("b", **empty)]), WORDS)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("utt_embedding", np.ones(512), "utt_embedding of 512 values, expected 192"),
        ("spk_embedding", [], "spk_embedding of 0 values, expected 192"),
        ("utt_embedding", np.full(192, np.nan), "NaN or infinite values in utt_embedding"),
        ("spk_embedding", [None] + [1.0] * 191, "NaN or infinite values in spk_embedding"),
        ("speech_token", [4, -1, 7], "negative or missing values in speech_token"),
        ("speech_token", [4, None, 7], "negative or missing values in speech_token"),
    ],
)
def test_a_value_that_training_would_fail_on_is_refused_before_it(
    tmp_path: Path, name: str, value: Any, reason: str
) -> None:
    with pytest.raises(PipelineError, match=rf"1 rows with {reason}, such as somewhat$"):
        read_lengths(write_shards(tmp_path, [row("good"), row("somewhat", **{name: value})]), WORDS)


def test_every_reason_of_every_shard_is_in_one_error_with_all_its_rows(tmp_path: Path) -> None:
    long = [row(f"r{at}", 0.1, text=None if at in (3, 80, 129) else "x") for at in range(130)]
    other = [row("a", utt_embedding=np.ones(256)), row("b", speech_token=None), row("c", utt_embedding=np.ones(256))]
    with pytest.raises(PipelineError) as caught:
        read_lengths(write_shards(tmp_path, long, rows(2), other), WORDS)
    said = str(caught.value)
    assert "parquet_000000000.tar: rows that cannot be used" in said
    assert "3 rows with no text, such as r3, r80, r129" in said
    assert "parquet_000000001.tar" not in said
    assert "2 rows with utt_embedding of 256 values, expected 192, such as a, c" in said
    assert "1 rows with no speech_token, such as b" in said


def test_columns_of_all_shards_are_looked_at_before_rows_of_any(tmp_path: Path) -> None:
    lacking = SCHEMA.remove(SCHEMA.get_field_index("speech_token"))
    for number in range(22):
        write_shards(tmp_path / f"{number}", rows(1), schema=lacking)
    text = "".join(f"{number}/parquet_000000000.tar\n" for number in range(22))
    (tmp_path / "data.list").write_text(text, encoding="utf-8")
    never = Encoder(lambda text: pytest.fail("a row was read"), "words", "words")
    with pytest.raises(PipelineError) as caught:
        read_lengths(tmp_path / "data.list", never)
    assert str(caught.value).count("no column speech_token") == 20
    assert "and 2 more of 22 shards" in str(caught.value)


def test_audio_that_cannot_be_read_is_marked(tmp_path: Path) -> None:
    given = [row("a", audio_data=b""), row("b", audio_data=None), row("c", audio_data=b"RIFF and nothing"), row("d")]
    assert read_lengths(write_shards(tmp_path, given), WORDS).samples.tolist() == [UNREADABLE] * 3 + [48_000]


def test_lengths_are_kept_until_shards_or_tokenizer_change(tmp_path: Path) -> None:
    asked: list[str] = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return [1] * len(text)

    path = write_shards(tmp_path, rows(3))
    first = read_lengths(path, Encoder(encode, "letters", "letters"))
    again = read_lengths(path, Encoder(encode, "letters", "letters"))
    assert len(asked) == 3
    assert first.speaker_names == again.speaker_names
    for name, value in vars(first).items():
        assert np.array_equal(value, getattr(again, name)), name
    assert read_lengths(path, WORDS).text_tokens.tolist() == [8, 8, 8]
    write_shards(tmp_path, rows(4))
    assert len(read_lengths(path, WORDS)) == 4


def test_lengths_are_kept_elsewhere_where_the_folder_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_shards(tmp_path / "data", rows(2))
    monkeypatch.setenv("TTS_KERNEL_CACHE", str(tmp_path / "cache"))
    real = os.replace

    def refusing(source: Any, target: Any) -> None:
        if Path(target).parent == path.parent:
            raise PermissionError(13, "read-only", str(target))
        real(source, target)

    monkeypatch.setattr("tts_kernel.data.pipeline.shard_lengths.os.replace", refusing)
    read_lengths(path, WORDS)
    assert len(list((tmp_path / "cache" / "lengths").iterdir())) == 1
    assert not list((tmp_path / "data").glob(".*"))
    never = Encoder(lambda text: pytest.fail("read again"), "words", "words")
    assert len(read_lengths(path, never)) == 2


def test_rejected_tokens_are_counted(tmp_path: Path) -> None:
    schema = SCHEMA.append(pa.field("reject_speech_token", pa.list_(pa.int64())))
    given = [row("a", reject_speech_token=[1, 2]), row("b", reject_speech_token=[])]
    assert read_lengths(write_shards(tmp_path, given, schema=schema), WORDS).reject_tokens.tolist() == [2, 0]
