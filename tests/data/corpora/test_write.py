from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.data.corpora.clips import KINDS, samples_of, small_corpus, write
from tts_kernel.data.corpora import CorpusError, read_folder, write_folder, write_melotts
from tts_kernel.data.corpora import write as module


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_exists_is_overwritten(tmp_path: Path, kind: str) -> None:
    corpus = small_corpus(tmp_path / "source")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine", encoding="utf-8")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for taken in ("full", "file"):
        with pytest.raises(CorpusError, match="exists and is not an empty folder"):
            write(kind, corpus, tmp_path / taken)
    write(kind, corpus, tmp_path / "empty")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_without_audio_leaves_no_half_corpus(tmp_path: Path, kind: str) -> None:
    corpus = small_corpus(tmp_path / "source")
    corpus.paths()[5].unlink()
    with pytest.raises(CorpusError, match=corpus.paths()[5].name):
        write(kind, corpus, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_full_disk_leaves_no_half_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    corpus = small_corpus(tmp_path / "source")
    monkeypatch.setattr(module.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        write_melotts(corpus, tmp_path / "new", audio="copy")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_linked_audio_is_the_same_file_and_copied_audio_is_not(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "source")
    source = corpus.paths()[0]
    for how, same in (("link", True), ("copy", False)):
        write_melotts(corpus, tmp_path / how, audio=how)  # type: ignore[arg-type]
        target = tmp_path / how / "wavs" / source.name
        assert target.samefile(source) is same
        assert target.read_bytes() == source.read_bytes()


def test_where_links_do_not_work_audio_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another_disk(*arguments: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    corpus = small_corpus(tmp_path / "source")
    monkeypatch.setattr(module.os, "link", another_disk)
    write_folder(corpus, tmp_path / "new")
    assert samples_of(read_folder(tmp_path / "new").utterances) == samples_of(corpus)


def test_a_link_to_audio_is_written_as_the_audio(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "source")
    source = corpus.paths()[0]
    source.rename(source.with_suffix(".real"))
    source.symlink_to(source.with_suffix(".real").name)
    write_melotts(corpus, tmp_path / "new")
    target = tmp_path / "new" / "wavs" / source.name
    assert not target.is_symlink()
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("kind", ["ljspeech", "folder"])
def test_layouts_that_hold_their_audio_do_not_refer_to_it(tmp_path: Path, kind: str) -> None:
    with pytest.raises(CorpusError, match="need audio files of their own"):
        write(kind, small_corpus(tmp_path / "source"), tmp_path / "new", audio="refer")


def test_a_way_of_placing_audio_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="audio='move': expected link, copy or refer"):
        write_melotts(small_corpus(tmp_path / "source"), tmp_path / "new", audio="move")  # type: ignore[arg-type]


def test_speakers_that_are_no_folder_names_are_refused(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "source", ["one", "two"]).with_column("speaker", ["../up", ""])
    with pytest.raises(CorpusError, match=r"(?s)speaker has a dot in front.*'\.\./up'"):
        write_folder(corpus, tmp_path / "new")
