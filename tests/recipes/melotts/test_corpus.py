"""What a run reads, and what is kept of it for the next one."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from tests.tiny_spoken import Studio, tone
from tts_kernel.audio.spectrogram import LogMel
from tts_kernel.data.buckets import BucketPlan
from tts_kernel.data.corpora.table import CorpusError
from tts_kernel.data.features import FeatureError
from tts_kernel.data.sampler import BatchPlan, PlannedBatch, Position
from tts_kernel.recipes.melotts import corpus as opening
from tts_kernel.recipes.melotts.corpus import Corpus, open_corpus, padding_of, plan_of, training_plan


def opened(studio: Studio) -> Corpus:
    return open_corpus(studio.settings(config=""), None)


def test_a_second_run_computes_no_spectrogram(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = PlannedBatch(np.arange(8), Position())
    first = opened(studio)
    expected = first.data(first.train, 0.0)[everything]

    def refuse(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(LogMel, "magnitudes", refuse)
    again = opened(studio)
    data = again.data(again.train, 0.0)
    for _ in range(2):  # epochs, nothing of which stays in memory
        found = data[everything]
        assert torch.equal(found.spectrograms, expected.spectrograms)
        assert torch.equal(found.waves, expected.waves)


def test_a_recording_that_changes_between_two_runs_is_heard_anew(studio: Studio) -> None:
    first = opened(studio)
    path = first.train.paths[0]
    soundfile.write(path, tone(1.0, 44_100, hertz=700.0), 44_100)
    with pytest.raises(FeatureError, match="start again"):
        first.data(first.train, 1.0)[PlannedBatch(np.array([0]), Position())]
    again = opened(studio)
    batch = again.data(again.train, 1.0)[PlannedBatch(np.array([0]), Position())]
    loudest = int(batch.spectrograms[0].sum(dim=1).argmax())
    assert loudest == pytest.approx(700.0 / (44_100 / 2048), abs=1.0)


def test_what_the_references_buckets_would_discard_is_counted(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened(studio)
    assert "discard" not in str(found)
    shorter = {"32 frames or fewer": 2, "more than 1,000 frames": 3}
    monkeypatch.setattr(opening, "discards", lambda lengths: shorter)
    told = "would discard 5 clips to train on: 2 of 32 frames or fewer, 3 of more than 1,000 frames"
    assert told in str(found)


def test_a_plan_is_of_windows_or_of_buckets(studio: Studio) -> None:
    clips = opened(studio).train
    windows = training_plan(clips, 3, 5, "windows")
    assert isinstance(windows, BatchPlan)
    assert windows.seed == 5
    buckets = training_plan(clips, 3, 5, "buckets")
    assert isinstance(buckets, BucketPlan)
    assert buckets.updates_per_epoch() == 3
    assert padding_of(buckets) > 0.0
    assert padding_of(plan_of(clips, 1)) == 0.0


def test_buckets_that_hold_nothing_are_refused(studio: Studio) -> None:
    for path in (studio.data / "wavs").iterdir():
        soundfile.write(path, tone(0.3, 44_100), 44_100)
    for name in ("train_list.txt", "val_list.txt"):
        lines = [f"wavs/{number:02d}.wav|네.|S{number % 2}|KR\n" for number in range(8)]
        (studio.data / name).write_text("".join(lines), encoding="utf-8")
    clips = opened(studio).train
    with pytest.raises(CorpusError, match=r"train_list\.txt: no bucket holds any of 8 clips"):
        training_plan(clips, 3, 5, "buckets")
    assert len(list(training_plan(clips, 3, 5, "windows").epoch(Position()))) == 3
