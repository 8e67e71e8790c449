from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.audited import change_rows, rows_of
from tts_kernel.data.audit.rows import Rows


@pytest.fixture
def rows(tiny_corpus: Path) -> Rows:
    return rows_of(tiny_corpus)


def test_clips_are_numbered_by_first_appearance_over_both_splits(rows: Rows) -> None:
    targets = rows.values("target_id").to_pylist()
    assert rows.clips.to_pylist() == list(dict.fromkeys(targets))
    assert [rows.clips[number].as_py() for number in rows.clip] == targets
    assert [targets[row] for row in rows.first] == rows.clips.to_pylist()
    assert (np.diff(rows.first) > 0).all()
    prompts = rows.values("prompt_id").to_pylist()
    assert [rows.clips[number].as_py() for number in rows.prompt] == prompts


def test_a_prompt_that_is_no_target_has_no_number(tiny_corpus: Path) -> None:
    change_rows(tiny_corpus, lambda rows: rows[3].update(prompt_id="nobody"))
    assert np.flatnonzero(rows_of(tiny_corpus).prompt < 0).tolist() == [3]


def test_values_of_some_rows_are_those_of_all_rows(rows: Rows) -> None:
    some = np.array([0, 5, 23, 24, 29])  # the last two are of the second split
    for column in ("id", "speaker", "target_mel_path", "target_mel_len"):
        assert rows.values(column, some).to_pylist() == rows.values(column).take(pa.array(some)).to_pylist()
    assert [name.split(":")[0] for name in rows.places(some)] == ["gpt_pairs_train.jsonl"] * 3 + [
        "gpt_pairs_val.jsonl"
    ] * 2
    assert rows.places(some)[3] == "gpt_pairs_val.jsonl:1"
    assert rows.split_of(some).tolist() == [0, 0, 0, 1, 1]


def test_a_column_of_one_split_is_null_in_the_other(tiny_corpus: Path) -> None:
    change_rows(tiny_corpus, lambda rows: [row.update(text="a", weight=0.5) for row in rows], "gpt_pairs_val.jsonl")
    rows = rows_of(tiny_corpus)
    assert rows.values("text").to_pylist() == [None] * 24 + ["a"] * 6
    assert rows.has("text").sum() == 6
    assert rows.categories("text")[1].tolist() == [-1] * 24 + [0] * 6
    assert rows.values("weight").type == pa.float64()


def test_a_field_of_two_types_is_read_as_text(tiny_corpus: Path) -> None:
    change_rows(tiny_corpus, lambda rows: [row.update(take=1) for row in rows])
    change_rows(tiny_corpus, lambda rows: [row.update(take="b") for row in rows], "gpt_pairs_val.jsonl")
    assert rows_of(tiny_corpus).values("take").to_pylist() == ["1"] * 24 + ["b"] * 6
