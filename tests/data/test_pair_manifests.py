from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import read_rows
from tts_kernel.data.batch import Limits, PairDataset
from tts_kernel.data.corpora import Utterances
from tts_kernel.data.manifest import ManifestError, read_manifest
from tts_kernel.data.pair_manifests import TRAIN, VALIDATION, main, write_pairs
from tts_kernel.data.pairs import PairError, PairLimits
from tts_kernel.data.sampler import PlannedBatch, Position
from tts_kernel.data.split import leaks

NAMES = [f"KO_B00000_S{n % 4:05d}_R{n // 10}_W{n:06d}" for n in range(80)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Text and codes of all clips but the first three, and everything else that a batch reads."""
    random = np.random.default_rng(0)
    for kind in ("text_ids", "codes", "condition", "emo_vec"):
        (tmp_path / kind).mkdir()
    for number, name in enumerate(NAMES):
        np.save(tmp_path / "text_ids" / f"{name}.npy", random.integers(2, 50, 5 + number % 7))
        np.save(tmp_path / "condition" / f"{name}.npy", random.standard_normal((4, 64), dtype=np.float32))
        np.save(tmp_path / "emo_vec" / f"{name}.npy", random.standard_normal(64, dtype=np.float32))
        if number >= 3:
            np.save(tmp_path / "codes" / f"{name}.npy", random.integers(0, 30, 12 + number % 9))
    return tmp_path


@pytest.fixture
def utterances(data: Path) -> Utterances:
    speakers = [f"S{n % 4}" for n in range(80)]
    audio = [f"KO-B00000/{name}.mp3" for name in NAMES]
    return Utterances.of(data, id=NAMES, audio=audio, text=[f"말 {n}" for n in range(80)], speaker=speakers)


@pytest.mark.parametrize("by", ["clip", "recording", "speaker"])
def test_both_manifests_can_be_trained_on_and_share_nothing(data: Path, utterances: Utterances, by: str) -> None:
    written = write_pairs(data, utterances, PairLimits(min_codes=12), 0.2, by, latents=4)  # type: ignore[arg-type]
    train, validation = (read_manifest(data / name) for name in (TRAIN, VALIDATION))
    assert leaks(train, validation, by) == {}  # type: ignore[arg-type]
    assert (len(train), len(validation)) == (len(written.train), len(written.validation))
    assert written.without_features == 3
    limits = Limits(50, 30, 20, 40, latents=(4, 64), semantic_bins=20, emotion_bins=80)
    for manifest in (train, validation):
        rows = np.arange(len(manifest))
        dataset = PairDataset(manifest, limits, np.zeros(len(rows), np.int32), "stored", "stored")
        batch = dataset[PlannedBatch(rows, Position())]
        assert batch.text_lengths.tolist() == manifest.numbers("target_text_len").tolist()
        assert batch.code_lengths.tolist() == manifest.numbers("target_code_len").tolist()
    for row in read_rows(data / TRAIN):
        assert row["id"] == f"{row['target_id']}__{row['prompt_id']}"
        number, prompt = NAMES.index(row["target_id"]), NAMES.index(row["prompt_id"])
        assert number != prompt
        assert number % 4 == prompt % 4
        assert row["speaker"] == f"S{number % 4}"
        assert row["text"] == f"말 {number}"
        assert row["target_audio_path"] == f"KO-B00000/{row['target_id']}.mp3"
        assert row["prompt_audio_path"] == f"KO-B00000/{row['prompt_id']}.mp3"
        assert row["prompt_condition_len"] == 4


def test_what_was_written_opens_without_an_import(
    data: Path, utterances: Utterances, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(data, utterances, PairLimits(), 0.2)
    monkeypatch.setattr("tts_kernel.data.manifest.manifest.import_lines", lambda *a: pytest.fail("it was parsed"))
    assert len(read_manifest(data / TRAIN)) > 80


def test_audio_beside_the_data_folder_is_named_from_it(data: Path, utterances: Utterances) -> None:
    elsewhere = Utterances(utterances.table, data / "audio" / "emilia")
    write_pairs(data, elsewhere, PairLimits(), 0.2)
    assert read_rows(data / TRAIN)[0]["target_audio_path"].startswith("audio/emilia/KO-B00000/")


def test_the_account_shows_the_share_held_out_and_audio_that_lies_outside(
    data: Path, utterances: Utterances, tmp_path: Path
) -> None:
    below = write_pairs(data, utterances, PairLimits(), 0.2, "speaker")
    assert (below.held_out, below.clips, below.outside) == (19, 77, False)  # one of four speakers
    assert "of 19 held-out clips (24.7%)" in str(below)
    assert "outside" not in str(below)
    for kind in ("text_ids", "codes"):
        (data / "other" / kind).parent.mkdir(exist_ok=True)
        (data / kind).rename(data / "other" / kind)
    beside = write_pairs(data / "other", utterances, PairLimits(), 0.2, "speaker")
    assert beside.outside
    assert read_rows(data / "other" / TRAIN)[0]["target_audio_path"].startswith("../KO-B00000/")
    assert "extract with --allow-outside-paths, set allow_outside_paths" in str(beside)


def test_manifests_that_are_there_are_not_overwritten(data: Path, utterances: Utterances) -> None:
    (data / VALIDATION).write_text("{}")
    with pytest.raises(ManifestError, match=r"gpt_pairs_val\.jsonl: exists; move it away first"):
        write_pairs(data, utterances, PairLimits(), 0.2)
    assert not (data / TRAIN).exists()


def test_clips_whose_recording_nothing_tells_cannot_be_held_out_by_it(data: Path, utterances: Utterances) -> None:
    for kind in ("text_ids", "codes"):
        (data / kind / f"{NAMES[9]}.npy").rename(data / kind / "odd.npy")
    ids = [name if name != NAMES[9] else "odd" for name in NAMES]
    odd = utterances.with_column("id", ids)
    with pytest.raises(ManifestError, match="clip 'odd' does not tell its recording"):
        write_pairs(data, odd, PairLimits(), 0.2, "recording")
    named = odd.with_column("recording", ["tape" if name == "odd" else None for name in ids])
    write_pairs(data, named, PairLimits(), 0.2, "recording")


def test_clips_that_are_parts_of_recordings_must_be_cut_first(data: Path, utterances: Utterances) -> None:
    segments = utterances.with_column("start", [None, 1.5, *[None] * 78])
    with pytest.raises(PairError, match=f"clip {NAMES[1]!r} is a part of a longer recording"):
        write_pairs(data, segments, PairLimits(), 0.2)


def test_a_corpus_without_features_makes_no_pairs(data: Path, utterances: Utterances) -> None:
    for path in (data / "codes").glob("*.npy"):
        path.unlink()
    with pytest.raises((PairError, ManifestError), match="0 "):
        write_pairs(data, utterances, PairLimits(), 0.2, "clip")
    assert not (data / TRAIN).exists()


def test_the_command_line_reads_a_corpus_and_says_what_became_of_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = data / "audio"
    for number, name in enumerate(NAMES):
        folder = source / f"S{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text("말")
        (folder / f"{name}.wav").write_bytes(b"RIFF")
    shown = ["--hold-out", "0.2", "--by", "speaker", "--pairs-per-target", "1"]
    assert main([str(data), "folder", str(source), *shown]) == 0
    out = capsys.readouterr().out
    assert "80 read, 80 kept" in out
    assert "3 clips left out: no text_ids or no codes" in out
    row = json.loads((data / TRAIN).read_text().splitlines()[0])
    assert (data / row["target_audio_path"]).is_file()
    assert main([str(data), "folder", str(source)]) == 1
    assert "exists; move it away first" in capsys.readouterr().err
