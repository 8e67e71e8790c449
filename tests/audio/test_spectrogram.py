from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tts_kernel.audio.spectrogram import (
    LogMel,
    PowerLogMel,
    WhisperLogMel,
    cosyvoice2_mel,
    cosyvoice2_training_mel,
    indextts2_mel,
    mel_filters,
    melotts_mel,
    speaker_fbank,
    whole_tokens,
)

CASES = Path(__file__).parents[1] / "fixtures" / "parity"


def read_case(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return json.loads((folder / "case.json").read_text()), dict(np.load(folder / "io.npz"))


@pytest.fixture(scope="module")
def case() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return read_case(CASES / "indextts2" / "mel_22k")


@pytest.fixture(scope="module")
def cosyvoice2() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return read_case(CASES / "cosyvoice2" / "features")


def test_power_log_mel_equals_the_trainers(case: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    meta, arrays = case
    found = indextts2_mel().of_clip(arrays["in_wave"])
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    tolerance = meta["atol_per_array"]["out_fork_logmel"]
    np.testing.assert_allclose(found, arrays["out_fork_logmel"], rtol=0, atol=tolerance)


def test_log_mel_equals_the_official_one(case: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    meta, arrays = case
    official = meta["params"]["official"]
    mel = LogMel(
        official["sampling_rate"], official["n_fft"], official["hop_size"], official["num_mels"], official["fmin"]
    )
    found = mel(torch.from_numpy(arrays["in_wave"])[None]).numpy()
    tolerance = meta["atol_per_array"]["out_official_mel"]
    np.testing.assert_allclose(found, arrays["out_official_mel"], rtol=0, atol=tolerance)


def test_a_batch_has_the_mels_of_its_clips() -> None:
    wav = 0.1 * np.random.default_rng(1).standard_normal((2, 30_000)).astype(np.float32)
    batch = indextts2_mel()(torch.from_numpy(wav)).numpy()
    for clip, mel in zip(wav, batch, strict=True):
        np.testing.assert_allclose(indextts2_mel().of_clip(clip), mel.T, rtol=0, atol=1e-5)


def test_frame_counts_follow_the_docstrings() -> None:
    for samples in (5_000, 5_120, 5_121):
        wav = torch.zeros(2, samples)
        assert indextts2_mel()(wav).shape == (2, 80, samples // 256 + 1)
        assert LogMel(22_050, 1024, 256, 80)(wav).shape == (2, 80, samples // 256)


def test_silence_is_the_floor() -> None:
    np.testing.assert_allclose(indextts2_mel().of_clip(np.zeros(4_096, np.float32)), np.log(1e-5), rtol=1e-6)


def test_a_second_instance_with_other_settings_does_not_disturb_the_first() -> None:
    wav = torch.randn(1, 8_000, generator=torch.Generator().manual_seed(1))
    mel = indextts2_mel()
    before = mel(wav)
    PowerLogMel(24_000, 1024, 256, 80, f_max=8_000.0)(wav)
    torch.testing.assert_close(mel(wav), before, rtol=0, atol=0)
    assert not mel.state_dict(), "tables are computed, never stored with weights"


def test_a_pickled_mel_is_the_same_mel() -> None:
    wav = np.sin(np.arange(8_000) / 9).astype(np.float32)
    of_clip = indextts2_mel().of_clip  # worker processes receive it so
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(of_clip))(wav), of_clip(wav))


@pytest.mark.parametrize("mel", [indextts2_mel(), LogMel(22_050, 1024, 256, 80)])
def test_a_clip_too_short_is_refused_with_its_length(mel: PowerLogMel | LogMel) -> None:
    with pytest.raises(ValueError, match="100 samples"):
        mel(torch.zeros(1, 100))


def test_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="bark"):
        mel_filters(22_050, 1024, 80, scale="bark")


def test_the_cosyvoice2_mel_is_the_recorded_ones(cosyvoice2: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    sizes, mel = cosyvoice2[0]["config"]["mel"], cosyvoice2_mel()
    assert (mel.sample_rate, mel.n_fft, mel.hop_length, mel.n_mels) == tuple(
        sizes[name] for name in ("sampling_rate", "n_fft", "hop_size", "num_mels")
    )
    wav = cosyvoice2[1]["in_speech_24k"]
    for made, name in ((cosyvoice2_training_mel(wav), "training"), (mel.of_clip(wav), "prompt")):
        recorded = cosyvoice2[1][f"out_speech_mel_{name}"]
        np.testing.assert_allclose(made, recorded, rtol=1e-4, atol=0.002)


@pytest.mark.parametrize("samples", [959, 960, 961, 4_000])
def test_a_training_mel_has_two_frames_for_every_token_begun(samples: int) -> None:
    mel = cosyvoice2_training_mel(np.zeros(samples, np.float32))
    assert mel.shape == (2 * -(-samples // 960), 80)
    assert len(whole_tokens(np.ones(samples))) == 960 * -(-samples // 960)


def test_whisper_mels_lie_within_two_of_their_loudest_band() -> None:
    wav = np.sin(np.arange(16_000) / 9).astype(np.float32)
    mel = WhisperLogMel()
    made = mel.of_clip(wav)
    assert made.shape == (100, 128)
    assert made.max() - made.min() == pytest.approx(2.0)  # 8 decades
    quiet = mel(torch.from_numpy(np.stack([wav, 0.1 * wav])))
    torch.testing.assert_close(quiet[0] - quiet[1], torch.full((128, 100), 0.5), atol=1e-3, rtol=0)  # a row by itself


def test_a_speaker_filter_bank_has_no_mean_and_100_frames_a_second() -> None:
    wav = np.random.default_rng(1).standard_normal(16_000).astype(np.float32) * 0.1
    made = speaker_fbank(wav)
    assert made.shape == (98, 80)
    np.testing.assert_allclose(made.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(speaker_fbank(wav / 4), made, atol=1e-3)  # loudness lies in the mean


@pytest.mark.parametrize("make", [speaker_fbank, WhisperLogMel().of_clip, cosyvoice2_mel().of_clip])
def test_a_clip_too_short_for_cosyvoice2_is_refused_with_its_length(make: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(ValueError, match="99 samples are too few"):
        make(np.zeros(99, np.float32))


def test_melotts_mel_is_made_of_its_magnitudes() -> None:
    wav = 0.1 * torch.randn(2, 30_000, generator=torch.Generator().manual_seed(1))
    mel = melotts_mel()
    magnitudes = mel.magnitudes(wav)
    assert magnitudes.shape == (2, 1025, 30_000 // 512)
    assert mel(wav).shape == (2, 128, 30_000 // 512)
    assert torch.equal(mel.of_magnitudes(magnitudes), mel(wav))
    loudest = 40 + int(melotts_mel().magnitudes(torch.sin(torch.arange(30_000) * 0.25)[None])[0, 40:, 10].argmax())
    assert loudest == round(0.25 / (2 * np.pi) * 2048)


def test_silence_has_the_magnitude_of_its_guard() -> None:
    torch.testing.assert_close(melotts_mel().magnitudes(torch.zeros(1, 4_096)), torch.full((1, 1025, 8), 1e-3))
