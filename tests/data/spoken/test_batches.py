"""Clips as padded batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.tiny_spoken import make_encoder, make_lists, tone
from tts_kernel.audio.spectrogram import melotts_mel
from tts_kernel.data.features import FeatureError
from tts_kernel.data.sampler import PlannedBatch, Position
from tts_kernel.data.spoken import Spectrograms, SpokenBatch, SpokenDataset, SpokenStore, read_clips
from tts_kernel.text.bge_m3 import BGEM3
from tts_kernel.text.symbols import SYMBOLS


@pytest.fixture
def data(tmp_path: Path) -> SpokenDataset:
    store = SpokenStore(tmp_path / "store", BGEM3(make_encoder(tmp_path / "bge-m3")), SYMBOLS)
    clips = read_clips(make_lists(tmp_path / "data") / "train_list.txt", store, segment_frames=8, progress=False)
    return SpokenDataset(clips, store, {"S0": 0, "S1": 1}, Spectrograms(tmp_path / "spectrograms"), gigabytes=1.0)


def taken(data: SpokenDataset, *rows: int) -> SpokenBatch:
    return data[PlannedBatch(np.array(rows), Position())]


def test_a_row_is_the_clip_and_zeros(data: SpokenDataset) -> None:
    batch, alone = taken(data, 0, 2), taken(data, 0)
    frames, tokens = int(batch.frame_lengths[0]), int(batch.token_lengths[0])
    assert frames < batch.spectrograms.shape[2]
    assert torch.equal(batch.spectrograms[0, :, :frames], alone.spectrograms[0])
    assert torch.equal(batch.phones[0, :tokens], alone.phones[0])
    assert torch.equal(batch.features[0, :, :tokens], alone.features[0])
    assert not batch.spectrograms[0, :, frames:].any()
    assert not batch.waves[0, :, frames * 512 :].any()
    assert batch.speakers.tolist() == [0, 0]


def test_a_spectrogram_is_that_of_its_waveform(data: SpokenDataset) -> None:
    batch = taken(data, 1)
    torch.testing.assert_close(batch.spectrograms, melotts_mel().magnitudes(batch.waves[:, 0]))


def test_what_is_kept_is_not_decoded_again(data: SpokenDataset) -> None:
    first = taken(data, 0)
    for path in data.clips.paths:
        path.unlink()
    assert torch.equal(taken(data, 0).waves, first.waves)
    with pytest.raises(FeatureError, match=r"02\.wav.*when the run began"):
        taken(data, 2)


def test_without_room_nothing_is_kept(data: SpokenDataset) -> None:
    data.left = 0.0
    taken(data, 0)
    assert data.kept == {}


def test_a_recording_that_changed_since_it_was_measured_is_refused(data: SpokenDataset) -> None:
    soundfile.write(data.clips.paths[0], tone(0.5, 44_100), 44_100)
    with pytest.raises(FeatureError, match=r"00\.wav: 22,050 samples"):
        taken(data, 0)


def test_a_batch_can_be_split_for_a_report(data: SpokenDataset) -> None:
    parts = taken(data, 0, 1, 2).split(2)
    assert [part.ids for part in parts] == [["00", "01"], ["02"]]
    assert parts[1].facts() == [{"id": "02", "tokens": int(data.clips.tokens[2]), "frames": int(data.clips.frames[2])}]
