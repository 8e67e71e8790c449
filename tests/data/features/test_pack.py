from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.compute as pc
import pytest

from tests.data.features.stored import assert_same, files_end_at, save_all
from tts_kernel.data.features import Features
from tts_kernel.data.features import pack as pack_module
from tts_kernel.data.features.folder_lock import StoreError
from tts_kernel.data.features.npy_files import NpyFiles, list_npy
from tts_kernel.data.features.pack import PackReport, pack
from tts_kernel.data.features.shards import read_index
from tts_kernel.data.features.store_lock import writing
from tts_kernel.data.files import UnsafePathError

CLIPS = 11


def arrays(clips: int = CLIPS) -> dict[str, np.ndarray]:
    """As in a data folder: five kinds, mels only for every other clip, one clip in a folder of its own."""
    generator = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for number in range(clips):
        clip = f"sp{number % 3}/c.{number}" if number == 5 else f"c.{number}"
        made[f"codes/{clip}"] = generator.integers(0, 99, number + 1)
        made[f"text_ids/{clip}"] = generator.integers(0, 99, 3).astype(np.int32)
        made[f"condition/{clip}"] = generator.normal(size=(4, 8)).astype(np.float32)
        made[f"emo_vec/{clip}"] = generator.normal(size=8).astype(np.float32)
        if number % 2:
            made[f"mel/{clip}"] = generator.normal(size=(number, 5)).astype(np.float32)
    return made


ARRAYS = arrays()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTS_KERNEL_CACHE", str(tmp_path / "cache"))
    save_all(tmp_path / "data", ARRAYS)
    return tmp_path / "data"


def sources(root: Path) -> set[str]:
    """The .npy files that are left, as kind/clip."""
    return {str(path.relative_to(root))[:-4] for path in root.rglob("*.npy")}


def entries(root: Path) -> list[str]:
    """kind/clip of every array in every shard, superseded ones too."""
    found = []
    for path in sorted((root / "features").glob("*.arrow")):
        table, _ = read_index(path)
        kinds, clips = table["kind"].to_pylist(), table["clip"].to_pylist()
        found += [f"{kind}/{clip}" for kind, clip in zip(kinds, clips, strict=True)]
    return found


def assert_packed(root: Path, expected: dict[str, np.ndarray]) -> None:
    """Everything is in the shards, whether its file is there or not."""
    for path in root.rglob("*.npy"):
        path.unlink()
    for path, array in zip(expected, Features(root, verify=True).read([f"{p}.npy" for p in expected]), strict=True):
        assert_same(array, expected[path])


def newer(path: Path, array: np.ndarray) -> None:
    np.save(path, array)
    later = time.time_ns() + 10**9
    os.utime(path, ns=(later, later))


@pytest.mark.parametrize("workers", [1, 2])
def test_everything_is_packed_and_the_files_stay(root: Path, workers: int) -> None:
    report = pack(root, clips_per_shard=4, workers=workers)
    assert report == PackReport(packed=len(ARRAYS))
    assert sources(root) == set(ARRAYS)
    assert sorted(entries(root)) == sorted(ARRAYS)
    assert len(list((root / "features").glob("*.tar"))) == 3
    assert_packed(root, ARRAYS)


def test_all_arrays_of_a_clip_lie_side_by_side(root: Path) -> None:
    pack(root, clips_per_shard=4)
    clips = [path.partition("/")[2] for path in entries(root)]
    runs = [clip for number, clip in enumerate(clips) if number == 0 or clips[number - 1] != clip]
    assert len(runs) == CLIPS


def test_what_is_packed_is_skipped_and_only_what_is_new_is_added(root: Path) -> None:
    pack(root, clips_per_shard=4)
    before = {path.name: path.stat().st_mtime_ns for path in (root / "features").glob("packed*")}
    assert pack(root, clips_per_shard=4) == PackReport(skipped=len(ARRAYS))
    assert {path.name: path.stat().st_mtime_ns for path in (root / "features").glob("packed*")} == before
    added = {"mel/c.0": np.zeros((2, 5), dtype=np.float32), "codes/new": np.arange(3)}
    save_all(root, added)
    assert pack(root) == PackReport(packed=2, skipped=len(ARRAYS))
    assert_packed(root, ARRAYS | added)


def test_a_file_that_holds_something_else_since_is_packed_again(root: Path) -> None:
    pack(root)
    newer(root / "codes" / "c.1.npy", np.arange(77))
    newer(root / "mel" / "c.1.npy", ARRAYS["mel/c.1"])  # was written again, with the same values
    assert pack(root) == PackReport(packed=1, skipped=len(ARRAYS) - 1)
    assert_packed(root, ARRAYS | {"codes/c.1": np.arange(77)})


def test_only_the_named_kinds_are_packed(root: Path) -> None:
    assert pack(root, kinds=["codes"]).packed == CLIPS
    assert Features(root).kinds == ["codes"]
    save_all(root, {"extra/deep/a": np.arange(4)})
    assert pack(root, kinds=["extra/deep"]).packed == 1
    assert Features(root).kinds == ["codes", "extra/deep"]
    assert pack(root).packed == len(ARRAYS) - CLIPS  # a folder of another name is not touched unless it is named


def test_named_kinds_are_stored_as_float16(root: Path) -> None:
    pack(root, half=["mel", "condition"])
    halved = {
        path: array.astype(np.float16) if path.startswith(("mel", "condition")) else array
        for path, array in ARRAYS.items()
    }
    assert pack(root, half=["mel", "condition"], delete_source=True).deleted == len(ARRAYS)
    assert_packed(root, halved)


def test_damaged_files_are_named_counted_and_left_in_place(root: Path) -> None:
    (root / "codes" / "c.1.npy").write_bytes(b"")
    (root / "mel" / "c.3.npy").write_bytes((root / "mel" / "c.3.npy").read_bytes()[:-1])
    np.save(root / "condition" / "c.2.npy", np.full((4, 8), 1e6, dtype=np.float32))  # beyond float16
    np.save(root / "emo_vec" / "c.2.npy", np.array([{}]), allow_pickle=True)
    (root / "text_ids" / "b\\ad.npy").write_bytes((root / "text_ids" / "c.2.npy").read_bytes())
    Path(os.fsdecode(os.fsencode(root) + b"/codes/\xb0.npy")).write_bytes(b"")
    bad = {"codes/c.1", "mel/c.3", "condition/c.2", "emo_vec/c.2"}
    report = pack(root, half=["condition"], delete_source=True)
    assert report == PackReport(packed=len(ARRAYS) - 4, unreadable=6, deleted=len(ARRAYS) - 4, failures=report.failures)
    named = " ".join(f"{path}: {reason}" for path, reason in report.failures)
    assert len(report.failures) == 6
    for words in (*bad, "not a readable .npy", "beyond 65504", "Object arrays", "b\\ad.npy", r"\xb0.npy", "Unicode"):
        assert words in named
    assert {path for path in sources(root) if path.isascii() and "\\" not in path} == bad
    assert set(entries(root)) == set(ARRAYS) - bad


def test_a_file_that_vanishes_meanwhile_is_counted_as_missing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(folder: Path) -> NpyFiles:
        files = list_npy(folder)
        if folder.name == "codes":
            (folder / "c.1.npy").unlink()
        return files

    monkeypatch.setattr(pack_module, "list_npy", listed)
    report = pack(root, delete_source=True)
    assert (report.packed, report.missing, report.unreadable) == (len(ARRAYS) - 1, 1, 0)
    assert [path for path, _ in report.failures] == [str(root / "codes" / "c.1.npy")]


def test_files_are_deleted_when_they_are_packed(root: Path) -> None:
    report = pack(root, clips_per_shard=4, delete_source=True, workers=2)
    assert report == PackReport(packed=len(ARRAYS), deleted=len(ARRAYS))
    assert sources(root) == set()
    assert_packed(root, ARRAYS)


def test_files_packed_before_are_deleted_if_they_hold_the_same(root: Path) -> None:
    pack(root, half=["condition"])
    newer(root / "codes" / "c.1.npy", np.arange(77))
    older = root / "codes" / "c.2.npy"
    np.save(older, np.arange(66))
    os.utime(older, ns=(1, 1))
    report = pack(root, delete_source=True)
    assert (report.packed, report.skipped, report.deleted) == (1, len(ARRAYS) - 1, len(ARRAYS) - 1)
    assert report.failures == ((str(older), pack_module.OLDER),)
    assert sources(root) == {"codes/c.2"}
    changed = {path: array.astype(np.float16) for path, array in ARRAYS.items() if path.startswith("condition")}
    assert_packed(root, ARRAYS | changed | {"codes/c.1": np.arange(77)})


def test_nothing_is_deleted_that_the_disk_does_not_give_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(tar: Path) -> None:
        data = bytearray(tar.read_bytes())
        data[data.index(ARRAYS["mel/c.1"].tobytes())] ^= 1
        tar.write_bytes(data)
        np.save(root / "codes" / "c.4.npy", np.arange(9))  # and someone changes a file just now

    monkeypatch.setattr(pack_module, "forget", spoil)
    report = pack(root, delete_source=True)
    assert sources(root) == {"mel/c.1", "codes/c.4"}
    reasons = dict(report.failures)
    assert "its checksum differs" in reasons[str(root / "mel" / "c.1.npy")]
    assert "has changed since it was packed" in reasons[str(root / "codes" / "c.4.npy")]
    monkeypatch.undo()
    monkeypatch.setenv("TTS_KERNEL_CACHE", str(root.parent / "cache"))
    newer(root / "codes" / "c.4.npy", np.arange(9))
    (root / "mel" / "c.1.npy").touch()
    assert pack(root, delete_source=True) == PackReport(packed=2, deleted=2)  # the spoilt one from its file
    assert_packed(root, ARRAYS | {"codes/c.4": np.arange(9)})


KILLED = """
import sys
from pathlib import Path
from tts_kernel.data.features.pack import pack
if __name__ == "__main__":
    pack(Path(sys.argv[1]), clips_per_shard=3, workers=int(sys.argv[2]), delete_source=sys.argv[3] == "delete")
"""


@pytest.mark.parametrize(("workers", "delete"), [(1, "keep"), (1, "delete"), (2, "delete")])
def test_a_job_that_was_killed_goes_on_where_it_stopped(root: Path, workers: int, delete: str) -> None:
    many = arrays(120)
    save_all(root, many)
    command = [sys.executable, "-c", KILLED, str(root), str(workers), delete]
    process = subprocess.Popen(command, env=os.environ | {"TQDM_DISABLE": "1"})
    while len(list((root / "features").glob("*.arrow"))) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs(children, timeout=30)[1] == []  # its workers do not wait for ever for more to do
    report = pack(root, clips_per_shard=50, delete_source=delete == "delete")
    assert 0 < report.packed < len(many)
    assert report.failures == ()
    assert sorted(entries(root)) == sorted(many)  # nothing lost, nothing twice
    assert sources(root) == (set() if delete == "delete" else set(many))
    assert_packed(root, many)


def test_two_jobs_do_not_pack_the_same_folder_at_once(root: Path) -> None:
    other = pytest.raises(StoreError, match=r"job 'mel extraction' \(pid")
    with writing(root / "features", "mel extraction"), other:
        pack(root)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_job_with_one_clear_error(root: Path, workers: int) -> None:
    pack(root, kinds=["codes"])
    with files_end_at(20_000), pytest.raises(StoreError, match=r"packed-000002\.tar: cannot be written"):
        pack(root, workers=workers, delete_source=True)
    assert sources(root) == {path for path in ARRAYS if not path.startswith("codes")}
    assert sorted(path.name for path in (root / "features").glob("*packed*")) == [
        "packed-000001.arrow",
        "packed-000001.tar",
    ]
    assert pack(root, workers=workers).packed == len(ARRAYS) - CLIPS
    assert_packed(root, ARRAYS)


def test_settings_that_make_no_sense_are_refused_at_once(root: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nothing: no such folder; half names 'mel'.*clips_per_shard is 0.*workers is 0"
    ):
        pack(root, kinds=["nothing"], half=["mel"], clips_per_shard=0, workers=0)
    with pytest.raises(ValueError, match="none of the folders text_ids, codes"):
        pack(root / "mel")
    with pytest.raises(UnsafePathError):
        pack(root, kinds=["../elsewhere"])
    assert not (root / "features").exists()


def test_sorting_and_slicing_keeps_every_file_once(root: Path) -> None:
    save_all(root, {f"codes/{number}": np.arange(1) for number in range(200)})
    pack(root, clips_per_shard=7)
    table = Features(root).lengths("codes")
    assert pc.count_distinct(table["clip"]).as_py() == len(table) == 200 + CLIPS
    assert sorted(len(read_index(p)[0]["clip"].unique()) for p in (root / "features").glob("*.arrow"))[1:] == [7] * 30


def test_a_warning_is_not_needed_when_all_is_well(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        pack(root, delete_source=True)
    assert caplog.text == ""
