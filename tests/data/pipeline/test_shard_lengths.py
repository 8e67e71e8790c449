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


@pytest.mark.parametrize("name", ["speech_token", "text"])
def test_a_missing_value_is_an_error_and_no_empty_one(tmp_path: Path, name: str) -> None:
    empty: dict[str, Any] = {name: None}
    with pytest.raises(PipelineError, match=rf"1 rows have no {name}, such as b; .*compute the column again"):
        read_lengths(write_shards(tmp_path, [row("a"), row("b", **empty)]), WORDS)


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
