from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.data.features.stored import Store, assert_same, mel, save_all, write_shard
from tts_kernel.data.features import FeatureError, Features, shard_maps, shards
from tts_kernel.data.features.compact import compact
from tts_kernel.data.files import UnsafePathError


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(tmp_path / "data", monkeypatch)


# Reading


def test_arrays_come_in_the_order_asked_for_from_shards_and_files(store: Store) -> None:
    packed = {f"{kind}/c{number}": mel(number, number + 1) for kind in ("mel", "codes", "a/b") for number in range(20)}
    names = list(packed)
    for part in range(3):
        with shards.ShardWriter(store.folder, f"s{part}") as shard:
            for path in names[part::3]:
                kind, _, clip = path.rpartition("/")
                shard.add(clip, kind, packed[path])
    loose = {f"mel/f{number}": mel(-number) for number in range(5)} | {"other/x/y": mel(7)}
    save_all(store.root, loose)
    arrays = packed | loose
    order = np.random.default_rng(0).permutation(np.repeat(list(arrays), 2)).tolist()
    found = Features(store.root).read([f"{path}.npy" for path in order])
    for path, array in zip(order, found, strict=True):
        assert_same(array, arrays[path])


def test_what_is_packed_comes_before_a_file_of_the_same_name(store: Store) -> None:
    save_all(store.root, {"mel/a": mel(1)})
    assert store.value("mel/a.npy") == 1
    store.add("s", {"mel/a": mel(2)})
    assert store.value("mel/a.npy") == 2


def test_a_clips_name_may_look_like_a_folder_of_another_kind(store: Store) -> None:
    with shards.ShardWriter(store.folder, "s") as shard:
        shard.add("b/c", "a", mel(1))
        shard.add("d", "a/b", mel(2))
    assert store.value("a/b/c.npy") == 1
    assert store.value("a/b/d.npy") == 2


@pytest.mark.parametrize("names", [("s1", "s2"), ("s2", "s1")])
@pytest.mark.parametrize("at_once", [True, False])
def test_of_two_arrays_of_a_clip_the_one_in_the_newer_shard_holds(
    store: Store, names: tuple[str, str], at_once: bool
) -> None:
    store.add(names[0], {"mel/a": mel(1), "mel/b": mel(1)})
    if not at_once:
        assert store.value("mel/a.npy") == 1
    store.add(names[1], {"mel/a": mel(2, 9), "codes/b": mel(5)})
    assert [store.value(f"{path}.npy") for path in ("mel/a", "mel/b", "codes/b")] == [2, 1, 5]
    lengths = Features(store.root).lengths("mel")
    assert dict(zip(lengths["clip"].to_pylist(), lengths["frames"].to_pylist(), strict=True)) == {"a": 9, "b": 4}


def test_an_older_shard_that_is_noticed_later_does_not_hold(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards.time, "time_ns", lambda: 2_000)
    store.add("a", {"mel/a": mel(2)})
    assert store.value("mel/a.npy") == 2
    monkeypatch.setattr(shards.time, "time_ns", lambda: 1_000)  # of a folder that was copied here, say
    store.add("b", {"mel/a": mel(1)})
    assert store.value("mel/a.npy") == 2


def test_arrays_cannot_be_written_to(store: Store) -> None:
    store.add("s", {"mel/a": mel(1)})
    save_all(store.root, {"mel/b": mel(1)})
    for array in Features(store.root).read(["mel/a.npy", "mel/b.npy"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_an_array_outlives_its_reader_and_its_shard(store: Store) -> None:
    tar = store.add("s", {"mel/a": mel(1)})
    (array,) = Features(store.root).read(["mel/a.npy"])
    tar.unlink()
    assert_same(array, mel(1))


def test_a_missing_clip_is_named(store: Store) -> None:
    store.add("s", {"mel/a": mel(1)})
    assert store.refusal("mel/b.npy").startswith(f"{store.root}/mel/b.npy: does not exist; extract it")
    assert store.refusal("mel/a.txt").startswith(f"{store.root}/mel/a.txt: does not exist")
    assert store.refusal("unknown/a.npy").startswith(f"{store.root}/unknown/a.npy: does not exist")


@pytest.mark.parametrize("path", ["../mel/a.npy", "/etc/a.npy", "mel/../../a.npy", "mel\\a.npy", ""])
def test_a_path_that_leaves_the_folder_is_refused_unless_it_is_allowed(store: Store, path: str) -> None:
    store.add("s", {"mel/a": mel(1)})
    with pytest.raises(UnsafePathError):
        Features(store.root).read([path])
    save_all(store.root.parent, {"outside/a": mel(3)})
    outside = [str(store.root.parent / "outside" / "a.npy"), "../outside/a.npy"]
    for array in Features(store.root, allow_outside=True).read(outside):
        assert_same(array, mel(3))


def test_a_folder_without_shards_is_read_as_files(store: Store) -> None:
    save_all(store.root, {"mel/a": mel(1)})
    features = Features(store.root)
    assert_same(features.read_kind("mel", ["a"])[0], mel(1))
    assert features.kinds == []
    store.folder.mkdir()
    assert_same(Features(store.root).read_kind("mel", ["a"])[0], mel(1))
    assert features.read([]) == []


def test_shards_added_since_are_seen_after_a_refresh(store: Store) -> None:
    features = Features(store.root)
    store.add("s", {"mel/a": mel(1)})
    assert not features.has(["mel/a.npy"]).any()
    features.refresh()
    assert features.has(["mel/a.npy"]).all()


# What is there


def test_lengths_are_those_of_shards_and_files_each_clip_once(store: Store) -> None:
    store.add("s", {"mel/a": mel(0, 5), "mel/b": mel(0, 6), "codes/z": np.arange(9)})
    save_all(store.root, {"mel/b": mel(0, 1), "mel/x/c": mel(0, 7)})
    table = Features(store.root).shapes("mel")
    assert table.schema.names == ["clip", "frames", "layout"]
    assert sorted(zip(*table.to_pydict().values(), strict=True)) == [
        ("a", 5, "<f4 *,3"),
        ("b", 6, "<f4 *,3"),
        ("x/c", 7, "<f4 *,3"),
    ]
    assert Features(store.root).lengths("codes").to_pydict() == {"clip": ["z"], "frames": [9]}
    assert len(Features(store.root).lengths("nothing")) == 0


def test_damaged_files_are_raised_or_listed_by_lengths(store: Store) -> None:
    store.add("s", {"mel/a": mel(0)})
    save_all(store.root, {"mel/b": mel(0)})
    (store.root / "mel" / "bad.npy").write_bytes(b"")
    with pytest.raises(FeatureError, match=r"mel/bad\.npy"):
        Features(store.root).lengths("mel")
    damaged: list[str] = []
    assert len(Features(store.root).lengths("mel", damaged)) == 2
    assert len(damaged) == 1


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_existence_is_told_for_columns_of_any_kind(store: Store, kind: pa.DataType) -> None:
    store.add("s", {"mel/a": mel(0)})
    save_all(store.root, {"mel/x/c": mel(0), "codes/d": mel(0)})
    clips = pa.array(["a", "b", None, "x/c", "d", "a"]).cast(kind)
    features = Features(store.root)
    expected = [True, False, False, True, False, True]
    assert features.exists("mel", clips).tolist() == expected
    assert features.exists("mel", pa.chunked_array([clips[:2], clips[2:]])).tolist() == expected
    paths = [f"mel/{clip}.npy" for clip in ("a", "b", "None", "x/c", "d", "a")]
    assert features.has(paths).tolist() == expected
    assert features.exists("none", clips).tolist() == [False] * 6


# Processes


def _values(features: Features, paths: list[str]) -> list[float]:
    return [float(array[0, 0]) for array in features.read(paths)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_goes_to_workers_of_any_kind(store: Store, method: str) -> None:
    store.add("s", {f"mel/{number}": mel(number) for number in range(5)})
    save_all(store.root, {"mel/f": mel(9)})
    features = Features(store.root, allow_outside=True)
    paths = [f"mel/{name}.npy" for name in (3, "f", 0)]
    assert _values(features, paths) == [3, 9, 0]  # mapped before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(_values, [(features, paths)] * 4) == [[3, 9, 0]] * 4


def test_a_pickled_reader_is_small_and_keeps_its_options(store: Store) -> None:
    store.add("s", {f"mel/{number}": mel(number) for number in range(500)})
    features = Features(store.root, verify=True, allow_outside=True)
    features.read(["mel/3.npy"])
    data = pickle.dumps(features)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert (again.root, again.verify, again.allow_outside) == (store.root, True, True)


def test_any_number_of_shards_needs_no_open_files(store: Store) -> None:
    for number in range(60):
        store.add(f"s{number}", {f"mel/{number}": mel(number)})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, before[1]))
    try:
        arrays = Features(store.root).read([f"mel/{number}.npy" for number in range(60)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert [array[0, 0] for array in arrays] == list(range(60))


def test_a_reader_of_very_many_shards_gives_its_page_tables_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_maps, "_MUCH", 1)
    monkeypatch.setattr(shard_maps, "_READS", 10)
    for number in range(30):
        store.add(f"s{number}", {f"mel/{number}": mel(number)})
    features = Features(store.root)
    first = features.read(["mel/0.npy"])[0]
    mapped = []
    for number in range(30):
        assert features.read([f"mel/{number}.npy"])[0][0, 0] == number
        mapped.append(Path("/proc/self/maps").read_text().count(f"{store.folder}/s"))
    assert 8 <= max(mapped) <= 12
    assert_same(first, mel(0))


def _write_shards(folder: Path, count: int) -> None:
    for number in range(count):
        write_shard(folder, f"s{number:03}", {f"mel/{number}": mel(number), "mel/all": mel(number)})
        if number % 5 == 4:
            compact(folder)


def test_a_reader_sees_a_growing_folder_whole_at_every_moment(store: Store) -> None:
    store.add("s", {"mel/first": mel(-1)})
    writer = multiprocessing.get_context("fork").Process(target=_write_shards, args=(store.folder, 25))
    writer.start()
    seen = [0]
    while writer.is_alive():
        features = Features(store.root)
        seen.append(len(features.lengths("mel")))
        there = [number for number in range(25) if features.has([f"mel/{number}.npy"]).all()]
        assert there == list(range(len(there)))
        assert _values(features, [f"mel/{number}.npy" for number in there]) == there
        if there:
            assert _values(features, ["mel/all.npy"]) == [there[-1]]
    writer.join()
    assert writer.exitcode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 3, "it was never seen half-way, so this proves nothing"
    assert len(Features(store.root).lengths("mel")) == 27
