"""Kept spectrograms: found again by whom they belong to, never by another recording or other settings."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.tiny_spoken import tone
from tts_kernel.audio.spectrogram import LogMel, melotts_mel
from tts_kernel.data.features import FeatureError
from tts_kernel.data.spoken import Clips, Spectrograms, spectrograms
from tts_kernel.data.spoken.clips import HOP
from tts_kernel.data.spoken.sounds import Sound, digest_of, measure, waveform


def clips_in(folder: Path, count: int = 3) -> Clips:
    """Tones of different lengths."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.wav" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            soundfile.write(path, tone(0.3 + 0.1 * number, 44_100), 44_100)
    waves = [waveform(path) for path in paths]
    names = [path.stem for path in paths]
    frames = np.array([len(wave) // HOP for wave in waves])
    digests = [digest_of(wave) for wave in waves]
    return Clips(folder / "train_list.txt", names, paths, names, names, digests, frames // 4, frames, {})


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return clips_in(tmp_path / "wavs")


@pytest.fixture
def kept(tmp_path: Path, clips: Clips) -> Spectrograms:
    made = Spectrograms(tmp_path / "kept")
    assert made.fill(clips, progress=False).added == 3
    return made


def refuse(*_: object) -> None:
    raise AssertionError("computed again")


def test_a_stored_spectrogram_is_that_of_its_waveform(kept: Spectrograms, clips: Clips) -> None:
    for row in range(len(clips)):
        wave = clips.wave(row)
        expected = melotts_mel().magnitudes(torch.from_numpy(wave)[None])[0]
        assert torch.equal(kept.of(wave, clips.digests[row]), expected)


def test_neither_a_second_epoch_nor_a_second_run_computes_any(
    kept: Spectrograms, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogMel, "magnitudes", refuse)
    again = Spectrograms(kept.folder)
    filled = again.fill(clips, progress=False)
    assert (filled.there, filled.added, filled.left_out) == (3, 0, 0)
    in_worker: Spectrograms = pickle.loads(pickle.dumps(again))
    for one in (kept, again, in_worker):
        assert one.of(clips.wave(0), clips.digests[0]).shape == (1025, clips.frames[0])


def test_a_recording_that_changed_finds_no_old_one(kept: Spectrograms, clips: Clips) -> None:
    path = clips.paths[1]
    stamp = path.stat()
    soundfile.write(path, tone(0.4, 44_100, hertz=330.0), 44_100)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size, "the case is one of equal size and time"
    with pytest.raises(FeatureError, match=r"1\.wav: .*not those of when the run began"):
        clips.wave(1)
    changed = clips_in(path.parent)
    assert kept.name(changed.digests[1]) != kept.name(clips.digests[1])
    filled = kept.fill(changed, progress=False)
    assert (filled.there, filled.added) == (2, 1)
    wave = changed.wave(1)
    expected = melotts_mel().magnitudes(torch.from_numpy(wave)[None])[0]
    assert torch.equal(kept.of(wave, changed.digests[1]), expected)


def test_a_rewritten_recording_is_measured_anew_and_an_untouched_one_is_not(
    tmp_path: Path, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "recordings.json"
    before = measure(clips.paths, known, progress=False)
    soundfile.write(clips.paths[1], tone(0.4, 44_100, hertz=330.0), 44_100)
    after = measure(clips.paths, known, progress=False)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    monkeypatch.setattr("tts_kernel.data.spoken.sounds.waveform", refuse)
    again = measure(clips.paths, known, progress=False)
    assert again == after
    assert all(isinstance(sound, Sound) for sound in again)


@pytest.mark.parametrize("changes", [{"n_fft": 1024}, {"hop_length": 256}, {"guard": 1e-9}, {"sample_rate": 48_000}])
def test_other_settings_find_no_old_one(kept: Spectrograms, clips: Clips, changes: dict[str, float]) -> None:
    values = {"sample_rate": 44_100, "n_fft": 2048, "hop_length": 512, "n_mels": 128, "guard": 1e-6, **changes}
    other = Spectrograms(kept.folder, mel=LogMel(**values))  # type: ignore[arg-type]
    assert {other.name(digest) for digest in clips.digests}.isdisjoint(kept.name(digest) for digest in clips.digests)
    found = other.of(clips.wave(0), clips.digests[0])
    assert torch.equal(found, other.mel.magnitudes(torch.from_numpy(clips.wave(0))[None])[0])


def test_beyond_the_limit_nothing_is_kept_and_that_is_told(tmp_path: Path, clips: Clips) -> None:
    two = 1025 * 4 * int(clips.frames[:2].sum())
    small = Spectrograms(tmp_path / "small", gigabytes=(two + 1) / 1e9)
    filled = small.fill(clips, progress=False)
    assert (filled.added, filled.left_out) == (2, 1)
    assert small.used() == two
    assert "1 are computed anew in every epoch" in str(filled)
    again = small.fill(clips, progress=False)
    assert (again.there, again.added, again.left_out) == (2, 0, 1)
    wave = clips.wave(2)
    assert torch.equal(small.of(wave, clips.digests[2]), small.computed(wave))


def test_equal_recordings_are_kept_once(tmp_path: Path, clips: Clips) -> None:
    clips.paths[1].write_bytes(clips.paths[0].read_bytes())
    assert Spectrograms(tmp_path / "kept").fill(clips_in(clips.paths[0].parent), progress=False).added == 2


def test_a_kill_costs_the_shard_that_was_being_written(
    tmp_path: Path, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectrograms, "SHARD", 1)  # one each
    made, count = Spectrograms(tmp_path / "kept"), 0
    computed = Spectrograms.computed

    def twice(self: Spectrograms, wave: np.ndarray) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return computed(self, wave)

    monkeypatch.setattr(Spectrograms, "computed", twice)
    with pytest.raises(KeyboardInterrupt):
        made.fill(clips, progress=False)
    monkeypatch.setattr(Spectrograms, "computed", computed)
    filled = Spectrograms(made.folder).fill(clips, progress=False)
    assert (filled.there, filled.added) == (2, 1)


class Slow(Spectrograms):
    """Never comes to an end."""

    def computed(self, wave: np.ndarray) -> torch.Tensor:
        (self.folder / "begun").touch()
        time.sleep(60.0)
        return super().computed(wave)


def test_what_a_killed_process_left_is_removed_and_filled_again(tmp_path: Path, clips: Clips) -> None:
    made, slow = Spectrograms(tmp_path / "kept"), Slow(tmp_path / "kept")
    child = multiprocessing.get_context("fork").Process(target=slow.fill, args=(clips,), kwargs={"progress": False})
    child.start()
    try:
        until = time.monotonic() + 60.0
        while not (made.folder / "begun").exists() and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        child.kill()
        child.join()
    shards = made.folder / "features"
    assert list(shards.glob(".spectrogram-*.tmp")), "the child was killed while it wrote"
    assert made.fill(clips, progress=False).added == 3
    assert not list(shards.glob(".spectrogram-*.tmp"))


def test_a_damaged_shard_is_computed_around(kept: Spectrograms, clips: Clips, caplog: pytest.LogCaptureFixture) -> None:
    (shard,) = (kept.folder / "features").glob("*.tar")
    shard.write_bytes(bytes(shard.stat().st_size))
    again = Spectrograms(kept.folder)
    wave = clips.wave(0)
    assert torch.equal(again.of(wave, clips.digests[0]), again.computed(wave))
    assert "computed anew" in caplog.text
