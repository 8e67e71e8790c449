from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from tts_kernel.audio.clip_mel import BLOCK, ClipMel
from tts_kernel.audio.spectrogram import PowerLogMel, indextts2_mel

CASE = Path(__file__).parents[1] / "fixtures" / "parity" / "indextts2" / "mel_22k"


def plain_mel(wav: np.ndarray) -> np.ndarray:
    """The mel as a script with torchaudio would make it."""
    transform = MelSpectrogram(22_050, 1024, win_length=1024, hop_length=256, n_mels=80, power=2.0)
    return transform(torch.from_numpy(wav)[None])[0].clamp(min=1e-5).log().T.numpy()


def voice(samples: int, seed: int = 1) -> np.ndarray:
    """Loud and low, faint and high: rounding shows in the logarithm of the quiet bands."""
    time = np.arange(samples) / 22_050
    tones = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20))
    return (0.2 * tones + 1e-4 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [513, 1_024, 256 * BLOCK - 1, 256 * BLOCK, 256 * (BLOCK + 1), 50_000])
def test_a_clip_of_any_length_has_the_plain_mel(samples: int) -> None:
    wav = voice(samples)
    found, expected = indextts2_mel().clip_mel()(wav), plain_mel(wav)
    assert found.shape == expected.shape == (samples // 256 + 1, 80)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def test_it_equals_the_recorded_mel_of_the_reference() -> None:
    case, arrays = json.loads((CASE / "case.json").read_text()), np.load(CASE / "io.npz")
    found = indextts2_mel().clip_mel()(arrays["in_wave"])
    np.testing.assert_allclose(found, arrays["out_fork_logmel"], rtol=0, atol=case["atol_per_array"]["out_fork_logmel"])


def test_other_settings_are_kept() -> None:
    mel = PowerLogMel(16_000, 512, 128, 40, f_min=50.0, f_max=7_000.0)
    wav = voice(20_000)
    batch = mel(torch.from_numpy(wav)[None])[0].T.numpy()
    np.testing.assert_allclose(mel.clip_mel()(wav), batch, rtol=0, atol=2e-4)


def test_no_clip_leaves_a_trace_in_the_next() -> None:
    mel = indextts2_mel().clip_mel()
    short, long = voice(9_000, seed=2), voice(60_000, seed=3)
    alone = mel(short)
    mel(long)
    first = mel(long)
    np.testing.assert_array_equal(mel(short), alone)
    np.testing.assert_array_equal(mel(long), first)
    assert not np.shares_memory(mel(short), mel(short)), "a result must outlive the next call"


def test_a_copy_sent_to_a_worker_is_the_same_mel() -> None:
    mel, wav = indextts2_mel().clip_mel(), voice(9_000)
    mel(voice(200_000))
    sent = pickle.dumps(mel)
    assert len(sent) < 200_000, "buffers were sent along"
    copy = pickle.loads(sent)
    assert copy.sample_rate == 22_050
    np.testing.assert_array_equal(copy(wav), mel(wav))


@pytest.mark.parametrize("wav", [np.zeros(512, np.float32), np.zeros(0, np.float32), np.zeros((2, 4_000), np.float32)])
def test_what_cannot_be_padded_is_refused(wav: np.ndarray) -> None:
    with pytest.raises(ValueError, match="drop the clip"):
        indextts2_mel().clip_mel()(wav)


def test_filters_without_bins_give_the_floor() -> None:
    filters = np.zeros((3, 513), np.float32)
    filters[1, 10:20] = 1.0
    found = ClipMel(filters, 22_050, 256)(voice(5_000))
    np.testing.assert_allclose(found[:, [0, 2]], np.log(1e-5), rtol=1e-6)
    assert (found[:, 1] > 0).any()
