from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.features.stored import edit_index, save_all, write_shard
from tts_kernel.data.features.commands import main
from tts_kernel.data.features.features import FOLDER, Features
from tts_kernel.data.features.shard_check import CheckReport, check
from tts_kernel.data.features.shards import index_path


def mel(value: float, frames: int = 4) -> np.ndarray:
    return np.full((frames, 3), value, dtype=np.float32)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards with six arrays, and two files."""
    monkeypatch.setenv("TTS_KERNEL_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    for shard in "st":
        arrays = {f"mel/{shard}{number}": mel(ord(shard) + number, number + 1) for number in range(3)}
        write_shard(root / FOLDER, shard, arrays)
    save_all(root, {"mel/f": mel(1), "codes/f": np.arange(3)})
    return root


def checked(root: Path) -> CheckReport:
    return check(root, root / FOLDER, ["mel", "codes"])


def test_a_folder_without_damage_has_none(root: Path) -> None:
    assert checked(root) == CheckReport(arrays=6, files=2, damaged=[], problems=[])
    assert len(Features(root).lengths("mel")) == 7


def test_every_array_whose_values_changed_is_named(root: Path) -> None:
    tar = root / FOLDER / "s.tar"
    data = bytearray(tar.read_bytes())
    for value in (ord("s"), ord("s") + 2):
        data[data.index(mel(value, 1).tobytes())] ^= 1
    tar.write_bytes(data)
    report = checked(root)
    assert [line.partition(":")[0] for line in report.damaged] == [f"mel/{clip} in {tar}" for clip in ("s0", "s2")]
    assert all("its checksum differs" in line for line in report.damaged)
    assert report.problems == []


def test_a_shard_that_was_cut_is_named_with_what_it_lost(root: Path) -> None:
    tar = root / FOLDER / "s.tar"
    size = tar.stat().st_size
    os.truncate(tar, 512 + 128 + 12 + 600)
    report = checked(root)
    assert report.problems == [f"{tar}: 1252 bytes, its index says {size}; it was cut, or replaced"]
    assert [line.partition(" in ")[0] for line in report.damaged] == ["mel/s1", "mel/s2"]
    os.truncate(tar, 0)
    assert "cannot be read" in " ".join(checked(root).problems)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("offset", [640, 640, 640], "another name is there"),
        ("frames", [9, 9, 9], "not [9, 3] of float32 there"),
        ("offset", [1 << 40] * 3, "the shard at"),
        ("offset", [-5] * 3, "another name is there"),
        ("crc", [1, 2, 3], "its checksum differs"),
    ],
)
def test_an_index_that_does_not_match_its_shard_is_named(
    root: Path, column: str, values: list[int], words: str
) -> None:
    edit_index(root / FOLDER / "t.tar", column, values)
    damaged = checked(root).damaged
    assert len(damaged) >= 2
    assert all(words in line and "t.tar" in line for line in damaged)


def test_what_belongs_together_and_is_not_there_is_named(root: Path) -> None:
    folder = root / FOLDER
    (folder / "s.tar").unlink()
    index_path(folder / "t.tar").unlink()
    write_shard(folder, "u", {"mel/u": mel(0)})
    index_path(folder / "u.tar").write_bytes(b"")
    report = checked(root)
    assert report.arrays == 3
    problems = "\n".join(report.problems)
    assert f"{folder / 's.tar'}: cannot be read" in problems
    assert f"{folder / 't.tar'}: has no index" in problems
    assert f"{folder / 'u.arrow'}: not the index of a shard" in problems
    assert len(report.problems) == 3


def test_damaged_files_are_named(root: Path) -> None:
    (root / "codes" / "f.npy").write_bytes(b"")
    report = checked(root)
    assert report.files == 1
    assert "codes/f.npy: not a readable .npy" in report.damaged[0]


def test_a_merged_index_that_lies_is_removed(root: Path) -> None:
    Features(root)
    (kind,) = (root / FOLDER / ".index").glob("mel-*")
    data = bytearray(kind.read_bytes())
    keys = Features(root)._index.kinds["mel"].keys.tobytes()
    data[data.index(keys) : data.index(keys) + len(keys)] = bytes(len(keys))
    kind.write_bytes(data)
    paths = [f"mel/s{number}.npy" for number in range(3)]
    assert not Features(root).has(paths).any()
    checked(root)
    assert Features(root).has(paths).all()


def test_the_commands_pack_check_and_compact(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert main(["pack", str(root), "--half", "--delete-source"]) == 0
    assert "2 packed, 0 skipped, 0 missing, 0 unreadable, 2 files deleted" in caplog.text
    assert Features(root).read(["mel/f.npy"])[0].dtype == np.float16
    assert main(["check", str(root)]) == 0
    assert "8 packed arrays and 0 .npy files checked: 0 damaged" in caplog.text
    assert main(["compact", str(root)]) == 0
    assert "3 indices, now 1" in caplog.text
    assert main(["check", str(root)]) == 0
    assert len(Features(root).lengths("mel")) == 7


def test_the_commands_tell_of_damage_and_fail(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(30):
        (root / "codes" / f"{number}.npy").write_bytes(b"")
    assert main(["pack", str(root)]) == 1
    assert caplog.text.count("not a readable .npy") == 20
    assert "and 10 more" in caplog.text
    caplog.clear()
    assert main(["check", str(root)]) == 1
    assert caplog.text.count("not a readable .npy") == 30
    assert main(["pack", str(root / "nothing")]) == 1
    assert "nothing: no such folder; expected a data folder" in caplog.text
    assert main(["compact", str(root / "nothing")]) == 1
    assert "no such folder" in caplog.text


def test_packing_beside_a_damaged_shard_names_it_and_fails(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    tar = root / FOLDER / "s.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    caplog.set_level(logging.INFO)
    assert main(["pack", str(root)]) == 1
    assert "2 packed, 0 skipped, 0 missing, 0 unreadable" in caplog.text
    assert str(tar) in caplog.text


def test_the_module_is_a_command(root: Path) -> None:
    command = [sys.executable, "-m", "tts_kernel.data.features", "check", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"TQDM_DISABLE": "1"})
    assert done.returncode == 0
    assert "6 packed arrays and 2 .npy files checked" in done.stderr
