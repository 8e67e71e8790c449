from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tts_kernel.data.voices import StandIns


def mels(count: int = 12, seed: int = 0) -> list[np.ndarray]:
    """Noise whose bands a clip's own offset shifts."""
    random = np.random.default_rng(seed)
    made = [random.normal(0, 1, (60, 80)) + random.normal(0, 2, 80) for _ in range(count)]
    return [mel.astype(np.float32) for mel in made]


def tone(pitch: float, seconds: float = 1.3, rate: int = 24_000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


FITTED = StandIns.fit(mels(), codes=16)


@pytest.mark.parametrize("rate", [24_000, 22_050, 16_000])
def test_tokens_are_one_per_two_frames_of_the_padded_audio(rate: int) -> None:
    wav = tone(200, 1.31, rate)
    tokens = FITTED.tokens(wav, rate)
    assert len(tokens) == math.ceil(math.ceil(len(wav) * 24_000 / rate) / 960)
    assert tokens.dtype == np.int64
    assert tokens.min() >= 0
    assert tokens.max() < 16


def test_tokens_do_not_hear_a_louder_recording() -> None:
    mel = mels(1, seed=5)[0]
    assert np.array_equal(FITTED.tokens_of_mel(mel), FITTED.tokens_of_mel(mel + 2.0))


def test_embeddings_tell_voices_apart() -> None:
    voices = ((120, 1.0), (120, 2.0), (300, 1.0))
    first, again, other = (FITTED.embedding(tone(pitch, seconds), 24_000) for pitch, seconds in voices)
    assert first.shape == (192,)

    def alike(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert alike(first, again) > alike(first, other)


def test_the_same_mels_and_seed_give_the_same_stand_ins(tmp_path: Path) -> None:
    again = StandIns.fit(mels(), codes=16)
    assert np.array_equal(again.centres, FITTED.centres)
    assert not np.array_equal(StandIns.fit(mels(), codes=16, seed=2).centres, FITTED.centres)
    FITTED.save(tmp_path / "stand_ins.npz")
    read = StandIns.load(tmp_path / "stand_ins.npz")
    assert np.array_equal(read.tokens(tone(150), 24_000), FITTED.tokens(tone(150), 24_000))
    assert np.array_equal(read.embedding(tone(150), 24_000), FITTED.embedding(tone(150), 24_000))


def test_what_cannot_be_fitted_or_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="60 tokens cannot fill 61 codes"):
        StandIns.fit(mels(2), codes=61)
    with pytest.raises(ValueError, match=r"gone\.npz: not a file of stand-ins \(no such file\)"):
        StandIns.load(tmp_path / "gone.npz")
    np.savez(tmp_path / "other.npz", centres=np.zeros((4, 12)), mean=np.zeros(160), spread=np.ones(160))
    with pytest.raises(ValueError, match=r"other\.npz: not a file of stand-ins .*\(4, 12\)"):
        StandIns.load(tmp_path / "other.npz")
