from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tts_kernel.audio.units import (
    FEATURE_DIM,
    N_CEPSTRA,
    SAMPLE_RATE,
    KMeansUnits,
    SemanticCodec,
    UnitsError,
    acoustic_features,
)

ENERGY, PITCH, VOICING = N_CEPSTRA, N_CEPSTRA + 1, N_CEPSTRA + 2


def buzz(hertz: float, seconds: float = 1.0, rate: int = SAMPLE_RATE, level: float = 0.1) -> np.ndarray:
    """A harmonic tone, roughly a voice."""
    time = np.arange(round(seconds * rate)) / rate
    return np.sum([level * np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 9)], axis=0).astype(np.float32)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    noise = np.random.default_rng(1)
    return [
        buzz(hertz, level=level) + 0.01 * noise.standard_normal(SAMPLE_RATE).astype(np.float32)
        for hertz in (90, 140, 220, 330)
        for level in (0.02, 0.1)
    ]


@pytest.fixture(scope="module")
def units(clips: list[np.ndarray]) -> KMeansUnits:
    return KMeansUnits.fit([acoustic_features(clip, SAMPLE_RATE) for clip in clips], codebook_size=16)


@pytest.mark.parametrize("hertz", [60.0, 110.0, 210.0, 400.0])
def test_pitch_of_a_tone_is_found(hertz: float) -> None:
    inner = acoustic_features(buzz(hertz), SAMPLE_RATE)[2:-2]
    np.testing.assert_allclose(np.exp(inner[:, PITCH]), hertz, rtol=0.02)
    assert (inner[:, VOICING] > 0.9).all()


def test_noise_is_unvoiced_and_silence_finite() -> None:
    noise = 0.1 * np.random.default_rng(1).standard_normal(SAMPLE_RATE)
    assert acoustic_features(noise, SAMPLE_RATE)[:, VOICING].mean() < 0.5
    silence = acoustic_features(np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    assert np.isfinite(silence).all()
    assert (silence[:, VOICING] == 0).all()


def test_louder_is_more_energy_at_the_same_pitch() -> None:
    quiet, loud = (acoustic_features(buzz(150, level=level), SAMPLE_RATE)[2:-2] for level in (0.05, 0.2))
    np.testing.assert_allclose(loud[:, ENERGY] - quiet[:, ENERGY], np.log(4.0), atol=0.01)
    np.testing.assert_allclose(loud[:, PITCH], quiet[:, PITCH], atol=1e-3)


@pytest.mark.parametrize("samples", [1, 400, 882, 1763, 22_050])
def test_frames_are_25_a_second_and_at_least_one(samples: int) -> None:
    features = acoustic_features(np.full(samples, 0.1), SAMPLE_RATE)
    assert features.shape == (max(1, samples // 882), FEATURE_DIM)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_another_sample_rate_gives_the_same_frames(units: KMeansUnits) -> None:
    first, second = units.features(buzz(150), SAMPLE_RATE), units.features(buzz(150, rate=44_100), 44_100)
    assert first.shape == second.shape
    assert np.abs(first[2:-2, PITCH] - second[2:-2, PITCH]).max() < 0.1


def test_features_are_of_unit_scale_and_codes_in_range(units: KMeansUnits, clips: list[np.ndarray]) -> None:
    features = np.concatenate([units.features(clip, SAMPLE_RATE) for clip in clips])
    assert np.isfinite(features).all()
    assert np.abs(features.mean(axis=0)).max() < 0.2
    assert features.std(axis=0).min() > 0.5
    assert features.std(axis=0).max() < 1.5
    codes = units.encode(features)
    assert codes.dtype == np.int64
    assert codes.min() >= 0
    assert codes.max() < units.codebook_size
    assert len(np.unique(codes)) > 8


def test_kmeans_units_are_a_semantic_codec(units: KMeansUnits) -> None:
    assert isinstance(units, SemanticCodec)
    assert (units.codebook_size, units.feature_dim, units.frame_rate) == (16, FEATURE_DIM, 25.0)


def test_fitting_twice_gives_the_same_units(units: KMeansUnits, clips: list[np.ndarray]) -> None:
    again = KMeansUnits.fit([acoustic_features(clip, SAMPLE_RATE) for clip in clips], codebook_size=16)
    np.testing.assert_array_equal(again.centres, units.centres)


def test_saved_units_are_the_same_units(units: KMeansUnits, clips: list[np.ndarray], tmp_path: Path) -> None:
    units.save(tmp_path / "units.npz")
    loaded = KMeansUnits.load(tmp_path / "units.npz")
    features = loaded.features(clips[0], SAMPLE_RATE)
    np.testing.assert_array_equal(features, units.features(clips[0], SAMPLE_RATE))
    np.testing.assert_array_equal(loaded.encode(features), units.encode(features))


def test_what_cannot_be_fitted_or_opened_is_refused(units: KMeansUnits, tmp_path: Path) -> None:
    with pytest.raises(UnitsError, match="3 frames cannot fill 16 codes"):
        KMeansUnits.fit([np.zeros((3, FEATURE_DIM), np.float32)], codebook_size=16)
    with pytest.raises(UnitsError, match=r"absent\.npz"):
        KMeansUnits.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    (tmp_path / "text.npz").write_text("text")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(UnitsError, match=name):
            KMeansUnits.load(tmp_path / name)
    with pytest.raises(UnitsError, match="expected"):
        units.encode(np.zeros((4, 3), np.float32))
    with pytest.raises(UnitsError, match="at least one"):
        units.features(np.zeros(0), SAMPLE_RATE)
