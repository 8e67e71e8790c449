from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.pipeline.written import WORDS, encoded, lengths_of, pipeline, row, rows, write_shards
from tts_kernel.data.pipeline import Encoder, PipelineError, PipelinePlan, read_lengths
from tts_kernel.data.pipeline.batches import PipelineDataset, VoiceBatch, at_24k
from tts_kernel.data.pipeline.processors import Padding, ParseEmbedding
from tts_kernel.data.sampler import PlannedBatch, Position
from tts_kernel.text.tokenizer import train_tokenizer


def dataset(folder: Path, *given: dict[str, Any], kind: type[Any] | None = None, **values: object) -> PipelineDataset:
    made = pipeline() if kind is None else pipeline().changed(kind, **values)
    return PipelineDataset(made, lengths_of(folder, list(given)), WORDS)


def batch_of(data: PipelineDataset) -> VoiceBatch:
    return data[PlannedBatch(np.arange(len(data.lengths)), Position(batch=3))]


def test_a_batch_is_padded_with_zeros_behind_each_row(tmp_path: Path) -> None:
    batch = batch_of(dataset(tmp_path, row("a", 2.0, words=5), row("b", 1.0, words=9)))
    assert batch.mel.shape == (2, 100, 80)
    assert batch.mel_lengths.tolist() == [100, 50]
    assert batch.speech_lengths.tolist() == [50, 25]
    assert batch.text_lengths.tolist() == [5, 9]
    assert not batch.mel[1, 50:].any()
    assert not batch.speech_tokens[1, 25:].any()
    assert not batch.text_tokens[0, 5:].any()
    assert batch.position == Position(batch=3)
    assert batch.facts()[1] == {"id": "b", "text_tokens": 9, "speech_tokens": 25}


def test_an_utterance_is_trimmed_to_two_frames_per_token_from_either_side(tmp_path: Path) -> None:
    whole, fewer, more = (
        dataset(tmp_path / name, row("a", 2.0, speech_token=tokens)).spoken(0)
        for name, tokens in (("whole", range(50)), ("fewer", range(47)), ("more", range(54)))
    )
    sizes = [(len(each.mel), len(each.speech_tokens)) for each in (whole, fewer, more)]
    assert sizes == [(100, 50), (94, 47), (100, 50)]
    assert np.array_equal(fewer.mel, whole.mel[:94])
    assert more.speech_tokens.tolist() == list(range(50))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_audio_that_is_not_finite_is_refused_by_name(tmp_path: Path, bad: float) -> None:
    wav = np.zeros(24_000, np.float32)
    wav[7] = bad
    data = dataset(tmp_path, row("broken", audio_data=encoded(wav, 24_000, "FLOAT")))
    with pytest.raises(PipelineError, match=r"broken: 1 of 24,000 samples are NaN or infinite; decode the clip again"):
        data.spoken(0)


def test_embeddings_have_unit_length_and_the_speakers_can_be_taken(tmp_path: Path) -> None:
    mine = row("a", utt_embedding=np.arange(192.0), spk_embedding=np.full(192, 3.0))
    one = batch_of(dataset(tmp_path, mine)).embedding[0]
    assert one.norm() == pytest.approx(1.0)
    assert one[191] > one[1] > 0
    by_speaker = batch_of(dataset(tmp_path, mine, kind=Padding, use_spk_embedding=True)).embedding[0]
    torch.testing.assert_close(by_speaker, torch.full((192,), 192**-0.5))
    raw = batch_of(dataset(tmp_path, mine, kind=ParseEmbedding, normalize=False)).embedding[0]
    torch.testing.assert_close(raw, torch.arange(192.0))


def test_channels_are_averaged_and_a_loud_signal_is_divided_by_its_peak(tmp_path: Path) -> None:
    tone = (0.4 * np.sin(np.arange(24_000) / 9)).astype(np.float32)
    stereo = np.stack([2 * tone, np.zeros_like(tone)], axis=1)
    files = {"mono": encoded(tone, 24_000, "FLOAT"), "two": encoded(stereo, 24_000, "FLOAT")}
    data = dataset(tmp_path, *(row(name, audio_data=file) for name, file in files.items()))
    np.testing.assert_allclose(data.spoken(0).mel, data.spoken(1).mel, atol=1e-5)
    assert np.abs(at_24k(5 * tone, 24_000)).max() == pytest.approx(1.0)
    assert np.array_equal(at_24k(tone, 24_000), tone)


def test_audio_that_differs_from_its_header_is_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path, row("a", 2.0))
    data.lengths = replace(data.lengths, samples=data.lengths.samples + 960)
    with pytest.raises(PipelineError, match=r"a: its audio has 48,000 samples .* the header says 48,960"):
        data.spoken(0)


def test_the_data_go_to_a_worker_process_of_any_start_method(tmp_path: Path) -> None:
    encoder = Encoder.of(train_tokenizer(["x xx xxx xxxx xxxxx"], tmp_path / "bpe.model", 8).path)
    data = PipelineDataset(pipeline(), read_lengths(write_shards(tmp_path, rows(2)), encoder), encoder)
    there = pickle.loads(pickle.dumps(data))
    torch.testing.assert_close(batch_of(there).mel, batch_of(data).mel)
    assert there.spoken(1).text_tokens.tolist() == data.spoken(1).text_tokens.tolist()


def test_parts_of_a_batch_are_the_batch(tmp_path: Path) -> None:
    data = dataset(tmp_path, *rows(5))
    (planned, *_) = PipelinePlan(data.pipeline, data.lengths).epoch(Position())
    whole = data[planned]
    parts = whole.split(2)
    assert [name for part in parts for name in part.ids] == whole.ids
    assert [part.mel.shape[1] for part in parts] == [int(part.mel_lengths.max()) for part in parts]
    for part in parts:
        assert part.speech_tokens.shape[1] == int(part.speech_lengths.max())
    on_device = whole.to(torch.device("cpu"))
    assert on_device.position == whole.position
