from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import CorpusMaker
from tests.tiny import read_rows, write_rows
from tts_kernel.data.batch import MIN_FRAMES, FeatureError, Limits, PairDataset, labels, missing_features
from tts_kernel.data.features import ShardWriter
from tts_kernel.data.manifest import read_manifest
from tts_kernel.data.sampler import PlannedBatch, Position

LIMITS = Limits(
    num_text_tokens=50,
    num_codes=30,
    max_text_tokens=20,
    max_codes=40,
    latents=(4, 64),
    semantic_bins=20,
    emotion_bins=80,
)
AFTER = Position(1, 2, 3, 4)


class Pairs:
    """A tiny corpus, what its files hold, and the dataset over it."""

    def __init__(self, data: Path) -> None:
        self.path = data / "gpt_pairs_train_mel.jsonl"
        self.rows = read_rows(self.path)

    def dataset(self, emotion: Any = "mel", speaker: Any = "stored", limits: Limits = LIMITS) -> PairDataset:
        manifest = read_manifest(self.path)
        return PairDataset(manifest, limits, np.arange(len(manifest), dtype=np.int64), emotion, speaker)

    def file(self, column: str, row: int = 0) -> Path:
        return self.path.parent / self.rows[row][column]

    def refusal(self, *rows: int, emotion: str = "mel", speaker: str = "stored", limits: Limits = LIMITS) -> str:
        with pytest.raises(FeatureError) as caught:
            self.dataset(emotion, speaker, limits)[PlannedBatch(np.array(rows or (0,)), AFTER)]
        return str(caught.value)


@pytest.fixture
def pairs(tiny_corpus: Path) -> Pairs:
    return Pairs(tiny_corpus)


def unpadded(values: torch.Tensor, lengths: torch.Tensor) -> list[np.ndarray]:
    assert values.shape[1] == lengths.max()
    for row, length in zip(values, lengths, strict=True):
        assert (row[length:] == 0).all(), "padding is not zero"
    return [row[:length].numpy() for row, length in zip(values, lengths, strict=True)]


def test_a_batch_holds_what_the_files_hold_in_the_order_asked_for(pairs: Pairs) -> None:
    chosen = [7, 0, 13]
    batch = pairs.dataset()[PlannedBatch(np.array(chosen), AFTER)]
    assert batch.ids == [pairs.rows[row]["id"] for row in chosen]
    assert batch.speaker_ids.tolist() == chosen
    assert batch.position == AFTER
    assert (batch.text_tokens.dtype, batch.codes.dtype) == (torch.int64, torch.int64)
    assert batch.latents is not None
    assert batch.emotion_features is not None
    assert batch.emotion_lengths is not None
    texts, codes = unpadded(batch.text_tokens, batch.text_lengths), unpadded(batch.codes, batch.code_lengths)
    mels = unpadded(batch.emotion_features, batch.emotion_lengths)
    for number, row in enumerate(chosen):
        np.testing.assert_array_equal(texts[number], np.load(pairs.file("target_text_ids_path", row)))
        np.testing.assert_array_equal(codes[number], np.load(pairs.file("target_codes_path", row)))
        np.testing.assert_array_equal(mels[number], np.load(pairs.file("target_mel_path", row)))
        np.testing.assert_array_equal(batch.latents[number], np.load(pairs.file("prompt_condition_path", row)))


def test_the_prompt_gives_the_speaker_and_the_target_the_emotion(pairs: Pairs) -> None:
    rows = np.array([3, 4])
    computed = pairs.dataset("semantic", "semantic", limits_with(emotion_bins=20))[PlannedBatch(rows, AFTER)]
    stored = pairs.dataset("stored")[PlannedBatch(rows, AFTER)]
    assert computed.latents is computed.emotion_vector is None
    assert stored.emotion_features is stored.speaker_features is None
    assert computed.speaker_features is not None
    assert computed.speaker_lengths is not None
    assert computed.emotion_features is not None
    assert computed.emotion_lengths is not None
    assert stored.emotion_vector is not None
    speakers = unpadded(computed.speaker_features, computed.speaker_lengths)
    emotions = unpadded(computed.emotion_features, computed.emotion_lengths)
    for number, row in enumerate(rows.tolist()):
        np.testing.assert_array_equal(speakers[number], np.load(pairs.file("prompt_semantic_path", row)))
        np.testing.assert_array_equal(emotions[number], np.load(pairs.file("target_semantic_path", row)))
        np.testing.assert_array_equal(stored.emotion_vector[number], np.load(pairs.file("prompt_emo_vec_path", row)))


def limits_with(**changes: Any) -> Limits:
    return Limits(**{**LIMITS.__dict__, **changes})


def test_moving_a_batch_keeps_what_is_no_tensor(pairs: Pairs) -> None:
    batch = pairs.dataset()[PlannedBatch(np.array([0]), AFTER)]
    moved = batch.to(torch.device("meta"))
    assert (moved.ids, moved.position) == (batch.ids, AFTER)
    assert moved.codes.device.type == "meta"
    assert moved.latents is not None
    assert moved.latents.device.type == "meta"
    assert moved.emotion_vector is None


def test_a_vector_stored_as_one_row_is_a_vector(pairs: Pairs) -> None:
    path = pairs.file("prompt_emo_vec_path")
    vector = np.load(path)
    np.save(path, vector[None])
    batch = pairs.dataset("stored")[PlannedBatch(np.array([0]), AFTER)]
    assert batch.emotion_vector is not None
    np.testing.assert_array_equal(batch.emotion_vector[0], vector)


def test_half_precision_and_small_integers_are_read(pairs: Pairs) -> None:
    mel, codes = pairs.file("target_mel_path"), pairs.file("target_codes_path")
    np.save(mel, np.load(mel).astype(np.float16))
    np.save(codes, np.load(codes).astype(np.uint16))
    stored = pairs.dataset()[PlannedBatch(np.array([0]), AFTER)]
    batch = stored.to(torch.device("cpu"))
    assert stored.emotion_features is not None
    assert batch.emotion_features is not None
    assert stored.emotion_features.dtype == torch.float16, "half the bytes travel to the device"
    assert (batch.emotion_features.dtype, batch.codes.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(batch.emotion_features[0], np.load(mel))
    np.testing.assert_array_equal(batch.codes[0], np.load(codes))


def test_a_file_that_does_not_exist_is_named(pairs: Pairs) -> None:
    path = pairs.file("target_codes_path")
    path.unlink()
    assert pairs.refusal() == f"{path}: does not exist; extract it, or remove its rows from the manifest"


def test_a_row_without_the_field_that_is_read_is_named_with_its_line(pairs: Pairs) -> None:
    for row in pairs.rows[5:]:
        del row["target_mel_path"]
    write_rows(pairs.path, pairs.rows)
    assert pairs.refusal(2, 6) == f"{pairs.path}:7: no target_mel_path, which this training reads"


def test_a_mel_with_another_number_of_bins_is_refused(pairs: Pairs) -> None:
    path = pairs.file("target_mel_path")
    np.save(path, np.zeros((20, 100), dtype=np.float32))
    assert pairs.refusal() == f"{path}: shape [20, 100], expected [at least {MIN_FRAMES} frames, 80]"


def test_a_transposed_mel_is_refused(pairs: Pairs) -> None:
    path = pairs.file("target_mel_path")
    np.save(path, np.load(path).T)
    assert f"{path}: shape [80, " in pairs.refusal()


def test_a_mel_too_short_for_the_conformer_is_refused(pairs: Pairs) -> None:
    path = pairs.file("target_mel_path")
    for frames in (0, MIN_FRAMES - 1):
        np.save(path, np.zeros((frames, 80), dtype=np.float32))
        assert f"{path}: shape [{frames}, 80], expected [at least {MIN_FRAMES} frames, 80]" in pairs.refusal()
    np.save(path, np.zeros((MIN_FRAMES, 80), dtype=np.float32))
    assert len(pairs.dataset()[PlannedBatch(np.array([0]), AFTER)].ids) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_mel_that_is_not_finite_is_refused(pairs: Pairs, value: float) -> None:
    path = pairs.file("target_mel_path")
    mel = np.load(path)
    mel[3, 4] = mel[5, 6] = value
    np.save(path, mel)
    assert f"{path}: 2 of {mel.size} values are NaN or infinite" in pairs.refusal()


@pytest.mark.parametrize("cut", [0, 5, 40, -8], ids=["empty", "in the magic", "in the header", "in the data"])
def test_a_truncated_file_is_refused(pairs: Pairs, cut: int) -> None:
    path = pairs.file("target_mel_path")
    path.write_bytes(path.read_bytes()[:cut])
    text = pairs.refusal()
    assert text.startswith(f"{path}: not a readable .npy (")
    assert text.endswith("delete it and extract it again")


def test_a_file_cut_in_the_middle_is_refused(pairs: Pairs) -> None:
    path = pairs.file("target_mel_path")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"{path}: not a readable .npy (" in pairs.refusal()


class Planted:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.trace,)


def test_pickled_objects_are_refused_and_not_run(pairs: Pairs, tmp_path: Path) -> None:
    path, trace = pairs.file("target_mel_path"), tmp_path / "was_here"
    np.save(path, np.array([Planted(trace)], dtype=object), allow_pickle=True)
    text = pairs.refusal()
    assert text.startswith(f"{path}: not a readable .npy (Object arrays cannot be loaded")
    assert not trace.exists()
    np.load(path, allow_pickle=True)
    assert trace.exists(), "the object is harmless, so the lines above prove nothing"


def test_an_archive_under_the_name_of_an_array_is_refused(pairs: Pairs) -> None:
    path = pairs.file("target_mel_path")
    with path.open("wb") as file:
        np.savez(file, mel=np.zeros((20, 80), dtype=np.float32))
    assert f"{path}: not a readable .npy (" in pairs.refusal()


def test_a_folder_in_the_place_of_a_file_is_refused(pairs: Pairs) -> None:
    path = pairs.file("target_mel_path")
    path.unlink()
    path.mkdir()
    assert f"{path}: not a readable .npy (" in pairs.refusal()


def test_another_kind_of_number_is_refused(pairs: Pairs) -> None:
    mel, codes = pairs.file("target_mel_path"), pairs.file("target_codes_path")
    np.save(mel, np.zeros((20, 80), dtype=np.int16))
    assert pairs.refusal() == f"{mel}: holds int16, expected floating point"
    np.save(codes, np.zeros(5, dtype=np.float32))
    assert pairs.refusal() == f"{codes}: holds float32, expected integers"


@pytest.mark.parametrize("code", [30, 31, -1])
def test_a_code_outside_the_vocabulary_is_refused(pairs: Pairs, code: int) -> None:
    path = pairs.file("target_codes_path")
    codes = np.load(path)
    codes[1] = code
    np.save(path, codes)
    assert pairs.refusal() == f"{path}: code {code} lies outside the model's vocabulary of 30"


def test_the_last_id_of_a_vocabulary_lies_inside(pairs: Pairs) -> None:
    for column, last in (("target_codes_path", 29), ("target_text_ids_path", 49)):
        np.save(pairs.file(column), np.array([0, last]))
    assert pairs.dataset()[PlannedBatch(np.array([0]), AFTER)].codes.tolist() == [[0, 29]]


def test_a_text_token_outside_the_vocabulary_is_refused(pairs: Pairs) -> None:
    path = pairs.file("target_text_ids_path")
    np.save(path, np.array([2, 50]))
    assert pairs.refusal() == f"{path}: text token 50 lies outside the model's vocabulary of 50"


@pytest.mark.parametrize("length", [0, 21])
def test_a_text_that_does_not_fit_the_table_is_refused(pairs: Pairs, length: int) -> None:
    path = pairs.file("target_text_ids_path")
    np.save(path, np.full(length, 3))
    assert pairs.refusal() == f"{path}: shape [{length}], expected 1 to 20 text tokens in one dimension"


def test_ids_in_two_dimensions_are_refused(pairs: Pairs) -> None:
    path = pairs.file("target_codes_path")
    np.save(path, np.load(path)[None])
    assert "expected 1 to 40 codes in one dimension" in pairs.refusal()


def test_latents_of_another_shape_are_refused(pairs: Pairs) -> None:
    path = pairs.file("prompt_condition_path")
    assert pairs.refusal(limits=limits_with(latents=(8, 64))) == f"{path}: shape [4, 64], expected [8, 64]"
    assert pairs.refusal(limits=limits_with(latents=(4, 32))) == f"{path}: shape [4, 64], expected [4, 32]"


def test_an_emotion_vector_of_another_width_is_refused(pairs: Pairs) -> None:
    path = pairs.file("prompt_emo_vec_path")
    np.save(path, np.zeros(32, dtype=np.float32))
    assert pairs.refusal(emotion="stored") == f"{path}: shape [32], expected [64]"


def test_semantic_features_of_another_width_are_refused(make_tiny_corpus: CorpusMaker) -> None:
    pairs = Pairs(make_tiny_corpus(semantic_bins=24))
    assert "24], expected [at least 3 frames, 20]" in pairs.refusal(speaker="semantic")


@pytest.mark.parametrize(
    ("emotion", "speaker", "columns"),
    [
        ("mel", "stored", {"target_mel_path", "prompt_condition_path"}),
        ("semantic", "semantic", {"target_semantic_path", "prompt_semantic_path"}),
        ("stored", "stored", {"prompt_emo_vec_path", "prompt_condition_path"}),
    ],
)
def test_only_the_files_that_are_listed_are_read(pairs: Pairs, emotion: str, speaker: str, columns: set[str]) -> None:
    bins = 20 if emotion == "semantic" else 80
    dataset = pairs.dataset(emotion, speaker, limits_with(emotion_bins=bins))
    assert set(dataset.columns()) == columns | {"target_text_ids_path", "target_codes_path"}
    kept = {pairs.rows[0][column] for column in dataset.columns()}
    for path in pairs.path.parent.glob("*/*.npy"):
        if path.relative_to(pairs.path.parent).as_posix() not in kept:
            path.unlink()
    assert dataset[PlannedBatch(np.array([0]), AFTER)].ids == [pairs.rows[0]["id"]]


def test_a_row_gets_its_speakers_class_or_minus_one(pairs: Pairs) -> None:
    found = labels({"sp2": 0, "sp0": 1, "nobody": 2}, read_manifest(pairs.path))
    assert found.tolist() == [{"sp2": 0, "sp0": 1, "sp1": -1}[row["speaker"]] for row in pairs.rows]


def test_features_that_do_not_exist_are_named_with_their_lines(pairs: Pairs) -> None:
    dataset, everything = pairs.dataset(), np.arange(len(pairs.rows))
    assert missing_features(dataset, everything) == []
    lost = pairs.rows[3]["target_codes_path"]
    (pairs.path.parent / lost).unlink()
    expected = [
        f"{pairs.path}:{line}: target_codes_path: {lost} does not exist"
        for line, row in enumerate(pairs.rows, start=1)
        if row["target_codes_path"] == lost
    ]
    assert missing_features(pairs.dataset(), everything) == expected
    others = np.flatnonzero([row["target_codes_path"] != lost for row in pairs.rows])
    assert missing_features(dataset, others) == []


def test_packed_features_are_read_as_those_in_files(pairs: Pairs) -> None:
    everything = PlannedBatch(np.arange(len(pairs.rows)), AFTER)
    expected = pairs.dataset()[everything]
    root = pairs.path.parent
    with ShardWriter(root / "features", "all-000001") as shard:
        for kind in ("mel", "codes", "text_ids", "condition"):
            for path in sorted((root / kind).glob("*.npy")):
                shard.add(path.stem, kind, np.load(path))
            shutil.rmtree(root / kind)
    dataset = pairs.dataset()
    assert missing_features(dataset, everything.rows) == []
    found = pickle.loads(pickle.dumps(dataset))[everything]
    for name in ("text_tokens", "codes", "latents", "emotion_features", "emotion_lengths", "speaker_ids"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert found.ids == expected.ids
