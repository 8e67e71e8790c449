from __future__ import annotations

import math

import numpy as np
import pytest

from tts_kernel.audio.wav import Hz
from tts_kernel.data.voices import StandIns
from tts_kernel.evaluation.similarity import Clip, speaker_similarity


class FirstTwo:
    """A clip's first two samples are its embedding."""

    def tokens(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        raise AssertionError("similarity needs no tokens")

    def embedding(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        if len(wav) < 2:
            raise ValueError("1 samples are too few")
        return wav[:2].astype(np.float32)


def clip(degrees: float, length: float = 1.0) -> Clip:
    angle = math.radians(degrees)
    return np.array([length * math.cos(angle), length * math.sin(angle), 0.0]), 24_000


def test_the_same_voice_scores_1_and_the_opposite_minus_1() -> None:
    real = [clip(30), clip(30, 5.0)]
    assert speaker_similarity([clip(30, 0.1)], real, FirstTwo()).score == pytest.approx(1.0)
    assert speaker_similarity([clip(210)], real, FirstTwo()).score == pytest.approx(-1.0)
    assert speaker_similarity([clip(120)], real, FirstTwo()).score == pytest.approx(0.0, abs=1e-6)


def test_scores_are_of_the_mean_voice_and_spread_over_clips() -> None:
    found = speaker_similarity([clip(0), clip(60)], [clip(-10), clip(10)], FirstTwo())
    assert found.score == pytest.approx(0.75)
    assert found.spread == pytest.approx(0.25)
    assert found.clips == 2
    assert found.real == pytest.approx(math.cos(math.radians(20)))
    assert str(found) == "speaker similarity 0.750 ± 0.250 over 2 clips, real clips 0.940"


def test_loudness_of_an_embedding_counts_for_nothing() -> None:
    quiet, loud = (speaker_similarity([clip(20)], [clip(0), clip(40, size)], FirstTwo()).score for size in (0.01, 100))
    assert quiet == pytest.approx(loud)


def test_without_an_extractor_it_is_not_measured() -> None:
    found = speaker_similarity([clip(0)], [clip(0)], None)
    assert found.score is None
    assert str(found).startswith("speaker similarity not measured: no extractor")


@pytest.mark.parametrize(
    ("generated", "real"), [([], [clip(0)]), ([clip(0)], []), ([(np.zeros(3), 24_000)], [clip(0)])]
)
def test_without_clips_it_is_not_measured(generated: list[Clip], real: list[Clip]) -> None:
    found = speaker_similarity(generated, real, FirstTwo())
    assert found.score is None
    assert "have an embedding" in str(found)


def test_clips_without_an_embedding_are_left_out_and_named() -> None:
    broken = [(np.ones(1), 24_000), (np.array([np.nan, 1.0]), 24_000)]
    found = speaker_similarity([clip(0), *broken], [clip(0)], FirstTwo())
    assert found.score == pytest.approx(1.0)
    assert found.clips == 1
    assert found.real is None
    assert found.left_out == (
        "generated 1: 1 samples are too few",
        "generated 2: its embedding is not finite, or zero",
    )
    assert "left out: generated 1" in str(found)


def test_the_demos_statistics_tell_voices_apart() -> None:
    extractor = StandIns(np.zeros((4, 80), np.float32), np.zeros(160, np.float32), np.ones(160, np.float32))

    def tone(pitch: float, seconds: float) -> Clip:
        return (0.3 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * 24_000)) / 24_000)).astype(np.float32), 24_000

    real = [tone(120, 1.0), tone(120, 1.5)]
    same, other = (speaker_similarity([tone(pitch, 1.2)], real, extractor).score for pitch in (120, 300))
    assert same is not None
    assert other is not None
    assert same > other
