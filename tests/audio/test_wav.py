from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tts_kernel.audio import wav as audio
from tts_kernel.audio.wav import AudioError


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_what_is_written_is_read_back_within_one_step_of_16_bit(tmp_path: Path) -> None:
    signal = tone(0.2, 22_050)
    audio.write(tmp_path / "a.wav", signal, 22_050)
    found, rate = audio.read(tmp_path / "a.wav")
    assert rate == 22_050
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, signal, atol=1.1 / 32768)
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_16"
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"], "the temporary file stayed"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_formats_and_channels_become_mono_float(tmp_path: Path, name: str) -> None:
    left = tone(0.5, 24_000)
    soundfile.write(tmp_path / name, np.stack([left, np.zeros_like(left)], axis=1), 24_000)
    found, rate = audio.read(tmp_path / name)
    assert rate == 24_000
    assert found.ndim == 1
    assert found.dtype == np.float32
    assert np.abs(found).max() == pytest.approx(0.25, abs=0.03)  # the mean of the two channels


def test_resampling_keeps_duration_and_pitch(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.wav", tone(1.0, 44_100), 44_100)
    found, rate = audio.read(tmp_path / "a.wav", 22_050)
    assert rate == 22_050
    assert abs(len(found) - 22_050) <= 1
    assert np.abs(np.fft.rfft(found[:22_050])).argmax() == 440


def test_values_beyond_full_scale_are_cut(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.0, 2.0, -3.0]), 8_000, subtype="FLOAT")
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav")[0], [0.0, 1.0, -1.0])


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8_000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 8_000, subtype="FLOAT")
    for name in ("text.wav", "empty.wav", "nan.wav"):
        with pytest.raises(AudioError, match=name):
            audio.read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent\.wav"):
        audio.read(tmp_path / "absent.wav")


@pytest.mark.parametrize("signal", [np.zeros(0), np.array([0.0, 1.5]), np.array([np.nan]), np.zeros((2, 3))])
def test_a_signal_that_would_not_survive_is_refused(tmp_path: Path, signal: np.ndarray) -> None:
    with pytest.raises(AudioError, match=r"a\.wav"):
        audio.write(tmp_path / "a.wav", signal, 8_000)
    assert not list(tmp_path.iterdir())
