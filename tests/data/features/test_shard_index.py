from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from tests.data.features.stored import Store, assert_same, edit_index, mel, save_all
from tts_kernel.data.features import FeatureError, Features, shard_index, shards
from tts_kernel.data.features import features as features_module
from tts_kernel.data.features.compact import compact
from tts_kernel.data.features.folder_lock import StoreError
from tts_kernel.data.features.shards import index_path, read_index


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(tmp_path / "data", monkeypatch)


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
