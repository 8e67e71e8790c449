from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.pipeline.written import WORDS, pipeline
from tests.data.voices.clips import make_clips
from tts_kernel.data.corpora import CorpusError, Utterances, cosyvoice2, read_folder
from tts_kernel.data.pipeline import PipelinePlan, check, count, read_lengths
from tts_kernel.data.pipeline.batches import PipelineDataset
from tts_kernel.data.sampler import Position
from tts_kernel.data.voices import extracted, prepare


class Tones:
    """Tokens of the right number, and an embedding that knows its clip's length."""

    def tokens(self, wav: np.ndarray, rate: int) -> np.ndarray:
        return np.arange(0 if len(wav) > 20 * rate else -(-len(wav) * 25 // rate))

    def embedding(self, wav: np.ndarray, rate: int) -> np.ndarray:
        return np.full(192, len(wav) / rate, np.float32)


SAMPLE = 1  # call, by which an extractor is told from another


class Counting(Tones):
    calls = 0

    def tokens(self, wav: np.ndarray, rate: int) -> np.ndarray:
        self.calls += 1
        return super().tokens(wav, rate)


class Deadly(Counting):
    """Ends its process in the `clip`-th clip, after which nothing is caught or cleaned up; those before it are kept."""

    def __init__(self, folder: Path, clip: int) -> None:
        self.folder, self.clip = folder, clip

    def tokens(self, wav: np.ndarray, rate: int) -> np.ndarray:
        found = super().tokens(wav, rate)
        if self.calls == self.clip + SAMPLE:
            while len(list(self.folder.glob(".data.extracted/part_*.parquet"))) < 2:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return found


def killed(run: Callable[[], object]) -> None:
    """Run it in a process of its own, which must be killed."""
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def contents(folder: Path) -> dict[str, bytes]:
    shards = {path.name: path.read_bytes() for path in folder.glob("parquet_*.tar")}
    assert shards
    return shards


def test_what_was_prepared_is_what_the_pipeline_reads(tmp_path: Path) -> None:
    clips = read_folder(make_clips(tmp_path / "clips")).utterances
    account = prepare(clips, tmp_path / "data", Tones(), shard_size=4)
    assert (account.read, account.kept) == (6, 6)
    lengths = read_lengths(tmp_path / "data", WORDS)
    counted = count(pipeline(), lengths)
    check(counted)
    assert counted.accounts.kept == 6
    assert lengths.speaker_names == ("kim", "lee")
    assert not lengths.trimmed.any()
    data = PipelineDataset(pipeline(), lengths, WORDS)
    plan = PipelinePlan(pipeline(), lengths)
    assert sum(len(data[planned].ids) for planned in plan.epoch(Position())) == 6


def test_a_speakers_embedding_is_the_mean_of_the_utterances(tmp_path: Path) -> None:
    prepare(read_folder(make_clips(tmp_path / "clips")).utterances, tmp_path / "data", Tones())
    lengths = read_lengths(tmp_path / "data", WORDS)
    reader = PipelineDataset(pipeline(), lengths, WORDS).reader
    rows = [reader.row(0, place) for place in range(6)]
    for speaker in ("kim", "lee"):
        own = np.stack([row["utt_embedding"] for row in rows if row["spk"] == speaker])
        assert len(own) == 3
        assert np.ptp(own[:, 0]) > 0
        for row in rows:
            if row["spk"] == speaker:
                np.testing.assert_allclose(row["spk_embedding"], own.mean(axis=0), rtol=1e-6)


def test_every_clip_that_cannot_be_used_is_counted_with_its_reason(tmp_path: Path) -> None:
    folder = make_clips(tmp_path / "clips")
    odd = {"nan": (np.full(24_000, np.nan), 24_000), "phone": (np.zeros(8_000), 8_000)}
    odd["long"] = (np.zeros(21 * 16_000), 16_000)
    for name, (wav, rate) in odd.items():
        soundfile.write(folder / "kim" / f"{name}.wav", wav, rate, subtype="FLOAT")
        (folder / "kim" / f"{name}.txt").write_text(name, encoding="utf-8")
    soundfile.write(folder / "lonely.wav", np.zeros(24_000), 24_000)
    (folder / "lonely.txt").write_text("lonely", encoding="utf-8")
    account = prepare(read_folder(folder).utterances, tmp_path / "data", Tones())
    assert account.read == account.kept + account.dropped == 10
    reasons = {reason: drop.count for reason, drop in account.drops.items()}
    assert reasons == dict.fromkeys(("unreadable audio", "sample rate too low", "no speech tokens", "no speaker"), 1)
    said = str(account)
    assert "nan.wav: holds NaN" in said
    assert "phone: 8,000 Hz, expected 16,000 at least" in said


def test_what_a_killed_run_extracted_is_kept_and_a_second_one_writes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extracted, "PART", 2)
    clips = read_folder(make_clips(tmp_path / "clips")).utterances
    prepare(clips, tmp_path / "whole", Tones(), shard_size=4)
    killed(lambda: prepare(clips, tmp_path / "data", Deadly(tmp_path, clip=5), shard_size=4, workers=1))
    assert hidden(tmp_path) == [".data.extracted"]
    assert not (tmp_path / "data").exists()
    again = Counting()
    account = prepare(clips, tmp_path / "data", again, shard_size=4)
    assert (account.read, account.kept) == (6, 6)
    assert again.calls == 2 + SAMPLE
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")
    assert hidden(tmp_path) == []


def test_shards_that_a_killed_run_half_wrote_are_no_corpus_and_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = read_folder(make_clips(tmp_path / "clips")).utterances
    prepare(clips, tmp_path / "whole", Tones(), shard_size=4)

    def die_after_one(part: Utterances, path: Path) -> None:
        write_shard(part, path)
        os.kill(os.getpid(), signal.SIGKILL)

    write_shard = cosyvoice2._write_shard
    monkeypatch.setattr(cosyvoice2, "_write_shard", die_after_one)
    killed(lambda: prepare(clips, tmp_path / "data", Tones(), shard_size=4))
    monkeypatch.setattr(cosyvoice2, "_write_shard", write_shard)
    assert len(list(tmp_path.glob(".data.*.partial/parquet_*"))) == 1
    assert not (tmp_path / "data").exists()
    again = Counting()
    prepare(clips, tmp_path / "data", again, shard_size=4)
    assert again.calls == SAMPLE
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")
    assert hidden(tmp_path) == []


def test_what_cannot_be_written_is_refused_before_anything_is_extracted(tmp_path: Path) -> None:
    clips = read_folder(make_clips(tmp_path / "clips")).utterances
    counting = Counting()
    with pytest.raises(CorpusError, match="shard_size 0 and workers 2: expected at least 1"):
        prepare(clips, tmp_path / "data", counting, shard_size=0)
    with pytest.raises(CorpusError, match="parts of longer files"):
        prepare(clips.with_column("start", [0.5] * len(clips)), tmp_path / "data", counting)
    with pytest.raises(CorpusError, match="is not an empty folder"):
        prepare(clips, tmp_path / "clips", counting)
    assert counting.calls == 0


def test_a_speaker_can_be_named_afterwards_without_extracting_again(tmp_path: Path) -> None:
    clips = read_folder(make_clips(tmp_path / "clips")).utterances
    unnamed = clips.with_column("speaker", [""] * len(clips))
    with pytest.raises(CorpusError, match="6 no speaker"):
        prepare(unnamed, tmp_path / "data", Tones())
    again = Counting()
    assert prepare(clips, tmp_path / "data", again).kept == 6
    assert again.calls == SAMPLE


def test_nothing_left_writes_nothing(tmp_path: Path) -> None:
    gone = Utterances.of(tmp_path, id=["a"], audio=["a.wav"], text=["x"], speaker=["kim"])
    with pytest.raises(CorpusError, match="nothing is left to write"):
        prepare(gone, tmp_path / "data", Tones())
    assert not (tmp_path / "data").exists()
