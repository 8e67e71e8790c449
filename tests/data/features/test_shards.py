from __future__ import annotations

import errno
import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections import UserDict
from pathlib import Path

import numpy as np
import pytest

from tests.data.features.stored import assert_same, files_end_at, write_shard
from tts_kernel.data.features import FeatureError, Features
from tts_kernel.data.features.folder_lock import StoreError
from tts_kernel.data.features.shards import ShardWriter, index_path, read_index
from tts_kernel.data.files import UnsafePathError

MEL = np.arange(12, dtype=np.float32).reshape(4, 3)
ARRAYS = {
    "mel/a": MEL,
    "codes/a": np.arange(5),
    "mel/a.b": MEL + 1,  # a dot, which ends a name in WebDataset
    "mel/100%.2E": MEL + 2,
    "mel/speaker/clip": MEL + 3,
    "mel/긴 이름": MEL + 4,
    f"mel/{'n' * 92}": MEL + 5,  # with its ending the longest name that the header holds
    f"mel/{'n' * 93}": MEL + 6,
    f"mel/{'이름' * 200}": MEL + 7,
    "flags/a": np.array([True, False]),
    "one/a": np.float32(3),
    "none/a": np.zeros((0, 80), dtype=np.float32),
    "small/a": np.array([1, 2], dtype=np.uint8),
    "turned/a": np.asfortranarray(MEL),
    "strided/a": MEL[::2, ::-1],
    "double/a": np.arange(3.0),
    "cube/a": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "features"


class Calls(UserDict[str, np.ndarray]):
    """Arrays that are made when they are wanted."""

    def __getitem__(self, key: str) -> np.ndarray:
        return self.data[key]()  # type: ignore[operator]


def files(folder: Path) -> list[str]:
    """What is in the folder, locks and the merged index apart."""
    return sorted(path.name for path in folder.iterdir() if path.name not in (".workers", ".job", ".index"))


@pytest.mark.parametrize("path", ARRAYS)
def test_every_name_dtype_and_shape_comes_back(folder: Path, path: str) -> None:
    write_shard(folder, "a", ARRAYS)
    (found,) = Features(folder.parent).read([f"{path}.npy"])
    assert_same(found, np.asarray(ARRAYS[path]))


def test_other_byte_orders_are_stored_as_little_endian(folder: Path) -> None:
    write_shard(folder, "a", {"mel/a": MEL.astype(">f4")})
    assert_same(Features(folder.parent).read(["mel/a.npy"])[0], MEL)


def test_a_shard_is_a_tar_of_npy_files_in_the_order_they_were_added(folder: Path) -> None:
    tar = write_shard(folder, "a", ARRAYS)
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
        held = [np.load(io.BytesIO(archive.extractfile(member).read())) for member in members]  # type: ignore[union-attr]
    assert len(members) == len(ARRAYS)
    for array, expected in zip(held, ARRAYS.values(), strict=True):
        assert_same(array, np.asarray(expected))
    system = subprocess.run(["tar", "-tf", tar], capture_output=True, text=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert len(system.stdout.splitlines()) == len(ARRAYS)
    assert not system.stderr


def test_split_at_the_first_dot_a_member_gives_its_clip_and_its_kind(folder: Path) -> None:
    """How WebDataset groups the files of a sample."""
    tar = write_shard(folder, "a", ARRAYS)
    with ShardWriter(folder, "b") as shard:
        shard.add("clip", "features.v2/mel", MEL)
    names: list[str] = []
    for path in (tar, folder / "b.tar"):
        with tarfile.open(path) as archive:
            names += archive.getnames()

    def plain(text: str) -> str:
        return re.sub("%(..)", lambda found: chr(int(found[1], 16)), text)

    found = set()
    for name in names:
        head, _, base = name.rpartition("/")
        clip, _, ending = base.partition(".")
        kind, _, suffix = ending.rpartition(".")
        assert suffix == "npy"
        found.add(f"{plain(kind)}/{plain(f'{head}/{clip}'.lstrip('/'))}")
    assert found == set(ARRAYS) | {"features.v2/mel/clip"}


def test_values_are_aligned_for_vector_instructions(folder: Path) -> None:
    table, _ = read_index(index_path(write_shard(folder, "a", ARRAYS)))
    assert (table["offset"].to_numpy() % 64 == 0).all()


def test_only_floating_point_values_of_the_named_kinds_become_float16(folder: Path) -> None:
    write_shard(folder, "a", {"mel/a": MEL, "condition/a": MEL, "codes/a": np.arange(3)}, half=("mel", "codes"))
    mel, condition, codes = Features(folder.parent).read(["mel/a.npy", "condition/a.npy", "codes/a.npy"])
    assert (mel.dtype, condition.dtype, codes.dtype) == (np.float16, np.float32, np.int64)
    np.testing.assert_array_equal(mel, MEL)


@pytest.mark.parametrize("value", [65520.0, -1e9])
def test_a_value_beyond_float16_is_refused_with_its_clip(folder: Path, value: float) -> None:
    with ShardWriter(folder, "a", half=("mel",)) as shard:
        with pytest.raises(FeatureError, match=r"mel/loud: 1 of 2 values lie beyond 65504"):
            shard.add("loud", "mel", np.array([0.0, value]))
        shard.add("fine", "mel", np.array([65504.0, np.inf]))  # infinity is what it was: the loader refuses it
    features = Features(folder.parent)
    assert not features.has(["mel/loud.npy"]).any()
    np.testing.assert_array_equal(features.read(["mel/fine.npy"])[0], [65504.0, np.inf])


@pytest.mark.parametrize("clip", ["", "../a", "/a", "a/../b", "a\\b", "C:/a", "a\nb", "a/", "a//b", "./a", "\udc80"])
def test_a_clip_that_is_no_plain_path_below_its_kind_is_refused(folder: Path, clip: str) -> None:
    with ShardWriter(folder, "a") as shard:
        with pytest.raises((UnsafePathError, FeatureError)):
            shard.add(clip, "mel", MEL)
        with pytest.raises((UnsafePathError, FeatureError)):
            shard.add("a", clip, MEL)


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "index-1", "a b"])
def test_a_shard_whose_name_is_no_plain_word_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(StoreError, match="no name for a shard"):
        ShardWriter(folder, name)


def test_what_is_no_array_of_numbers_is_refused(folder: Path) -> None:
    with ShardWriter(folder, "a") as shard:
        for array in (np.array([None]), np.array(["text"]), np.array([1j])):
            with pytest.raises(FeatureError, match=r"mel/a: holds .*, expected numbers"):
                shard.add("a", "mel", array)


def test_a_clip_is_taken_once_per_kind(folder: Path) -> None:
    with ShardWriter(folder, "a") as shard:
        shard.add("a", "mel", MEL)
        shard.add("a", "codes", MEL)
        with pytest.raises(FeatureError, match="mel/a: added twice"):
            shard.add("a", "mel", MEL)
    assert len(shard) == 2


def test_nothing_is_left_of_a_shard_whose_block_raises(folder: Path) -> None:
    def stop() -> np.ndarray:
        raise KeyError

    with pytest.raises(KeyError):
        write_shard(folder, "a", Calls({"mel/a": lambda: MEL, "mel/b": stop}))
    assert files(folder) == []


def test_an_empty_shard_is_not_written(folder: Path) -> None:
    with ShardWriter(folder, "a"):
        pass
    assert files(folder) == []


def test_a_name_that_is_taken_is_refused_and_the_shard_stays(folder: Path) -> None:
    write_shard(folder, "a", {"mel/a": MEL})
    with pytest.raises(StoreError, match="exists; shards are only ever added"), ShardWriter(folder, "a"):
        pass


def test_of_two_writers_of_one_name_the_second_to_finish_is_refused(folder: Path) -> None:
    def other() -> np.ndarray:
        write_shard(folder, "a", {"mel/first": MEL})
        return MEL

    with pytest.raises(StoreError, match="exists; shards are only ever added"):
        write_shard(folder, "a", Calls({"mel/second": other}))
    assert files(folder) == ["a.arrow", "a.tar"]
    assert Features(folder.parent).has(["mel/first.npy", "mel/second.npy"]).tolist() == [True, False]


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from tts_kernel.data.features import shards
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "index": shards.write_index = die
with shards.ShardWriter(Path(sys.argv[1]), "killed") as shard:
    for number in range(2000): shard.add(str(number), "mel", np.zeros((10, 80)))
    if sys.argv[2] == "writing": die()
"""


@pytest.mark.parametrize(("moment", "left"), [("writing", r"\.killed\.\d+\.tmp"), ("index", r"killed\.tar")])
def test_a_killed_writer_leaves_nothing_that_can_be_read(folder: Path, moment: str, left: str) -> None:
    write_shard(folder, "a", {"mel/a": MEL})
    process = subprocess.run([sys.executable, "-c", KILLED, folder, moment], check=False)
    assert process.returncode == -signal.SIGKILL
    assert any(re.fullmatch(left, name) for name in files(folder)), "it left nothing, so the rest proves nothing"
    features = Features(folder.parent)
    assert len(features.lengths("mel")) == 1
    write_shard(folder, "killed", {"mel/b": MEL})  # its name is free
    features.refresh()
    assert len(features.lengths("mel")) == 2


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(folder: Path) -> None:
    write_shard(folder, "a", {"mel/a": MEL})
    big = {f"mel/{number}": np.zeros(200_000, dtype=np.float32) for number in range(5)}
    with files_end_at(1 << 20), pytest.raises(StoreError, match=r"b\.tar: cannot be written"):
        write_shard(folder, "b", big)
    assert files(folder) == ["a.arrow", "a.tar"]
    assert len(Features(folder.parent).lengths("mel")) == 1


@pytest.mark.parametrize("moment", [0, 1])
def test_no_space_for_the_end_of_a_shard_or_its_index_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    calls = iter(range(9))
    real = os.fsync

    def full(handle: int) -> None:
        if next(calls) == moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device.*free some space"):
        write_shard(folder, "a", {"mel/a": MEL})
    assert files(folder) == []


def test_a_failed_write_that_the_caller_ignored_is_not_published(folder: Path) -> None:
    shard = ShardWriter(folder, "a").__enter__()
    shard.add("a", "mel", MEL)
    with files_end_at(1 << 16), pytest.raises(StoreError, match="cannot be written"):
        shard.add("b", "mel", np.zeros(1_000_000))
    shard.add("c", "mel", MEL)  # there is space again
    with pytest.raises(StoreError, match="not finished, as writing to it failed before"):
        shard.__exit__(None, None, None)
    assert files(folder) == []


def test_a_worker_whose_job_has_died_publishes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Parent:
        alive = True

        def is_alive(self) -> bool:
            return self.alive

    monkeypatch.setattr(multiprocessing, "parent_process", Parent)
    write_shard(folder, "a", {"mel/a": MEL})
    monkeypatch.setattr(Parent, "alive", False)
    with pytest.raises(StoreError, match="the job that started this worker has died"):
        write_shard(folder, "b", {"mel/b": MEL})
    assert files(folder) == ["a.arrow", "a.tar"]


@pytest.mark.parametrize("damage", [b"", b"garbage" * 50, "cut"])
def test_an_index_that_is_damaged_is_named(folder: Path, damage: bytes | str) -> None:
    path = index_path(write_shard(folder, "a", {"mel/a": MEL}))
    path.write_bytes(path.read_bytes()[:-200] if isinstance(damage, str) else damage)
    with pytest.raises(StoreError, match=r"a\.arrow: not the index of a shard"):
        read_index(path)


def test_no_damaged_byte_of_an_index_ends_the_process(folder: Path) -> None:
    """It is refused or read, but nothing outside the file is looked at."""
    path = index_path(write_shard(folder, "a", {f"mel/{number}": MEL for number in range(20)}))
    whole, refused = path.read_bytes(), 0
    for place in np.random.default_rng(0).integers(0, len(whole), 300).tolist():
        data = bytearray(whole)
        data[place] ^= 0xFF
        path.write_bytes(data)
        try:
            table, shards = read_index(path)
            assert {row["shard"] for row in table.to_pylist()} <= set(range(len(shards)))
        except StoreError:
            refused += 1
    assert 20 < refused < 300
