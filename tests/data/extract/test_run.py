from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.data.extract.extracted import DOUBLE, RATE, Clips, noise_clips, reasons, shards, stored
from tests.data.extract.extractors import broken, twelve_times
from tts_kernel.audio import wav as audio
from tts_kernel.audio.clip_mel import ClipMel
from tts_kernel.audio.spectrogram import indextts2_mel
from tts_kernel.data.extract import Extractor, extract, extract_mels
from tts_kernel.data.extract import run as extraction
from tts_kernel.data.features import Features
from tts_kernel.data.features.shards import read_index
from tts_kernel.data.features.store_lock import StoreError, writing
from tts_kernel.data.files import save_array
from tts_kernel.data.manifest import read_manifest


@pytest.fixture
def good(tmp_path: Path) -> Clips:
    return noise_clips(tmp_path)


@pytest.fixture
def clips(good: Clips, tmp_path: Path) -> Clips:
    """Five good clips, one missing, one that is no audio, one too short for a mel."""
    (tmp_path / "text.wav").write_text("not audio")
    audio.write(tmp_path / "short.wav", np.full(100, 0.1), RATE)
    return [*good[:5], *((name, tmp_path / f"{name}.wav") for name in ("absent", "text", "short"))]


def test_every_failure_is_counted_and_named(clips: Clips, tmp_path: Path) -> None:
    report = extract_mels(clips, tmp_path / "data")
    assert (report.made, report.skipped, report.missing, report.unreadable, report.left) == (5, 0, 1, 2, 0)
    said = reasons(report)
    assert list(said) == ["absent", "text", "short"]
    assert said["absent"] == ("missing", "no such audio file")
    assert said["text"][0] == said["short"][0] == "unreadable"
    assert "not readable as audio" in said["text"][1]
    assert "100 samples are too few" in said["short"][1]
    assert report.failures.column("audio").to_pylist() == [str(path) for _, path in clips[5:]]
    assert stored(tmp_path / "data") == Counter((f"good{number}", "mel") for number in range(5))
    [found] = Features(tmp_path / "data").read(["mel/good0.npy"])
    np.testing.assert_array_equal(found, indextts2_mel().of_clip(audio.read(clips[0][1])[0]))
    assert report.audio_seconds == pytest.approx(sum(4_000 + 100 * number for number in range(5)) / RATE)


def test_a_limited_job_goes_on_where_it_stopped(good: Clips, tmp_path: Path) -> None:
    first = extract(good, tmp_path, DOUBLE, limit=2)
    assert (first.made, first.skipped, first.left) == (2, 0, 10)
    assert stored(tmp_path).keys() == {("good0", "double"), ("good1", "double")}
    second = extract(good, tmp_path, DOUBLE, limit=3)
    assert (second.made, second.skipped, second.left) == (3, 2, 7)
    third = extract(good, tmp_path, DOUBLE)
    assert (third.made, third.skipped, third.left) == (7, 5, 0)
    assert stored(tmp_path) == Counter((clip, "double") for clip, _ in good)
    assert extract(good, tmp_path, DOUBLE, limit=0).left == 0


def test_arrays_that_lie_in_single_files_are_not_made_again(good: Clips, tmp_path: Path) -> None:
    (tmp_path / "double").mkdir()
    save_array(tmp_path / "double" / "good3.npy", np.zeros(3))
    report = extract(good, tmp_path, DOUBLE)
    assert (report.made, report.skipped) == (11, 1)
    assert ("good3", "double") not in stored(tmp_path)


def test_what_failed_does_not_use_up_the_limit(clips: Clips, good: Clips, tmp_path: Path) -> None:
    report = extract_mels([*clips[5:], *good[:2]], tmp_path / "data", limit=1)
    assert (report.made, report.missing, report.unreadable, report.left) == (1, 1, 2, 1)


def test_shards_have_the_size_asked_for(good: Clips, tmp_path: Path) -> None:
    extract(good, tmp_path, DOUBLE, shard_size=5)
    sizes = [read_index(path)[0].num_rows for path in sorted((tmp_path / "features").glob("*.arrow"))]
    assert sizes == [5, 5, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bug_in_the_extractor_is_not_a_bad_clip(good: Clips, tmp_path: Path, workers: int) -> None:
    with pytest.raises(TypeError, match="our own bug"):
        extract(good, tmp_path, Extractor(("broken",), broken, RATE), workers=workers)
    assert not shards(tmp_path)


def test_workers_make_the_same_arrays(clips: Clips, tmp_path: Path) -> None:
    many = [(f"{clip}_{copy}", path) for copy in range(9) for clip, path in clips]
    one = extract(many, tmp_path / "one", DOUBLE, workers=1)
    two = extract(many, tmp_path / "two", DOUBLE, workers=2)
    assert len(shards(tmp_path / "two")) == 2, "one worker did it all"
    assert (one.made, one.missing, one.unreadable) == (two.made, two.missing, two.unreadable) == (54, 9, 9)
    assert one.failures == two.failures
    names = [clip for clip, _ in many if clip.startswith("good")]
    arrays = [Features(tmp_path / folder).read_kind("double", names) for folder in ("one", "two")]
    for first, second in zip(*arrays, strict=True):
        np.testing.assert_array_equal(first, second)


def test_settings_out_of_range_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)backend is 'slurm'.*workers is 0.*limit is -1.*shard_size is 0"):
        extract([], tmp_path, DOUBLE, workers=0, limit=-1, shard_size=0, backend="slurm")
    with pytest.raises(ValueError, match="address"):
        extract([], tmp_path, DOUBLE, address="tcp://host:1")
    assert extract([], tmp_path, DOUBLE).made == 0


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_stops_the_job_and_leaves_whole_shards(good: Clips, tmp_path: Path) -> None:
    big = Extractor(("big",), twelve_times, RATE)
    with file_size_limit(1_070_000), pytest.raises(StoreError, match=r"big-00000\d\.tar: cannot be written"):
        extract(good, tmp_path, big, shard_size=5)  # shards of 1,016, 1,136 and 490 kB
    assert len(stored(tmp_path)) == 5
    assert not list((tmp_path / "features").glob(".*.tmp"))
    report = extract(good, tmp_path, big, shard_size=5)
    assert (report.made, report.skipped) == (7, 5)
    assert set(stored(tmp_path).values()) == {1}


def test_a_full_disk_is_named(good: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="free some space"):
            extract(good, tmp_path, DOUBLE)
    assert extract(good, tmp_path, DOUBLE).made == len(good)


def test_a_second_job_on_the_same_folder_refuses(good: Clips, tmp_path: Path) -> None:
    with writing(tmp_path / "features", "another job"), pytest.raises(StoreError, match="another job"):
        extract(good, tmp_path, DOUBLE)
    assert extract(good, tmp_path, DOUBLE).made == len(good)


def test_a_new_job_sweeps_what_a_killed_one_left(good: Clips, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / ".double-000001.4711.tmp").write_bytes(b"half a shard")
    extract(good, tmp_path, DOUBLE)
    assert not list((tmp_path / "features").glob(".*.tmp"))


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
    clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    targets = [("absent", "absent.wav"), *((clip, path.name) for clip, path in clips[:3] * 2)]
    write_manifest(tmp_path, targets)
    with caplog.at_level("INFO"):
        assert extraction.main([str(tmp_path), "--half", "--shard-size", "2"]) == 0
    assert "3 made, 0 skipped, 1 missing audio, 0 unreadable, 0 left" in caplog.text
    assert "1 missing: no such audio file (such as absent)" in caplog.text
    assert str(tmp_path / "features" / "failures-mel.csv") in caplog.text
    assert stored(tmp_path) == Counter((clip, "mel") for clip, _ in clips[:3])
    assert len(shards(tmp_path)) == 2
    assert Features(tmp_path).read(["mel/good0.npy"])[0].dtype == np.float16
    ordered = read_manifest(tmp_path / "gpt_pairs_train_mel.jsonl")
    assert ordered.strings("target_id").to_pylist() == [*(clip for clip, _ in clips[:3] * 2), "absent"]
    assert ordered.numbers("target_mel_len").min() == -1 < ordered.numbers("target_mel_len").max()


def test_command_line_fails_on_unreadable_audio_but_not_on_missing(
    clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_manifest(tmp_path, [("absent", "absent.wav")])
    assert extraction.main([str(tmp_path)]) == 0
    (tmp_path / "gpt_pairs_train_mel.jsonl").unlink()
    write_manifest(tmp_path, [("text", "text.wav")])
    with caplog.at_level("INFO"):
        assert extraction.main([str(tmp_path)]) == 1
    assert "1 unreadable" in caplog.text
    assert "such as text" in caplog.text


def test_command_line_says_how_to_go_on_after_an_error(
    clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_manifest(tmp_path, [("good0", "good0.wav")])
    with writing(tmp_path / "features", "another job"):
        assert extraction.main([str(tmp_path)]) == 1
    assert "another job" in caplog.text
    assert "the same command goes on" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_leaves_finished_shards_and_says_how_to_go_on(
    good: Clips,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: signal.Signals,
) -> None:
    write_manifest(tmp_path, [(clip, path.name) for clip, path in good])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    with monkeypatch.context() as patch:
        patch.setattr(ClipMel, "__call__", slowly(ClipMel.__call__))
        stopper = threading.Thread(target=signal_in_second_shard, args=(tmp_path, number))
        stopper.start()
        try:
            assert extraction.main([str(tmp_path), "--shard-size", "2"]) == 130
        finally:
            stopper.join()
            signal.signal(signal.SIGINT, before)
    assert "the same command goes on" in caplog.text
    made = len(stored(tmp_path))
    assert 2 <= made < len(good)
    assert not list((tmp_path / "features").glob(".*.tmp"))
    assert extraction.main([str(tmp_path)]) == 0
    assert stored(tmp_path) == Counter((clip, "mel") for clip, _ in good)


def slowly(compute: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def wrapped(*arguments: object) -> np.ndarray:
        time.sleep(0.1)
        return compute(*arguments)

    return wrapped


def signal_in_second_shard(data: Path, number: signal.Signals) -> None:
    until = time.monotonic() + 60
    while not list((data / "features").glob(".mel-000002.*.tmp")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(os.getpid(), number)


def test_bad_manifest_lines_are_reported_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_manifest(tmp_path, [("a", "../a.wav"), ("b", "b.wav")])
    with (tmp_path / "gpt_pairs_train.jsonl").open("a", encoding="utf-8") as out:
        out.write("{broken\n{}\n")
    assert extraction.main([str(tmp_path)]) == 1
    assert re.search(r"(?s)jsonl:3: .*jsonl:4: no field 'id'", caplog.text)
    write_manifest(tmp_path, [("a", "../a.wav"), ("b", "/b.wav")])
    assert extraction.main([str(tmp_path)]) == 1
    assert re.search(r"(?s)jsonl:1: target_audio_path.*jsonl:2: target_audio_path", caplog.text)
    assert not (tmp_path / "features").exists()


def test_audio_beside_the_data_folder_is_read_where_that_is_allowed(
    good: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    (tmp_path / "audio").mkdir()
    good[0][1].rename(tmp_path / "audio" / "x.wav")
    write_manifest(data, [("good0", "../audio/x.wav")])
    assert extraction.main([str(data)]) == 1
    assert not (data / "features").exists()
    with caplog.at_level("INFO"):
        assert extraction.main([str(data), "--allow-outside-paths"]) == 0
    assert "1 made, 0 skipped, 0 missing audio" in caplog.text
    [found] = Features(data).read(["mel/good0.npy"])
    np.testing.assert_array_equal(found, indextts2_mel().of_clip(audio.read(tmp_path / "audio" / "x.wav")[0]))
    ordered = read_manifest(data / "gpt_pairs_train_mel.jsonl", allow_outside=True)
    assert ordered.numbers("target_mel_len").tolist() == [len(found)]


def test_a_job_that_succeeds_beside_damaged_shards_says_so_and_fails(
    good: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_manifest(tmp_path, [(clip, path.name) for clip, path in good[:2]])
    assert extraction.main([str(tmp_path), "--shard-size", "1"]) == 0
    damaged = tmp_path / "features" / shards(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:700])
    write_manifest(tmp_path, [(clip, path.name) for clip, path in good[2:4]])
    (tmp_path / "gpt_pairs_train_mel.jsonl").unlink()
    with caplog.at_level("INFO"):
        assert extraction.main([str(tmp_path)]) == 1
    assert "2 made" in caplog.text
    assert str(damaged) in caplog.text


def test_only_the_training_manifest_is_put_in_order(tmp_path: Path) -> None:
    """Validation pairs must not become the mel manifest that training reads."""
    write_manifest(tmp_path, [("absent", "absent.wav")])
    (tmp_path / "gpt_pairs_train.jsonl").rename(tmp_path / "gpt_pairs_val.jsonl")
    assert extraction.main([str(tmp_path), "--manifest", "gpt_pairs_val.jsonl"]) == 0
    assert not (tmp_path / "gpt_pairs_train_mel.jsonl").exists()


def test_a_manifest_without_audio_paths_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_manifest(tmp_path, [("a", "a.wav")])
    path = tmp_path / "gpt_pairs_train.jsonl"
    row = json.loads(path.read_text())
    del row["target_audio_path"]
    path.write_text(json.dumps(row) + "\n")
    assert extraction.main([str(tmp_path)]) == 1
    assert "no target_audio_path, in 1 rows" in caplog.text
