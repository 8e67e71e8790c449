from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.tiny import read_rows, write_rows
from tts_kernel.data.manifest import ManifestError, digest, import_manifest, read_manifest, write_manifest
from tts_kernel.data.manifest import cache as manifest_cache
from tts_kernel.data.manifest import manifest as manifests


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTS_KERNEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tiny_corpus: Path) -> Path:
    return tiny_corpus / "gpt_pairs_train.jsonl"


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The manifests that were parsed, not opened from their copy."""
    parsed: list[Path] = []
    inner = manifests.import_lines

    def counted(path: Path, scratch: Path) -> object:
        parsed.append(path)
        return inner(path, scratch)

    monkeypatch.setattr(manifests, "import_lines", counted)
    return parsed


def ids(path: Path) -> list[str]:
    return read_manifest(path).strings("id").to_pylist()


def settle(path: Path) -> None:
    """As if the import had been made long after the last edit."""
    facts = path.with_name(f".{path.name}.json")
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"made_ns": 1 << 62}))


def test_a_manifest_is_parsed_once(source: Path, imports: list[Path]) -> None:
    first = read_manifest(source)
    again = read_manifest(source)
    assert imports == [source]
    assert again.table().equals(first.table())
    assert again.rules == first.rules
    assert again.place == source.with_name(f".{source.name}.arrow")


def test_a_settled_import_is_trusted_without_reading_the_source(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_manifest(source)
    settle(source)
    monkeypatch.setattr(manifest_cache, "digest_of", lambda path: pytest.fail("the source was read"))
    assert len(read_manifest(source)) == 24


@pytest.mark.parametrize("restored", ["no time", "modification time"])
@pytest.mark.parametrize("settled", [True, False])
def test_an_edit_of_the_same_size_is_noticed(source: Path, imports: list[Path], restored: str, settled: bool) -> None:
    before = ids(source)
    if settled:
        settle(source)
    old = source.stat()
    text = source.read_text()
    source.write_text(text.replace(before[3], before[3].upper()))
    assert source.stat().st_size == old.st_size
    if restored == "modification time":
        os.utime(source, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert ids(source)[3] == before[3].upper()
    assert len(imports) == 2


def test_a_touched_or_copied_source_is_compared_and_not_parsed_again(
    source: Path, tmp_path: Path, imports: list[Path]
) -> None:
    before = ids(source)
    os.utime(source)
    assert ids(source) == before
    shutil.copytree(source.parent, tmp_path / "copy")
    assert ids(tmp_path / "copy" / source.name) == before
    assert imports == [source]


@pytest.mark.parametrize("damage", ["cut", "gone", "text", "facts cut", "facts of another format", "other columns"])
def test_a_damaged_copy_is_made_again(source: Path, imports: list[Path], damage: str) -> None:
    before = ids(source)
    columns, facts = source.with_name(f".{source.name}.arrow"), source.with_name(f".{source.name}.json")
    if damage == "cut":
        columns.write_bytes(columns.read_bytes()[:500])
    elif damage == "gone":
        columns.unlink()
    elif damage == "text":
        columns.write_text("not Arrow")
    elif damage == "facts cut":
        facts.write_text(facts.read_text()[:20])
    elif damage == "facts of another format":
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"format": 0}))
    else:
        other = source.with_name("gpt_pairs_val.jsonl")
        read_manifest(other)
        shutil.copy(other.with_name(f".{other.name}.arrow"), columns)
    assert ids(source) == before
    assert len([path for path in imports if path == source]) == 2


def test_in_a_folder_that_cannot_be_written_the_copy_lies_in_the_cache(
    source: Path, cache: Path, imports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = manifest_cache.pa.OSFile

    def refuse(path: str, mode: str = "rb") -> object:
        if mode == "wb" and Path(path).parent == source.parent:
            raise OSError(30, "Read-only file system")
        return inner(path, mode)

    monkeypatch.setattr(manifest_cache.pa, "OSFile", refuse)
    before = ids(source)
    assert ids(source) == before
    assert imports == [source]
    assert read_manifest(source).place.parent == cache / "manifests"
    assert not list(source.parent.glob(".*"))


def test_where_no_place_can_be_written_the_error_names_them_and_the_way_out(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, mode: str = "rb") -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest_cache.pa, "OSFile", full)
    with pytest.raises(
        ManifestError, match=r"(?s)train\.jsonl\.arrow: No space left.*cache/manifests/.*TTS_KERNEL_CACHE"
    ):
        read_manifest(source)
    assert not list(source.parent.glob(".*"))


def test_a_manifest_is_written_although_its_columns_cannot_be(
    source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manifest, target = read_manifest(source), source.with_name("again.jsonl")

    def full(path: str, mode: str = "rb") -> object:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(manifest_cache.pa, "OSFile", full)
        write_manifest(manifest, target)
    assert read_rows(target) == read_rows(source)
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"{target} is written, its columns are not" in warning
    assert "No space left on device" in warning
    assert [path.name for path in source.parent.glob(f".{target.name}*")] == []
    assert ids(target) == ids(source)


def test_a_source_that_changes_while_it_is_read_is_refused(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = manifests.import_lines

    def grow(path: Path, scratch: Path) -> object:
        with path.open("a") as file:
            file.write("{}\n")
        return inner(path, scratch)

    monkeypatch.setattr(manifests, "import_lines", grow)
    with pytest.raises(ManifestError, match="was changed while it was read"):
        read_manifest(source)


def test_problems_are_kept_with_the_import(source: Path, imports: list[Path]) -> None:
    rows = read_rows(source)
    write_rows(source, [rows[0], rows[1] | {"target_code_len": 0}, *rows[2:], {"id": 3}])
    first, problems = import_manifest(source)
    again, same = import_manifest(source)
    assert imports == [source]
    assert len(first) == len(again) == 23
    assert list(problems) == list(same)
    assert problems.counts == same.counts == {"length": 1, "wrong type": 1, "missing field": 7}
    assert again.line(0) == 1
    assert again.line(1) == 3


def test_what_was_written_needs_no_import(source: Path, imports: list[Path]) -> None:
    manifest = read_manifest(source)
    target = source.with_name("written.jsonl")
    write_manifest(manifest.take(np.arange(24)[::-1]), target, made_from=manifest.digest)
    written = read_manifest(target)
    assert imports == [source]
    assert read_rows(target) == read_rows(source)[::-1]
    assert written.strings("id").to_pylist() == ids(source)[::-1]
    assert written.made_from == manifest.digest
    shutil.copy(target, source.with_name("parsed.jsonl"))
    parsed = read_manifest(source.with_name("parsed.jsonl"))
    assert parsed.table(written.columns).to_pylist() == written.table().to_pylist()
    assert parsed.digest == written.digest
    assert digest(parsed, np.arange(24)) == digest(written, np.arange(24)) != digest(manifest, np.arange(24))


def test_a_manifest_travels_to_another_process_as_its_file(source: Path) -> None:
    manifest = read_manifest(source)
    some = manifest.select(["id", "target_codes_path"])
    sent = pickle.dumps(some)
    assert len(sent) < 1000
    assert pickle.loads(sent).table().equals(some.table())
    taken = pickle.loads(pickle.dumps(manifest.take(np.array([3, 1]))))
    assert taken.strings("id").to_pylist() == [ids(source)[3], ids(source)[1]]


def test_written_paths_that_leave_the_folder_are_refused_as_imported_ones_are(source: Path) -> None:
    manifest = read_manifest(source)
    moved = manifest.with_columns({"target_audio_path": pa.array(["../elsewhere/a.wav"] * 24)})
    target = source.with_name("written.jsonl")
    write_manifest(moved, target)
    with pytest.raises(ManifestError, match=r"written\.jsonl:1: target_audio_path is '\.\./elsewhere/a\.wav'"):
        read_manifest(target)
    assert len(read_manifest(target, allow_outside=True)) == 24
