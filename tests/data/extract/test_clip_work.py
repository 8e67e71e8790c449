from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.extract.extracted import DOUBLE, RATE, Clips, noise_clips, reasons, shards, stored
from tests.data.extract.extractors import level_and_length
from tts_kernel.data.extract import Extractor, extract, extract_mels
from tts_kernel.data.features import Features
from tts_kernel.data.files import save_array


@pytest.fixture
def good(tmp_path: Path) -> Clips:
    return noise_clips(tmp_path)


def test_half_precision_takes_half_the_space(good: Clips, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    extract_mels(good, whole)
    extract_mels(good, half, half=True)
    pairs = [Features(data).read_kind("mel", [clip for clip, _ in good]) for data in (whole, half)]
    for full, small in zip(*pairs, strict=True):
        assert (full.dtype, small.dtype) == (np.float32, np.float16)
        np.testing.assert_allclose(small, full, rtol=2**-11, atol=0)
    sizes = [(data / "features" / shards(data)[0]).stat().st_size for data in (whole, half)]
    assert sizes[1] < 0.65 * sizes[0]


def test_an_extractor_may_make_several_kinds(good: Clips, tmp_path: Path) -> None:
    both = Extractor(("level", "length"), level_and_length, RATE)
    (tmp_path / "length").mkdir()
    save_array(tmp_path / "length" / "good1.npy", np.array([1]))
    assert extract(good[:3], tmp_path, both).made == 3
    kinds = Counter((clip, kind) for clip, _ in good[:3] for kind in ("level", "length"))
    assert stored(tmp_path) == kinds - Counter([("good1", "length")]), "a kind that was there was made again"
    again = extract(good[:4], tmp_path, both)
    assert (again.made, again.skipped) == (1, 3)
    with pytest.raises(TypeError, match="expected"):
        extract(good[5:], tmp_path, Extractor(("level", "pitch"), level_and_length, RATE))


def test_an_array_that_is_not_finite_is_not_stored(good: Clips, tmp_path: Path) -> None:
    report = extract(good[:1], tmp_path, Extractor(("bad",), lambda wav: wav * np.nan, RATE))
    assert report.unreadable == 1
    assert "not finite" in reasons(report)["good0"][1]
    assert not shards(tmp_path)


def test_a_value_that_half_precision_cannot_hold_is_the_clips_failure(good: Clips, tmp_path: Path) -> None:
    report = extract(good[:1], tmp_path, Extractor(("big",), lambda wav: wav * 1e7, RATE), half=True)
    assert "float16" in reasons(report)["good0"][1]


def test_every_kind_of_audio_is_made_or_has_its_reason(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(np.arange(96_000) / 20)
    rates = {"low.wav": 8_000, "high.wav": 96_000, "deep.wav": 24_000, "float.wav": 24_000, "stereo.flac": 44_100}
    subtypes = {"deep.wav": "PCM_24", "float.wav": "FLOAT"}
    for name, rate in rates.items():
        wave = tone[:rate]
        soundfile.write(
            tmp_path / name, np.stack([wave, wave], 1) if "stereo" in name else wave, rate, subtypes.get(name)
        )
    soundfile.write(tmp_path / "flac.mp3", tone[:24_000], 24_000, format="FLAC")  # audio, whatever its name says
    (tmp_path / "page.mp3").write_text("<html>404</html>")
    (tmp_path / "zero.mp3").touch()
    (tmp_path / "loop.wav").symlink_to("pool.wav")
    (tmp_path / "pool.wav").symlink_to("loop.wav")
    (tmp_path / "dangling.wav").symlink_to("nowhere.wav")
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan] * 1_000), 22_050, subtype="FLOAT")
    report = extract([(path.name, path) for path in sorted(tmp_path.iterdir())], tmp_path / "data", DOUBLE)
    lengths = Features(tmp_path / "data").lengths("double")
    frames = dict(zip(lengths["clip"].to_pylist(), lengths["frames"].to_pylist(), strict=True))
    assert frames.keys() == {*rates, "flac.mp3"}
    for name, rate in {**rates, "flac.mp3": 24_000}.items():
        assert abs(frames[name] - RATE * min(rate, len(tone)) / rate) <= 1
    said = {
        "page.mp3": ("unreadable", "no format that is known"),
        "zero.mp3": ("unreadable", "0 bytes"),
        "loop.wav": ("unreadable", "symbolic links"),
        "pool.wav": ("unreadable", "symbolic links"),
        "dangling.wav": ("missing", "no such audio file"),
        "folder.wav": ("unreadable", "is no file"),
        "nan.wav": ("unreadable", "NaN"),
    }
    found = reasons(report)
    assert {name: status for name, (status, _) in found.items()} == {name: status for name, (status, _) in said.items()}
    for name, (_, reason) in said.items():
        assert reason in found[name][1]
        assert str(tmp_path) not in found[name][1], "the path has a column of its own; reasons are to be counted"


def test_names_that_are_not_unicode_are_read_and_reported(good: Clips, tmp_path: Path) -> None:
    odd, bad, gone = (tmp_path / os.fsdecode(name) for name in (b"\xb0\xa1.wav", b"\xb0\xa2.wav", b"\xb0\xa3.wav"))
    try:
        odd.write_bytes(good[0][1].read_bytes())
        bad.write_text("not audio")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    report = extract([good[1], ("odd", odd), ("bad", bad), ("gone", gone)], tmp_path / "data", DOUBLE)
    assert (report.made, report.missing, report.unreadable) == (2, 1, 1)
    assert reasons(report)["bad"][0] == "unreadable"
    audio_paths = dict(zip(*(report.failures[name].to_pylist() for name in ("clip", "audio")), strict=True))
    assert audio_paths["gone"].endswith("\\udcb0\\udca3.wav")


def test_a_file_that_vanishes_during_the_job_is_missing(good: Clips, tmp_path: Path) -> None:
    def vanish(wav: np.ndarray) -> np.ndarray:
        good[4][1].unlink(missing_ok=True)
        return wav

    report = extract(good, tmp_path, Extractor(("copy",), vanish, RATE))
    assert (report.made, report.missing) == (11, 1)
    assert reasons(report) == {"good4": ("missing", "no such audio file")}
