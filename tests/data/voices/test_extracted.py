from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tts_kernel.data.corpora import CorpusError
from tts_kernel.data.voices import extracted
from tts_kernel.data.voices.extracted import Extracted, claimed, content_of, keep_parts, read_parts


class Level:
    """An extractor that is known by the number it gives."""

    def __init__(self, level: float) -> None:
        self.level = level

    def tokens(self, wav: np.ndarray, rate: int) -> np.ndarray:
        return np.arange(len(wav) * 25 // rate)

    def embedding(self, wav: np.ndarray, rate: int) -> np.ndarray:
        return np.full(192, self.level, np.float32)


def clip(number: int, reason: str = "") -> Extracted:
    embedding = np.random.default_rng(number).standard_normal(192).astype(np.float32)
    return Extracted(f"clip{number}", f"digest{number}", np.arange(number), embedding, reason)


def kept(work: Path, clips: list[Extracted], extractor: Level) -> None:
    known = read_parts(work, extractor)
    assert list(keep_parts(work, clips, known)) == clips


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(extracted, "PART", 2)
    return tmp_path


def test_what_is_kept_is_read_again_exactly_and_what_gave_nothing_is_not_kept(work: Path) -> None:
    kept(work, [clip(3), clip(4, "no features"), clip(5), clip(6)], Level(1.0))
    found = read_parts(work, Level(1.0))
    assert list(found) == ["clip3", "clip5", "clip6"]
    for number in (3, 5, 6):
        mine, read = clip(number), found[f"clip{number}"]
        assert (read.name, read.content) == (mine.name, mine.content)
        assert np.array_equal(read.tokens, mine.tokens)
        assert np.array_equal(read.embedding, mine.embedding)


def test_only_what_is_new_is_written(work: Path) -> None:
    kept(work, [clip(1), clip(2)], Level(1.0))
    known = read_parts(work, Level(1.0))
    changed = Extracted("clip2", "other digest", np.arange(9), known["clip2"].embedding)
    assert len(list(keep_parts(work, [known["clip1"], changed], known))) == 2
    assert len(list(work.glob("part_*.parquet"))) == 2
    assert read_parts(work, Level(1.0))["clip2"].content == "other digest"


def test_a_loop_that_is_left_early_keeps_what_it_has_seen(work: Path) -> None:
    known = read_parts(work, Level(1.0))
    for each in keep_parts(work, iter([clip(1), clip(2), clip(3), clip(4)]), known):
        if each.name == "clip3":
            break
    assert list(read_parts(work, Level(1.0))) == ["clip1", "clip2", "clip3"]


@pytest.mark.parametrize("other", [1.0001, 1.1])
def test_nothing_of_another_extractor_is_taken_and_noise_of_a_gpu_is_no_other_extractor(
    work: Path, other: float
) -> None:
    kept(work, [clip(1), clip(2)], Level(1.0))
    assert len(read_parts(work, Level(other))) == (2 if other < 1.01 else 0)
    assert len(read_parts(work, Level(1.0))) == (2 if other < 1.01 else 0)


def test_a_torn_part_is_not_taken_for_whole(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept(work, [clip(1), clip(2), clip(3), clip(4)], Level(1.0))
    part = work / "part_000000000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    (work / ".part_000000002.parquet.17").write_bytes(b"PAR1")
    assert list(read_parts(work, Level(1.0))) == ["clip3", "clip4"]
    assert "part_000000000.parquet: damaged" in caplog.text
    assert not part.exists()


def test_one_process_at_a_time_prepares_a_folder(tmp_path: Path) -> None:
    with claimed(tmp_path / "voice"):
        with claimed(tmp_path / "other"):
            pass
        with (
            pytest.raises(CorpusError, match="voice: another process is preparing it"),
            claimed(tmp_path / "voice"),
        ):
            pass
    with claimed(tmp_path / "voice") as work:
        assert work.is_dir()


def test_only_what_dead_processes_left_of_this_folder_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extracted, "_is_running", lambda process: process == 2)
    names = [".voice.1.partial", ".voice.1.unpacked", ".voice.2.partial", ".voices.1.partial", ".voice.x.partial"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard").touch()
    with claimed(tmp_path / "voice"):
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {*names[2:], ".voice.extracted"}


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    for name, content in (("a", b"sound"), ("b", b"sound"), ("c", b"Sound")):
        (tmp_path / name).write_bytes(content)
    assert content_of(tmp_path / "a") == content_of(tmp_path / "b") != content_of(tmp_path / "c")
