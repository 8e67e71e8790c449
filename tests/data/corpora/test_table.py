from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.data.corpora.clips import small_corpus, write_wav
from tts_kernel.data.corpora import CorpusError, Utterances
from tts_kernel.data.corpora.table import COLUMNS, first_of_each


def test_what_is_not_given_is_unknown(tmp_path: Path) -> None:
    corpus = Utterances.of(tmp_path, id=["a"], audio=["a.wav"], text=["x"])
    assert {name: corpus.table.schema.field(name).type for name in corpus.table.column_names} == COLUMNS
    unknown = {"speaker": "", "language": "", "duration": None, "sample_rate": None, "recording": None}
    assert corpus.table.to_pylist() == [{"id": "a", "audio": "a.wav", "text": "x"} | unknown]
    assert corpus.hours == 0.0


def test_ids_that_repeat_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"2 ids occur before, such as \['a', 'b'\]"):
        Utterances.of(tmp_path, id=["a", "b", "a", "b"], audio=["x"] * 4, text=["x"] * 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop_columns(["duration"]), "'duration' is None, expected double"),
        (lambda table: table.set_column(2, "text", pa.array(["x"])), "'text' is string, expected large_string"),
        (lambda table: table.set_column(0, "id", pa.array([None], pa.large_string())), "'id' has nulls"),
    ],
)
def test_a_table_that_is_not_the_common_one_is_refused(tmp_path: Path, change: object, said: str) -> None:
    table = Utterances.of(tmp_path, id=["a"], audio=["a.wav"], text=["x"]).table
    with pytest.raises(CorpusError, match=said):
        Utterances(change(table), tmp_path)  # type: ignore[operator]


def test_hours_and_speakers_count_what_is_known(tmp_path: Path) -> None:
    corpus = Utterances.of(
        tmp_path,
        id=list("abcd"),
        audio=list("abcd"),
        text=list("abcd"),
        speaker=["z", "b", "z", "a"],
        language=["ko", "ko", "ko", ""],
        duration=[3600.0, None, 1800.0, None],
    )
    assert corpus.hours == 1.5
    assert corpus.speakers().to_pydict() == {
        "speaker": ["z", "a", "b"],
        "clips": [2, 1, 1],
        "seconds": [5400.0, 0.0, 0.0],
    }
    assert corpus.languages().to_pydict() == {"language": ["ko", ""], "clips": [3, 1], "seconds": [5400.0, 0.0]}


def test_rows_are_chosen_by_position_and_by_mask(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path)
    names = corpus.strings("id").to_pylist()
    assert corpus.take(np.array([3, 0])).strings("id").to_pylist() == [names[3], names[0]]
    keep = corpus.strings("speaker").to_numpy() == "스피커_1"
    assert corpus.where(keep).strings("id").to_pylist() == names[1::3]


def test_a_column_of_its_own_rides_along(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path)
    scored = corpus.with_column("dnsmos", np.arange(len(corpus), dtype=float))
    assert scored.take(np.array([4])).strings("dnsmos").to_pylist() == [4.0]
    assert scored.with_column("dnsmos", [0.0] * len(corpus)).table.num_columns == scored.table.num_columns
    with pytest.raises(CorpusError, match="1 values for 15"):
        corpus.with_column("dnsmos", [1.0])


def test_durations_come_from_headers_and_only_where_unknown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, rate in (("a", 8000), ("b", 96000), ("c", 16000)):
        write_wav(tmp_path / f"{name}.wav", 4800, rate, "PCM_24")
    (tmp_path / "d.wav").write_bytes(b"")
    corpus = Utterances.of(
        tmp_path,
        id=list("abcd"),
        audio=[f"{name}.wav" for name in "abcd"],
        text=list("abcd"),
        duration=[None, None, 7.0, None],
    )
    with caplog.at_level(logging.WARNING):
        probed = corpus.with_durations(workers=2)
    assert probed.strings("duration").to_pylist() == [0.6, 0.05, 7.0, None]
    assert probed.strings("sample_rate").to_pylist() == [8000, 96000, 16000, None]
    assert "1 of 4 audio files are unreadable, such as d.wav: zero bytes" in caplog.text


@pytest.mark.parametrize("seed", range(5))
def test_first_occurrences_are_found_in_any_chunks(seed: int) -> None:
    chance = np.random.default_rng(seed)
    names = [str(number) for number in chance.integers(0, 30, 60)]
    cut = int(chance.integers(0, 61))
    column = pa.chunked_array([names[:cut], names[cut:]], pa.large_string())
    assert first_of_each(column).tolist() == [name not in names[:place] for place, name in enumerate(names)]
