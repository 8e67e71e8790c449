from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tts_kernel.audio import wav as audio
from tts_kernel.audio.wav import KEPT_RATES, AudioError, Resampler


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


def test_a_kept_resampler_gives_what_a_fresh_one_gives() -> None:
    resampler, noise = Resampler(22_050), np.random.default_rng(1)
    for rate in (24_000, 8_000, 96_000, 24_000, 44_100, 22_050, *range(11_000, 11_000 + KEPT_RATES), 24_000):
        for samples in (1, 37, 12_345):
            wav = noise.uniform(-1, 1, samples).astype(np.float32)
            found = resampler(wav, rate)
            np.testing.assert_array_equal(found, audio.resample(wav, rate, 22_050))
            assert found.dtype == np.float32
            assert abs(len(found) - samples * 22_050 / rate) <= 1


@pytest.mark.parametrize("rate", [8_000, 96_000])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_any_rate_and_sample_format_is_read_at_the_rate_asked_for(tmp_path: Path, rate: int, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([tone(0.5, rate)] * 2, axis=1), rate, subtype=subtype)
    for options in ({"sample_rate": 22_050}, {"resampler": Resampler(22_050)}):
        found, read_rate = audio.read(tmp_path / "a.wav", **options)
        assert read_rate == 22_050
        assert abs(len(found) - 11_025) <= 1
        np.testing.assert_allclose(found[2_000:-2_000], tone(0.5, 22_050)[2_000 : len(found) - 2_000], atol=0.02)


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
    with pytest.raises(FileNotFoundError, match=r"text\.wav"):
        audio.read(tmp_path / "text.wav" / "below-a-file.wav")


def test_bad_files_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "text.mp3").write_text("a page that says the file was not found")
    (tmp_path / "zero.mp3").write_bytes(b"")
    (tmp_path / "noise.raw").write_bytes(bytes(1_000))
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to("pool.wav")
    (tmp_path / "pool.wav").symlink_to("loop.wav")
    reasons = {
        "text.mp3": "not readable as audio",
        "zero.mp3": "0 bytes",
        "noise.raw": "do not say their rate",
        "folder.wav": "is no file",
        "loop.wav": "symbolic links",
        "x" * 300 + ".wav": "cannot be opened",
    }
    for name, reason in reasons.items():
        with pytest.raises(AudioError, match=f"{name}: .*{reason}"):
            audio.read(tmp_path / name)


def test_the_content_counts_not_the_extension(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.2, 22_050), 22_050, format="FLAC")
    assert len(audio.read(tmp_path / "a.wav")[0]) == 4_410


def test_a_name_that_is_not_unicode_is_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xb0\xa1.wav")  # EUC-KR
    try:
        path.write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    soundfile.write(os.fsencode(path), tone(0.2, 22_050), 22_050, format="WAV")
    assert len(audio.read(path)[0]) == 4_410


@pytest.mark.parametrize("signal", [np.zeros(0), np.array([0.0, 1.5]), np.array([np.nan]), np.zeros((2, 3))])
def test_a_signal_that_would_not_survive_is_refused(tmp_path: Path, signal: np.ndarray) -> None:
    with pytest.raises(AudioError, match=r"a\.wav"):
        audio.write(tmp_path / "a.wav", signal, 8_000)
    assert not list(tmp_path.iterdir())


def test_a_wav_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    audio.write(path, np.zeros(8000, np.float32), 8000)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(AudioError, match=r"cut\.wav: cut off, 9,000 of 16,044 bytes; fetch the clip again"):
        audio.read(path)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(24_000, 16_000), (16_000, 24_000), (22_050, 24_000)])
def test_the_sinc_resampler_keeps_a_tone_and_its_length_in_seconds(from_rate: int, to_rate: int) -> None:
    found = audio.resample_sinc(tone(0.5, from_rate), from_rate, to_rate)
    assert found.dtype == np.float32
    assert abs(len(found) - to_rate // 2) <= 1
    middle = slice(to_rate // 10, -to_rate // 10)  # the ends ring
    np.testing.assert_allclose(found[middle], tone(0.5, to_rate)[: len(found)][middle], atol=2e-3)


def test_the_sinc_resampler_leaves_a_signal_of_the_right_rate_alone() -> None:
    signal = tone(0.1, 16_000)
    assert audio.resample_sinc(signal, 16_000, 16_000) is signal
