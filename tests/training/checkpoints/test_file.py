from __future__ import annotations

import errno
import os
import resource
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from tts_kernel.models.weights import CheckpointError
from tts_kernel.training.checkpoints.file import has_links, link, read, save, scratch_of, verify

CONTENT = {"model": {"a": torch.arange(300.0), "b": torch.ones(2)}, "step": 3}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    alike = one.keys() == other.keys() and one["step"] == other["step"] and one["model"].keys() == other["model"].keys()
    return alike and all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())


def refuse(code: int) -> Any:
    def fail(*args: Any, **kwargs: Any) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture
def small_disk() -> Iterator[int]:
    """No file grows beyond this many bytes: the write that would is refused halfway."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield 100_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_saved_is_verified_and_read(tmp_path: Path) -> None:
    save(tmp_path / "a.pth", CONTENT)
    verify(tmp_path / "a.pth")
    assert same(read(tmp_path / "a.pth"), CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_no_flipped_byte_changes_what_is_read_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save(path, CONTENT)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as records:
        starts = [record.header_offset for record in records.infolist()]
    random = np.random.default_rng(0)
    places = {*random.integers(0, len(whole), 250).tolist(), *starts, *range(len(whole) - 22, len(whole))}
    noticed = 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            content = read(path)
        except CheckpointError:
            noticed += 1
        else:
            assert same(content, CONTENT), f"byte {place}"
    assert noticed > 20, "padding between the records is most of a file this small; the rest is not"


def test_a_changed_tensor_is_named_by_its_record(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save(path, CONTENT)
    whole = bytearray(path.read_bytes())
    place = whole.index(np.arange(300, dtype=np.float32).tobytes()) + 700
    whole[place] ^= 1
    path.write_bytes(whole)
    assert torch.load(path, weights_only=True)["step"] == 3, "loading alone does not notice"
    with pytest.raises(CheckpointError, match=r"a\.pth: record .*/data/0 does not match its checksum"):
        verify(path)


@pytest.mark.parametrize("length", [0, 1, 100, 2000, -1])
def test_a_truncated_file_is_not_verified(tmp_path: Path, length: int) -> None:
    save(tmp_path / "a.pth", CONTENT)
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"a\.pth: truncated or damaged"):
        verify(tmp_path / "a.pth")


def test_a_missing_file_is_not_verified(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        verify(tmp_path / "a.pth")


def test_a_write_that_is_refused_halfway_leaves_the_old_file(tmp_path: Path, small_disk: int) -> None:
    save(tmp_path / "a.pth", CONTENT)
    with pytest.raises(CheckpointError, match=r"a\.pth: could not be written .* MB are free"):
        save(tmp_path / "a.pth", {"model": {"a": torch.zeros(small_disk)}})
    assert same(read(tmp_path / "a.pth"), CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_an_error_without_a_message_is_still_a_checkpoint_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> NoReturn:
        raise OSError

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError, match="OSError"):
        save(tmp_path / "a.pth", CONTENT)


def test_what_could_not_be_read_again_replaces_nothing(tmp_path: Path) -> None:
    save(tmp_path / "a.pth", CONTENT)
    with pytest.raises(CheckpointError, match=r"a\.pth: not written, since it could not be read again"):
        save(tmp_path / "a.pth", {"where": tmp_path})
    assert same(read(tmp_path / "a.pth"), CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_link_is_the_same_bytes_and_outlives_the_first_name(tmp_path: Path) -> None:
    save(tmp_path / "a.pth", CONTENT)
    save(tmp_path / "b.pth", {"step": 0})
    link(tmp_path / "a.pth", tmp_path / "b.pth")
    assert (tmp_path / "b.pth").stat().st_ino == (tmp_path / "a.pth").stat().st_ino
    save(tmp_path / "a.pth", {"step": 0})
    assert same(read(tmp_path / "b.pth"), CONTENT)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_without_hard_links_there_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    save(tmp_path / "a.pth", CONTENT)
    assert has_links(tmp_path)
    monkeypatch.setattr(os, "link", refuse(code))
    assert not has_links(tmp_path)
    link(tmp_path / "a.pth", tmp_path / "b.pth")
    assert (tmp_path / "b.pth").read_bytes() == (tmp_path / "a.pth").read_bytes()
    assert (tmp_path / "b.pth").stat().st_nlink == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_that_fills_up_during_the_copy_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(source: Path, target: Path) -> NoReturn:
        Path(target).write_bytes(b"half")
        refuse(errno.ENOSPC)()

    save(tmp_path / "a.pth", CONTENT)
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(CheckpointError, match=r"b\.pth.*No space left"):
        link(tmp_path / "a.pth", tmp_path / "b.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_half_written_file_of_a_killed_process_is_no_hindrance(tmp_path: Path) -> None:
    for path in (tmp_path / "a.pth", tmp_path / "b.pth", tmp_path / "link", tmp_path / "linked"):
        scratch_of(path).write_bytes(b"half")
    save(tmp_path / "a.pth", CONTENT)
    link(tmp_path / "a.pth", tmp_path / "b.pth")
    assert has_links(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.pth"]
