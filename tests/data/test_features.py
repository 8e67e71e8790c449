from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.data.stored import assert_same, edit_index, save_all, write_shard
from tts_kernel.data import features as features_module
from tts_kernel.data import shard_index, shard_maps, shards
from tts_kernel.data.compact import compact
from tts_kernel.data.features import Features
from tts_kernel.data.files import UnsafePathError
from tts_kernel.data.folder_lock import StoreError
from tts_kernel.data.shard_format import FeatureError
from tts_kernel.data.shards import index_path, read_index


def mel(value: float, frames: int = 4) -> np.ndarray:
    return np.full((frames, 3), value, dtype=np.float32)


class Store:
    """A data folder whose features are added bit by bit."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "features"
        self.merges = 0

    def add(self, name: str, arrays: dict[str, np.ndarray]) -> Path:
        return write_shard(self.folder, name, arrays)

    def value(self, path: str) -> float:
        return float(Features(self.root).read([path])[0].reshape(-1)[0])

    def refusal(self, path: str, verify: bool = False) -> str:
        with pytest.raises(FeatureError) as caught:
            Features(self.root, verify=verify).read([path])
        return str(caught.value)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("TTS_KERNEL_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path / "data")
    store.root.mkdir()
    real = shard_index._merge

    def counted(*arguments: object) -> shard_index.Index:
        store.merges += 1
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shard_index, "_merge", counted)
    return store


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


# The merged index


def test_an_index_is_merged_once_and_then_only_opened(store: Store) -> None:
    store.add("s", {"mel/a": mel(1)})
    for _ in range(3):
        assert store.value("mel/a.npy") == 1
    assert store.merges == 1


def test_only_new_indices_are_read_for_a_new_shard(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add("s1", {"mel/a": mel(1), "codes/a": mel(7)})
    store.add("s2", {"mel/b": mel(2)})
    Features(store.root)
    kept = {path.name for path in (store.folder / ".index").glob("codes-*")}
    read: list[str] = []
    monkeypatch.setattr(shard_index, "read_index", lambda path: (read.append(path.name), read_index(path))[1])
    store.add("s3", {"mel/c": mel(3)})
    assert [store.value(f"mel/{clip}.npy") for clip in "abc"] == [1, 2, 3]
    assert read == ["s3.arrow"]
    assert {path.name for path in (store.folder / ".index").glob("codes-*")} == kept  # another kind's is left alone
    assert len(list((store.folder / ".index").glob("mel-*"))) == 1  # and the old one of this kind is gone


def test_an_index_that_changed_is_merged_anew(store: Store) -> None:
    tar = store.add("s", {"mel/a": mel(1), "mel/b": mel(2)})
    other = store.add("t", {"mel/c": mel(3)})
    assert store.value("mel/a.npy") == 1
    tar.unlink()
    index_path(tar).unlink()
    store.add("s", {"mel/a": mel(5)})
    features = Features(store.root)
    assert features.read(["mel/a.npy"])[0][0, 0] == 5
    assert features.has(["mel/b.npy", "mel/c.npy"]).tolist() == [False, True]
    shutil.move(other, store.folder / "away")
    assert not Features(store.root).has(["mel/c.npy"]).any()
    shutil.move(store.folder / "away", other)
    assert Features(store.root).has(["mel/c.npy"]).all()


@pytest.mark.parametrize("damage", ["gone", "catalog", "empty", "cut", "other format", "no kinds"])
def test_a_damaged_merged_index_is_made_anew(store: Store, damage: str) -> None:
    store.add("s", {"mel/a": mel(1)})
    Features(store.root)
    merged = store.folder / ".index"
    catalog, (kind,) = merged / "catalog.json", merged.glob("mel-*.arrow")
    facts = json.loads(catalog.read_text())
    if damage == "gone":
        shutil.rmtree(merged)
    elif damage == "catalog":
        catalog.write_text(catalog.read_text()[:40])
    elif damage == "other format":
        catalog.write_text(json.dumps(facts | {"format": 99}))
    elif damage == "no kinds":
        catalog.write_text(json.dumps({key: value for key, value in facts.items() if key != "files"}))
    else:
        kind.write_bytes(b"" if damage == "empty" else kind.read_bytes()[:-100])
    assert store.value("mel/a.npy") == 1
    assert store.merges == 2


def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(store: Store, tmp_path: Path) -> None:
    store.add("s", {"mel/a": mel(1), "codes/a": mel(4)})
    (store.folder / ".index").write_text("")  # no folder can be made here, by root neither
    for _ in range(2):
        assert store.value("mel/a.npy") == 1
    assert store.merges == 1
    store.add("t", {"mel/b": mel(2)})
    assert [store.value(path) for path in ("mel/b.npy", "mel/a.npy", "codes/a.npy")] == [2, 1, 4]
    assert store.merges == 2
    assert list((tmp_path / "cache" / "features").iterdir())


def test_where_no_index_can_be_kept_it_lives_in_memory(store: Store, tmp_path: Path) -> None:
    store.add("s", {"mel/a": mel(1)})
    (store.folder / ".index").write_text("")
    (tmp_path / "cache").write_text("")
    for _ in range(2):
        assert store.value("mel/a.npy") == 1
    assert store.merges == 2


def test_an_index_that_moves_from_the_cache_into_the_folder_is_whole(store: Store, tmp_path: Path) -> None:
    store.add("s", {"mel/a": mel(1), "codes/a": mel(4)})
    (store.folder / ".index").write_text("")
    Features(store.root)
    (store.folder / ".index").unlink()
    store.add("t", {"mel/b": mel(2)})
    Features(store.root)
    shutil.rmtree(tmp_path / "cache")
    assert [store.value(path) for path in ("mel/b.npy", "mel/a.npy", "codes/a.npy")] == [2, 1, 4]
    assert store.merges == 2


def test_a_full_disk_keeps_the_index_in_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    store.add("s", {"mel/a": mel(1), "codes/a": mel(4)})
    with monkeypatch.context() as patch:
        patch.setattr(shard_index, "write_kind", full)
        assert [store.value(path) for path in ("mel/a.npy", "codes/a.npy")] == [1, 4]
    assert not list((store.folder / ".index").glob("*.arrow"))
    assert [store.value(path) for path in ("mel/a.npy", "codes/a.npy")] == [1, 4]


def test_clips_whose_keys_are_equal_are_told_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "key_bytes", lambda _: b"\7" * 8)
    monkeypatch.setattr(shards, "key_of", lambda _: int.from_bytes(b"\7" * 8))
    store.add("s", {f"mel/{clip}": mel(number) for number, clip in enumerate("abcd")})
    store.add("t", {"mel/b": mel(9), "mel/e": mel(5)})
    features = Features(store.root)
    found = features.read([f"mel/{clip}.npy" for clip in "edcba"])
    assert [array[0, 0] for array in found] == [5, 3, 2, 9, 0]
    assert features.has(["mel/a.npy", "mel/f.npy"]).tolist() == [True, False]
    assert len(features.lengths("mel")) == 5
    assert "does not exist" in store.refusal("mel/f.npy")


def test_indices_put_together_give_the_same_arrays(store: Store) -> None:
    arrays = {f"mel/{number}": mel(number, number) for number in range(1, 9)}
    for number, (path, array) in enumerate(arrays.items()):
        store.add(f"s{number}", {path: array, "codes/x": mel(number)})
    assert compact(store.folder) == (8, 1)
    names = {path.name for path in store.folder.glob("*.arrow")}
    assert len(names) == 1
    store.add("later", {"mel/1": mel(77)})
    assert compact(store.folder) == (2, 1)
    found = Features(store.root).read([f"{path}.npy" for path in arrays])
    assert [array[0, 0] for array in found] == [77, 2, 3, 4, 5, 6, 7, 8]
    assert store.value("codes/x.npy") == 7
    assert compact(store.folder) == (1, 1)
    with pytest.raises(StoreError, match=r"s1\.tar: exists"):
        store.add("s1", {"mel/1": mel(0)})


def test_a_shard_in_two_indices_counts_once(store: Store) -> None:
    """As when putting them together was killed before the old ones were removed."""
    tar = store.add("s", {"mel/a": mel(1)})
    store.add("t", {"mel/b": mel(2)})
    saved = index_path(tar).read_bytes()
    compact(store.folder)
    index_path(tar).write_bytes(saved)
    features = Features(store.root)
    assert sorted(features.lengths("mel")["clip"].to_pylist()) == ["a", "b"]
    assert features.problems == []
    assert compact(store.folder) == (2, 1)
    assert sorted(Features(store.root).lengths("mel")["clip"].to_pylist()) == ["a", "b"]


# Damage


def test_a_shard_that_was_cut_is_reported_and_what_it_held_does_not_exist(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    tar = store.add("s", {"mel/a": mel(1), "mel/b": mel(2)})
    store.add("t", {"mel/c": mel(3)})
    Features(store.root)
    size = tar.stat().st_size
    os.truncate(tar, size // 2)
    problem = f"{tar}: {size // 2} bytes, its index says {size}"
    with caplog.at_level(logging.WARNING):
        features = Features(store.root)
    assert features.problems == [problem]
    assert problem in caplog.text
    assert features.has(["mel/a.npy", "mel/b.npy", "mel/c.npy"]).tolist() == [False, False, True]
    assert problem in store.refusal("mel/b.npy")
    save_all(store.root, {"mel/b": mel(5)})  # the file it was made from
    assert store.value("mel/b.npy") == 5


def test_a_shard_cut_after_it_was_opened_is_a_clear_error(store: Store) -> None:
    tar = store.add("s", {"mel/a": mel(1)})
    features = Features(store.root)
    os.truncate(tar, 100)
    with pytest.raises(FeatureError, match=r"s\.tar: 100 bytes, its index says"):
        features.read(["mel/a.npy"])
    tar.unlink()
    with pytest.raises(FeatureError, match=r"s\.tar: cannot be read .*put it back"):
        Features.read(features, ["mel/a.npy"])


def test_an_index_without_its_shard_is_reported(store: Store) -> None:
    tar = store.add("s", {"mel/a": mel(1)})
    tar.unlink()
    features = Features(store.root)
    assert features.problems == [f"{tar}: is missing, though an index lists it; put it back"]
    assert not features.has(["mel/a.npy"]).any()


def test_a_shard_without_its_index_is_not_read(store: Store) -> None:
    tar = store.add("s", {"mel/a": mel(1)})
    index_path(tar).unlink()
    features = Features(store.root)
    assert features.kinds == []
    assert features.problems == []


def test_a_shard_that_came_while_the_folder_was_listed_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its index comes after it, but the folder may be listed in any order."""
    store.add("s", {"mel/a": mel(1)})
    real = shard_index.Listing.of

    def listed(folder: Path) -> shard_index.Listing:
        listing = real(folder)
        listing.tars.clear()
        return listing

    monkeypatch.setattr(shard_index.Listing, "of", listed)
    features = Features(store.root)
    assert features.problems == []
    assert_same(features.read(["mel/a.npy"])[0], mel(1))


def test_a_damaged_index_is_reported_and_the_others_are_read(store: Store) -> None:
    tar = store.add("s", {"mel/a": mel(1)})
    store.add("t", {"mel/b": mel(2)})
    index_path(tar).write_bytes(b"no index")
    for _ in range(2):
        features = Features(store.root)
        assert len(features.problems) == 1
        assert f"{index_path(tar)}: not the index of a shard" in features.problems[0]
        assert features.has(["mel/a.npy", "mel/b.npy"]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("offset", [640 + 64, 2048]),
        ("offset", [0, 0]),
        ("offset", [1 << 40, 1 << 41]),
        ("offset", [-(1 << 20), -1]),
        ("frames", [3, 3]),
        ("frames", [1 << 31, 1 << 31]),
        ("shard", [0, 0]),
    ],
)
def test_an_index_that_does_not_match_its_shard_is_refused(store: Store, column: str, values: list[int]) -> None:
    tar = store.add("s", {"mel/a": mel(1), "mel/b": mel(2)})
    if column == "shard":  # the index of another shard of the same size
        other = store.add("t", {"mel/c": mel(1), "mel/d": mel(2)})
        shutil.copy(other, tar)
    else:
        edit_index(tar, column, values)
    for path in ("mel/a.npy", "mel/b.npy"):
        message = store.refusal(path)
        assert message.startswith(f"{store.root}/mel/{path[4]}.npy in s.tar: its index does not match it")


def test_an_index_of_another_layout_than_numbers_is_refused(store: Store) -> None:
    tar = store.add("s", {"mel/a": mel(1)})
    table, _ = read_index(index_path(tar))
    number = table.schema.get_field_index("layout")
    objects = pa.array(["|O *,3"]).dictionary_encode()  # would take numbers for addresses
    shards.write_index(index_path(tar), table.set_column(number, "layout", objects))
    assert "no layout of numbers" in Features(store.root).problems[0]
    assert not Features(store.root).has(["mel/a.npy"]).any()


@pytest.mark.parametrize("name", ["../s", "/etc/passwd", ""])
def test_an_index_that_names_a_shard_elsewhere_is_refused(store: Store, name: str) -> None:
    tar = store.add("s", {"mel/a": mel(1)})
    table, (shard,) = read_index(index_path(tar))
    metadata = shards.shards_metadata([shards.Shard(name, shard.size, shard.made_ns)])
    shards.write_index(index_path(tar), table.replace_schema_metadata(metadata))
    assert f"lists a shard {name!r}" in Features(store.root).problems[0]


def test_a_changed_value_is_found_where_checksums_are_compared(store: Store) -> None:
    tar = store.add("s", {"mel/a": mel(1), "mel/b": mel(2)})
    data = bytearray(tar.read_bytes())
    data[data.index(mel(2).tobytes()) + 5] ^= 1
    tar.write_bytes(data)
    assert "b.npy in s.tar: its checksum differs" in store.refusal("mel/b.npy", verify=True)
    assert Features(store.root, verify=True).read(["mel/a.npy"])[0][0, 0] == 1
    assert Features(store.root).read(["mel/b.npy"])[0][0, 0] == 2  # a step of training does not pay for it


def test_odd_names_and_links_in_the_folder_are_reported(store: Store) -> None:
    tar = store.add("s", {"mel/a": mel(1)})
    (store.folder / "loop.tar").symlink_to("loop.tar")
    (store.folder / "gone.arrow").symlink_to("nowhere")
    shutil.copy(index_path(tar), os.fsdecode(os.fsencode(store.folder) + b"/\xb0.arrow"))
    for _ in range(2):
        features = Features(store.root)
        assert_same(features.read(["mel/a.npy"])[0], mel(1))
        assert len(features.problems) == 3
        assert any(r"\xb0.arrow" in problem for problem in features.problems)


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
