from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tts_kernel.data.audit.audio import FLAT, Sound, listen, measure

RATE = 16_000


def tone(seconds: float, level_db: float = -20.0, rate: int = RATE) -> np.ndarray:
    """A sine whose RMS is at `level_db`."""
    time = np.arange(round(seconds * rate)) / rate
    return np.sqrt(2) * 10 ** (level_db / 20) * np.sin(2 * np.pi * 440 * time).astype(np.float32)


def quiet(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def heard(*parts: np.ndarray) -> Sound:
    return measure(np.concatenate(parts)[:, None], RATE)


@pytest.mark.parametrize("level", [-6.0, -20.0, -50.0])
def test_level_is_the_rms_of_what_is_not_silence(level: float) -> None:
    sound = heard(quiet(2.0), tone(1.0, level), quiet(1.0))
    assert sound.level == pytest.approx(level, abs=0.1)
    assert (sound.lead, sound.tail) == (pytest.approx(2.0, abs=0.02), pytest.approx(1.0, abs=0.02))
    assert (sound.status, sound.duration) == ("ok", 4.0)


def test_noise_below_the_speech_counts_as_silence() -> None:
    noise = np.random.default_rng(0).normal(scale=10 ** (-65 / 20), size=RATE).astype(np.float32)
    assert heard(noise, tone(1.0), noise).lead == pytest.approx(1.0, abs=0.02)


def test_a_pause_within_the_speech_is_not_at_an_end() -> None:
    sound = heard(tone(0.5), quiet(3.0), tone(0.5))
    assert (sound.lead, sound.tail) == (0.0, 0.0)


def test_digital_silence_has_a_status_of_its_own() -> None:
    sound = heard(quiet(1.5))
    assert (sound.status, sound.lead, sound.tail) == ("silent", 1.5, 0.0)


def test_flat_tops_count_and_single_peaks_do_not() -> None:
    wav = tone(1.0)
    wav[[100, 300, 301]] = 1.0
    assert heard(wav).clipping == 0.0
    wav[500 : 500 + FLAT] = 1.0
    wav[900 : 900 + 2 * FLAT] = -1.0
    assert heard(wav).clipping == pytest.approx(3 * FLAT / RATE)


def test_clipping_in_one_channel_is_found() -> None:
    samples = np.stack([tone(1.0), tone(1.0)], axis=1)
    samples[10:20, 1] = 1.0
    sound = measure(samples, RATE)
    assert (sound.channels, sound.clipping) == (2, pytest.approx(10 / RATE))


def test_values_that_are_not_finite_are_counted_and_placed() -> None:
    wav = tone(1.0)
    wav[RATE // 2 :][:3] = np.nan
    sound = heard(wav)
    assert (sound.status, sound.detail) == ("not finite", "3 samples, the first at 0.500 s")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_whole_files_of_every_format_are_ok(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(2.0), RATE)
    sound = listen(path)
    assert (sound.status, sound.sample_rate) == ("ok", RATE)
    assert sound.duration == pytest.approx(2.0, abs=0.1)
    assert sound.level == pytest.approx(-20.0, abs=0.5)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_files_cut_in_the_middle_are_truncated(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.1, 0.1, 5 * RATE), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert listen(path).status == "truncated"


@pytest.mark.parametrize(
    ("rate", "subtype"), [(8_000, "PCM_16"), (96_000, "PCM_24"), (44_100, "FLOAT"), (22_050, "PCM_U8")]
)
def test_rates_and_sample_formats_are_read(tmp_path: Path, rate: int, subtype: str) -> None:
    soundfile.write(tmp_path / "clip.wav", np.stack([tone(1.0, rate=rate)] * 2, axis=1), rate, subtype=subtype)
    sound = listen(tmp_path / "clip.wav")
    assert (sound.status, sound.sample_rate, sound.channels) == ("ok", rate, 2)
    assert sound.level == pytest.approx(-20.0, abs=0.3)


def test_a_streamed_wav_without_a_length_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(1.0), RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert listen(path).status == "ok"


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("empty.wav", b"", "unreadable"),
        ("page.mp3", b"<html>404</html>" * 99, "unreadable"),
        ("head.wav", b"RIFF\x24\x00\x00\x00WAVE", "unreadable"),
        ("gone.wav", None, "missing"),
    ],
)
def test_what_is_no_audio_is_named_and_not_raised(tmp_path: Path, name: str, data: bytes | None, status: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    sound = listen(tmp_path / name)
    assert (sound.status, sound.digest) == (status, "")
    assert sound.detail


def test_the_digest_is_the_sound_and_not_the_file(tmp_path: Path) -> None:
    samples = np.round(tone(1.0) * 32768) / 32768
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "b.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "c.wav", 0.99 * samples, RATE, subtype="PCM_16")
    a, b, c = (listen(tmp_path / f"{name}.wav").digest for name in "abc")
    assert a == b != c


def test_links_in_a_loop_names_too_long_and_folders_are_unreadable_or_missing(tmp_path: Path) -> None:
    (tmp_path / "a.wav").symlink_to(tmp_path / "b.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    soundfile.write(tmp_path / "file.wav", tone(0.1), RATE)
    assert listen(tmp_path / "a.wav").status == "unreadable"
    assert listen(tmp_path / f"{'a' * 300}.wav").status == "unreadable"
    assert listen(tmp_path).status == "unreadable"
    assert listen(tmp_path / "file.wav" / "inside.wav").status == "missing"
