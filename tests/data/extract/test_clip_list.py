from __future__ import annotations

import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from tests.data.extract.extracted import DOUBLE, Clips, noise_clips
from tts_kernel.data.extract import extract
from tts_kernel.data.features import Features
from tts_kernel.data.files import UnsafePathError


@pytest.fixture
def good(tmp_path: Path) -> Clips:
    return noise_clips(tmp_path)


def test_a_table_of_columns_and_relative_paths_do_as_well(good: Clips, tmp_path: Path) -> None:
    table = pa.table({"clip": [clip for clip, _ in good], "audio": [path.name for _, path in good]})
    report = extract(table, tmp_path / "data", DOUBLE, audio_root=tmp_path)
    assert report.made == len(good)
    with pytest.raises(ValueError, match="no column"):
        extract(table.drop_columns(["audio"]), tmp_path / "data", DOUBLE)
    with pytest.raises(ValueError, match="nulls"):
        extract(pa.table({"clip": ["a", None], "audio": ["a", "b"]}), tmp_path / "data", DOUBLE)


def test_a_clip_listed_twice_is_made_once_from_its_first_audio(good: Clips, tmp_path: Path) -> None:
    report = extract([*good[:2], ("good0", good[5][1])], tmp_path, DOUBLE)
    assert (report.made, report.skipped) == (2, 0)
    assert Features(tmp_path).lengths("double").to_pydict() == {"clip": ["good0", "good1"], "frames": [4_000, 4_100]}


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../up", "a/../../up", "/etc/x", "C:/x", "C:x", "\\\\host\\x", "a\\b", "a\0b", "a\nb"],
)
def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafePathError):
        extract([("good", tmp_path / "a.wav"), (name, tmp_path / "a.wav")], tmp_path, DOUBLE)


def test_a_name_with_two_spellings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 'a/b'"):
        extract([("a//b", tmp_path / "a.wav")], tmp_path, DOUBLE)


def test_memory_does_not_follow_the_number_of_clips(tmp_path: Path) -> None:
    rows = 100_000
    numbers = pa.array(range(rows)).cast(pa.string())
    table = pa.table({"clip": numbers, "audio": numbers})
    tracemalloc.start()
    try:
        report = extract(table, tmp_path, DOUBLE, limit=0)
        missing = extract(table.slice(0, rows // 4), tmp_path, DOUBLE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (report.left, missing.missing) == (rows, rows // 4)
    assert peak / rows < 100, "bytes of Python and NumPy objects per clip; a path alone takes more"
