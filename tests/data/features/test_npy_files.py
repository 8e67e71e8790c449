from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from tests.data.features.stored import assert_same, save_all
from tts_kernel.data.features import FeatureError, npy_files
from tts_kernel.data.features.npy_files import SHAPES, list_npy, npy_shapes, read_npy

MEL = np.arange(12, dtype=np.float32).reshape(4, 3)
ARRAYS = [MEL, MEL.T, np.arange(5), np.float32(2), np.zeros((0, 80)), MEL.astype(">f4"), np.array([True])]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_KERNEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mel").mkdir()
    return tmp_path / "mel"


def shapes(folder: Path, damaged: list[str] | None = None) -> dict[str, tuple[int, str]]:
    table = npy_shapes(folder, damaged)
    columns = (table[name].to_pylist() for name in ("clip", "frames", "layout"))
    return {clip: (frames, layout) for clip, frames, layout in zip(*columns, strict=True)}


@pytest.mark.parametrize("number", range(len(ARRAYS)))
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_an_array_of_any_format_is_what_numpy_reads(folder: Path, number: int, version: tuple[int, int]) -> None:
    path = folder / "a.npy"
    with path.open("wb") as out:
        np.lib.format.write_array(out, np.asarray(ARRAYS[number]), version=version)
    found = read_npy(path)
    assert_same(found, np.load(path))
    assert not found.flags.writeable
    assert shapes(folder)["a"][0] == (found.shape[0] if found.ndim else 1)


def damages() -> dict[str, bytes]:
    whole, objects = io.BytesIO(), io.BytesIO()
    np.save(whole, MEL)
    np.save(objects, np.array([{}]), allow_pickle=True)
    data = whole.getvalue()
    return {
        "empty": b"",
        "short": data[:5],
        "no header": data[:60],
        "no values": data[:128],
        "cut": data[:-1],
        "other magic": b"\x93NUMPX" + data[6:],
        "other version": data[:6] + b"\x09" + data[7:],
        "no dictionary": data[:10] + b"!" * 117 + b"\n" + data[128:],
        "text": b"just some text, longer than a header would be" * 5,
        "archive": b"PK\x03\x04" + data,
        "objects": objects.getvalue(),
    }


@pytest.mark.parametrize("name", damages())
def test_a_damaged_file_is_named_whether_it_is_read_or_measured(folder: Path, name: str) -> None:
    np.save(folder / "fine.npy", MEL)
    (folder / "bad.npy").write_bytes(damages()[name])
    for read in (lambda: read_npy(folder / "bad.npy"), lambda: npy_shapes(folder)):
        with pytest.raises(FeatureError, match=r"mel/bad\.npy: not a readable \.npy"):
            read()
    damaged: list[str] = []
    assert shapes(folder, damaged) == {"fine": (4, "<f4 *,3")}
    assert len(damaged) == 1
    assert "bad.npy" in damaged[0]


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(FeatureError, match=r"mel/a\.npy: does not exist; extract it"):
        read_npy(folder / "a.npy")


def test_a_folder_is_listed_with_the_folders_in_it_and_without_hidden_files(folder: Path) -> None:
    save_all(folder, {"a": MEL, "speaker/b": MEL, "x/y/z": MEL, ".hidden": MEL, ".git/c": MEL})
    (folder / "notes.txt").touch()
    assert sorted(list_npy(folder).clips.to_pylist()) == ["a", "speaker/b", "x/y/z"]


def test_links_are_followed_and_their_loops_end(folder: Path) -> None:
    save_all(folder, {"a": MEL, "below/b": MEL})
    save_all(folder.parent / "elsewhere", {"c": MEL})
    (folder / "loop").symlink_to(folder)
    (folder / "below" / "up").symlink_to("..")
    (folder / "self").symlink_to("self")
    (folder / "other").symlink_to(folder.parent / "elsewhere")
    assert sorted(list_npy(folder).clips.to_pylist()) == ["a", "below/b", "other/c"]


def test_names_that_are_not_unicode_and_links_to_nowhere_are_reported(folder: Path) -> None:
    np.save(folder / "a.npy", MEL)
    (folder / "gone.npy").symlink_to("nowhere")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xb0\xa1.npy")).write_bytes((folder / "a.npy").read_bytes())
    files = list_npy(folder)
    assert files.clips.to_pylist() == ["a"]
    assert any("gone.npy: No such file" in problem for problem in files.problems)
    assert any(r"\xb0\xa1.npy': the name is not valid Unicode" in problem for problem in files.problems)
    assert len(files.problems) == 2


def test_shapes_are_those_of_the_arrays(folder: Path) -> None:
    arrays = {str(number): np.asarray(array) for number, array in enumerate(ARRAYS)}
    save_all(folder, arrays)
    expected = {"0": (4, "<f4 *,3"), "1": (3, "<f4 *,4"), "2": (5, "<i8 *"), "3": (1, "<f4"), "4": (0, "<f8 *,80")}
    assert shapes(folder) == expected | {"5": (4, ">f4 *,3"), "6": (1, "|b1 *")}


def test_only_headers_of_new_and_changed_files_are_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_all(folder, {str(number): np.zeros((number, 2)) for number in range(1, 9)})
    shapes(folder)
    looked: list[str] = []
    real = npy_files._shape
    monkeypatch.setattr(npy_files, "_shape", lambda path, size: (looked.append(path.stem), real(path, size))[1])
    before = shapes(folder)
    assert looked == []
    np.save(folder / "3.npy", np.zeros((9, 2)))  # another size
    np.save(folder / "new.npy", np.zeros((5, 2)))
    (folder / "1.npy").unlink()
    changed = folder / "4.npy"
    np.save(changed, np.zeros((4, 2), dtype=np.int64))  # the same size
    os.utime(changed, ns=(0, changed.stat().st_mtime_ns + 1))
    after = shapes(folder)
    assert sorted(looked) == ["3", "4", "new"]
    assert after == {k: v for k, v in before.items() if k != "1"} | {
        "3": (9, "<f8 *,2"),
        "4": (4, "<i8 *,2"),
        "new": (5, "<f8 *,2"),
    }
    looked.clear()
    assert shapes(folder) == after
    assert looked == []


@pytest.mark.parametrize("damage", [b"", b"no arrow file at all", "cut"])
def test_a_damaged_memory_of_shapes_is_made_anew(folder: Path, damage: bytes | str) -> None:
    np.save(folder / "a.npy", MEL)
    before = shapes(folder)
    kept = folder / SHAPES
    kept.write_bytes(kept.read_bytes()[:-50] if isinstance(damage, str) else damage)
    assert shapes(folder) == before


def test_a_folder_that_cannot_be_written_has_its_shapes_in_the_cache(folder: Path, tmp_path: Path) -> None:
    np.save(folder / "a.npy", MEL)
    (folder / SHAPES).mkdir()  # no file can be put there, by root neither
    assert shapes(folder) == shapes(folder) == {"a": (4, "<f4 *,3")}
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 1
    assert [path.name for path in folder.iterdir() if path.name.endswith(".tmp")] == []


def test_where_nothing_can_be_kept_the_shapes_are_read_each_time(folder: Path, tmp_path: Path) -> None:
    np.save(folder / "a.npy", MEL)
    (folder / SHAPES).mkdir()
    (tmp_path / "cache").write_text("a file")
    assert shapes(folder) == shapes(folder) == {"a": (4, "<f4 *,3")}


def test_many_files_need_many_threads_and_columns_and_come_back_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npy_files, "_ROWS", 7)
    monkeypatch.setattr(npy_files, "_CHUNK", 3)
    save_all(folder, {f"{number:03}": np.zeros((number, 2)) for number in range(100)})
    table = npy_shapes(folder)
    assert pc.count_distinct(table["clip"]).as_py() == len(table) == 100
    assert all(frames == int(clip) for clip, (frames, _) in shapes(folder).items())
