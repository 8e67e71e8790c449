from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.audited import add_audio, change_rows, rows_of
from tests.tiny import read_rows
from tts_kernel.data.audit import files
from tts_kernel.data.audit.files import listen_to_all, named_files, open_all
from tts_kernel.data.audit.sample import choose


@pytest.fixture
def sounding(tiny_corpus: Path) -> Path:
    add_audio(tiny_corpus)
    return tiny_corpus


def test_every_file_is_named_once_by_its_own_clip_first(sounding: Path) -> None:
    rows = rows_of(sounding)
    table = named_files(rows, np.arange(len(rows)), audio=True)
    paths = table.column("path").to_pylist()
    assert len(paths) == len(set(paths)) == 18
    assert set(table.column("column").to_pylist()) == {"target_audio_path"}  # every prompt is a target, too
    features = named_files(rows, np.arange(len(rows)), audio=False)
    assert features.num_rows == 6 * 18
    assert not set(features.column("path").to_pylist()) & set(paths)


def test_a_file_of_two_lengths_is_named_for_each(tiny_corpus: Path) -> None:
    row = read_rows(tiny_corpus / "gpt_pairs_train.jsonl")[0]
    change_rows(tiny_corpus, lambda rows: rows[0].update(target_mel_len=row["target_mel_len"] + 1))
    rows = rows_of(tiny_corpus)
    table = named_files(rows, np.arange(len(rows)), audio=False)
    lengths = [item["length"] for item in table.to_pylist() if item["path"] == row["target_mel_path"]]
    assert sorted(lengths) == [row["target_mel_len"], row["target_mel_len"] + 1]


def test_only_files_of_the_chosen_rows_are_named(sounding: Path) -> None:
    rows = rows_of(sounding)
    table = named_files(rows, np.array([3]), audio=True)
    row = read_rows(sounding / "gpt_pairs_train.jsonl")[3]
    assert table.column("path").to_pylist() == [row["target_audio_path"], row["prompt_audio_path"]]
    assert named_files(rows, np.array([], dtype=np.int64), audio=True).num_rows == 0


def test_workers_find_what_one_process_finds(sounding: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FEW", 0)
    monkeypatch.setattr(files, "CHUNK", 4)
    rows = rows_of(sounding)
    (sounding / "audio" / "sp0_1.wav").write_bytes(b"RIFF")
    sounds = named_files(rows, np.arange(len(rows)), audio=True)
    alone, together = (listen_to_all(sounding, sounds, workers, outside=False) for workers in (1, 2))
    assert str(alone.to_pylist()) == str(together.to_pylist())  # NaN is not equal to itself
    assert alone.column("status").to_pylist().count("unreadable") == 1
    arrays = named_files(rows, np.arange(len(rows)), audio=False)
    alone, together = (open_all(sounding, arrays, workers, outside=False) for workers in (1, 2))
    assert alone.equals(together)
    assert set(alone.column("status").to_pylist()) == {"ok"}


def test_a_file_that_vanishes_between_naming_and_opening_is_missing(sounding: Path) -> None:
    rows = rows_of(sounding)
    sounds = named_files(rows, np.arange(len(rows)), audio=True)
    arrays = named_files(rows, np.arange(len(rows)), audio=False)
    (sounding / "audio" / "sp0_1.wav").unlink()
    (sounding / "mel" / "sp0_1.npy").unlink()
    for table in (listen_to_all(sounding, sounds, 1, outside=False), open_all(sounding, arrays, 1, outside=False)):
        assert [item["path"].split("/")[0] for item in table.to_pylist() if item["status"] == "missing"] in (
            ["audio"],
            ["mel"],
        )


def test_files_outside_the_folder_are_opened_only_where_that_is_meant(sounding: Path) -> None:
    (sounding / "audio" / "sp0_1.wav").rename(sounding.parent / "moved.wav")
    change_rows(sounding, lambda rows: [row.update(target_audio_path="../moved.wav") for row in rows[:1]])
    rows = rows_of(sounding)
    table = named_files(rows, np.array([0]), audio=True).slice(0, 1)
    assert listen_to_all(sounding, table, 1, outside=False).column("status").to_pylist() == ["outside"]
    assert listen_to_all(sounding, table, 1, outside=True).column("status").to_pylist() == ["ok"]


def test_a_sample_is_drawn_by_its_seed_with_all_rows_of_its_clips(tiny_corpus: Path) -> None:
    rows = rows_of(tiny_corpus)
    clips, chosen = choose(rows, 5, seed=3)
    assert len(set(clips.tolist())) == 5
    assert chosen.tolist() == [row for row in range(len(rows)) if rows.clip[row] in clips]
    np.testing.assert_array_equal(choose(rows, 5, seed=3)[0], clips)
    assert any(choose(rows, 5, seed=seed)[0].tolist() != clips.tolist() for seed in range(4, 8))


@pytest.mark.parametrize("number", [0, 18, 99])
def test_zero_and_more_than_there_are_mean_all_clips(tiny_corpus: Path, number: int) -> None:
    rows = rows_of(tiny_corpus)
    clips, chosen = choose(rows, number, seed=0)
    assert (clips.tolist(), chosen.tolist()) == (list(range(18)), list(range(30)))
