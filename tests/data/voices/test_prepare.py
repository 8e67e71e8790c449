from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.pipeline.written import WORDS, pipeline
from tests.data.voices.clips import make_clips
from tts_kernel.data.corpora import CorpusError, Utterances, read_folder
from tts_kernel.data.pipeline import PipelinePlan, check, count, read_lengths
from tts_kernel.data.pipeline.batches import PipelineDataset
from tts_kernel.data.sampler import Position
from tts_kernel.data.voices import prepare


class Tones:
    """Tokens of the right number, and an embedding that knows its clip's length."""

    def tokens(self, wav: np.ndarray, rate: int) -> np.ndarray:
        return np.arange(0 if len(wav) > 20 * rate else -(-len(wav) * 25 // rate))

    def embedding(self, wav: np.ndarray, rate: int) -> np.ndarray:
        return np.full(192, len(wav) / rate, np.float32)


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


def test_nothing_left_writes_nothing(tmp_path: Path) -> None:
    gone = Utterances.of(tmp_path, id=["a"], audio=["a.wav"], text=["x"], speaker=["kim"])
    with pytest.raises(CorpusError, match="nothing is left to write"):
        prepare(gone, tmp_path / "data", Tones())
    assert not (tmp_path / "data").exists()
