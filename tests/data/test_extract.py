from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tts_kernel.audio import wav as audio
from tts_kernel.audio.spectrogram import indextts2_mel
from tts_kernel.data import extract as extraction
from tts_kernel.data.extract import CHUNK, extract, extract_mels
from tts_kernel.data.files import UnsafePathError, inside
from tts_kernel.data.manifest import read_manifest

RATE = 22_050


def double(wav: np.ndarray) -> np.ndarray:
    return 2.0 * wav


@pytest.fixture
def clips(tmp_path: Path) -> list[tuple[str, Path]]:
    """Five good clips, one missing, one that is no audio, one too short for a mel."""
    noise = np.random.default_rng(1)
    good = [(f"good{index}", tmp_path / f"good{index}.wav") for index in range(5)]
    for _, path in good:
        audio.write(path, 0.1 * noise.standard_normal(4_000).clip(-5, 5), RATE)
    (tmp_path / "text.wav").write_text("not audio")
    audio.write(tmp_path / "short.wav", np.full(100, 0.1), RATE)
    return [*good, *((name, tmp_path / f"{name}.wav") for name in ("absent", "text", "short"))]


def test_every_failure_is_counted_and_named(clips: list[tuple[str, Path]], tmp_path: Path) -> None:
    report = extract_mels(clips, tmp_path / "mel")
    assert (report.made, report.skipped, report.missing, report.unreadable, report.left) == (5, 0, 1, 2, 0)
    assert [clip for clip, _ in report.failures] == ["absent", "text", "short"]
    assert sorted(path.name for path in (tmp_path / "mel").iterdir()) == [f"good{index}.npy" for index in range(5)]
    stored = np.load(tmp_path / "mel" / "good0.npy")
    np.testing.assert_array_equal(stored, indextts2_mel().of_clip(audio.read(clips[0][1])[0]))


def test_a_stopped_job_goes_on_where_it_stopped(clips: list[tuple[str, Path]], tmp_path: Path) -> None:
    first = extract(clips[:5], tmp_path / "out", double, RATE, limit=2)
    assert (first.made, first.skipped, first.left) == (2, 0, 3)
    kept = (tmp_path / "out" / "good0.npy").stat().st_mtime_ns
    second = extract(clips[:5], tmp_path / "out", double, RATE)
    assert (second.made, second.skipped, second.left) == (3, 2, 0)
    assert (tmp_path / "out" / "good0.npy").stat().st_mtime_ns == kept


def test_clips_without_audio_do_not_use_up_the_limit(clips: list[tuple[str, Path]], tmp_path: Path) -> None:
    report = extract([("gone", tmp_path / "gone.wav"), *clips[:2]], tmp_path / "out", double, RATE, limit=1)
    assert (report.made, report.missing, report.left) == (1, 1, 1)


def test_an_array_that_is_not_finite_is_not_stored(clips: list[tuple[str, Path]], tmp_path: Path) -> None:
    report = extract(clips[:1], tmp_path / "out", lambda wav: wav * np.nan, RATE)
    assert report.unreadable == 1
    assert "not finite" in report.failures[0][1]
    assert not list((tmp_path / "out").iterdir())


def test_a_bug_in_the_extractor_is_not_a_bad_clip(clips: list[tuple[str, Path]], tmp_path: Path) -> None:
    def broken(wav: np.ndarray) -> np.ndarray:
        raise TypeError("our own bug")

    with pytest.raises(TypeError, match="our own bug"):
        extract(clips[:1], tmp_path / "out", broken, RATE)


def test_workers_make_the_same_arrays(clips: list[tuple[str, Path]], tmp_path: Path) -> None:
    many = [(f"{clip}_{copy}", path) for copy in range(CHUNK // 4) for clip, path in clips]
    assert len(many) > CHUNK, "too few clips for a second process"
    one = extract_mels(many, tmp_path / "one", workers=1)
    two = extract_mels(many, tmp_path / "two", workers=2)
    assert one == two
    assert one.made == 5 * (CHUNK // 4)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "../up", "a/../../up", "/etc/x", "C:/x", "C:x", "\\\\host\\x", "a\\b", "a\0b", "a\nb"]
)
def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafePathError):
        inside(tmp_path, name)
    with pytest.raises(UnsafePathError):
        extract([(name, tmp_path / "a.wav")], tmp_path / "out", double, RATE)
    assert not (tmp_path / "out").exists()


def test_a_name_may_have_folders_and_dots(clips: list[tuple[str, Path]], tmp_path: Path) -> None:
    assert inside(tmp_path, "KO-B1/a.b.mp3") == tmp_path / "KO-B1" / "a.b.mp3"
    assert extract([("KO-B1/clip.1", clips[0][1])], tmp_path / "out", double, RATE).made == 1
    assert (tmp_path / "out" / "KO-B1" / "clip.1.npy").is_file()


@pytest.mark.parametrize(("workers", "limit"), [(0, None), (1, -1)])
def test_settings_out_of_range_are_refused(tmp_path: Path, workers: int, limit: int | None) -> None:
    with pytest.raises(ValueError, match="expected"):
        extract([], tmp_path, double, RATE, workers, limit)


def write_manifest(folder: Path, targets: list[tuple[str, str]]) -> None:
    """Pairs of these (target id, audio path), complete but for features that no test here reads."""
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "id": f"{target}__{number}",
            "target_id": target,
            "prompt_id": "p",
            "speaker": "s",
            "target_text_ids_path": "t.npy",
            "target_text_len": 1,
            "target_codes_path": "c.npy",
            "target_code_len": 1,
            "target_audio_path": path,
        }
        for number, (target, path) in enumerate(targets)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "gpt_pairs_train.jsonl").write_text(text, encoding="utf-8")


def test_command_line_extracts_each_target_once_and_orders_the_manifest(
    clips: list[tuple[str, Path]], tmp_path: Path
) -> None:
    targets = [("absent", "absent.wav"), *((clip, path.name) for clip, path in clips[:3] * 2)]
    write_manifest(tmp_path, targets)
    assert extraction.main([str(tmp_path)]) == 0
    assert len(list((tmp_path / "mel").iterdir())) == 3
    ordered = read_manifest(tmp_path / "gpt_pairs_train_mel.jsonl")
    assert ordered.strings("target_id").to_pylist() == [*(clip for clip, _ in clips[:3] * 2), "absent"]
    assert ordered.numbers("target_mel_len").min() == -1 < ordered.numbers("target_mel_len").max()


def test_command_line_fails_on_unreadable_audio_but_not_on_missing(
    clips: list[tuple[str, Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_manifest(tmp_path, [("absent", "absent.wav")])
    assert extraction.main([str(tmp_path)]) == 0
    (tmp_path / "gpt_pairs_train_mel.jsonl").unlink()
    write_manifest(tmp_path, [("text", "text.wav")])
    with caplog.at_level("INFO"):
        assert extraction.main([str(tmp_path)]) == 1
    assert "text.wav" in caplog.text
    assert "1 unreadable" in caplog.text


def test_bad_manifest_lines_are_reported_together(tmp_path: Path) -> None:
    write_manifest(tmp_path, [("a", "../a.wav"), ("b", "b.wav")])
    with (tmp_path / "gpt_pairs_train.jsonl").open("a", encoding="utf-8") as out:
        out.write("{broken\n{}\n")
    with pytest.raises(ValueError, match=r"(?s)jsonl:3: not JSON.*jsonl:4: no field 'id'"):
        extraction.main([str(tmp_path)])
    write_manifest(tmp_path, [("a", "../a.wav"), ("b", "/b.wav")])
    with pytest.raises(ValueError, match=r"(?s)jsonl:1: target_audio_path.*jsonl:2: target_audio_path"):
        extraction.main([str(tmp_path)])
    assert not (tmp_path / "mel").exists()
