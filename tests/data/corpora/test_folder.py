from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.corpora.clips import read, reasons, rows, write_wav
from tts_kernel.data import corpora
from tts_kernel.data.corpora import CorpusError


def clip(folder: Path, name: str, text: str = "hello", suffix: str = ".txt") -> None:
    write_wav(folder / f"{name}.wav")
    (folder / f"{name}{suffix}").write_text(text, encoding="utf-8")


def test_the_first_subfolder_is_the_speaker(tmp_path: Path) -> None:
    for name in ("top", "anna/a", "anna/deep/b", "bert/c"):
        clip(tmp_path, name)
    imported = read("folder", tmp_path, speaker="nobody")
    assert rows(imported.utterances, {"id", "audio", "speaker"}) == {
        "a": ("anna/a.wav", "a", "anna"),
        "b": ("anna/deep/b.wav", "b", "anna"),
        "c": ("bert/c.wav", "c", "bert"),
        "top": ("top.wav", "top", "nobody"),
    }


def test_clips_of_one_name_in_two_folders_get_their_paths_as_ids(tmp_path: Path) -> None:
    for name in ("anna/001", "bert/001", "bert/002"):
        clip(tmp_path, name)
    assert read("folder", tmp_path).utterances.strings("id").to_pylist() == ["anna_001", "bert_001", "bert_002"]


def test_what_lacks_its_other_half_is_dropped(tmp_path: Path) -> None:
    clip(tmp_path, "a")
    write_wav(tmp_path / "silent.wav")
    (tmp_path / "README.txt").write_text("about", encoding="utf-8")
    (tmp_path / "notes.md").write_text("about", encoding="utf-8")
    imported = read("folder", tmp_path)
    assert imported.utterances.strings("id").to_pylist() == ["a"]
    assert reasons(imported) == {"no text": 1, "missing audio": 1}


def test_texts_are_read_whatever_their_editor(tmp_path: Path) -> None:
    clip(tmp_path, "lab", "from a lab file\n", ".lab")
    clip(tmp_path, "both", "txt comes first")
    (tmp_path / "both.lab").write_text("lab", encoding="utf-8")
    write_wav(tmp_path / "bom.WAV")
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfline one\r\nline two\r\n")
    clip(tmp_path, "blank", " \n")
    write_wav(tmp_path / "cp949.wav")
    (tmp_path / "cp949.txt").write_bytes("둘".encode("cp949"))
    clip(tmp_path, "huge", "x" * ((1 << 20) + 1))
    imported = read("folder", tmp_path)
    texts = {name: text for name, (_, text) in rows(imported.utterances, {"id", "text"}).items()}
    assert texts == {"lab": "from a lab file", "both": "txt comes first", "bom": "line one\nline two"}
    assert reasons(imported) == {"empty text": 1, "encoding": 1, "too long": 1}


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    clip(tmp_path, "anna/a")
    (tmp_path / "anna" / "up").symlink_to(tmp_path)
    (tmp_path / "anna" / "self").symlink_to("self")
    (tmp_path / "again").symlink_to("anna")
    imported = read("folder", tmp_path)
    assert imported.utterances.strings("audio").to_pylist() == ["anna/a.wav"]
    assert reasons(imported) == {"link to a folder read before": 2, "missing file": 1}


def test_links_out_of_the_folder_are_followed_only_where_allowed(tmp_path: Path) -> None:
    clip(tmp_path / "other", "anna/b")
    clip(tmp_path / "corpus", "a")
    (tmp_path / "corpus" / "bert").symlink_to(tmp_path / "other" / "anna")
    (tmp_path / "corpus" / "c.wav").symlink_to(tmp_path / "other" / "anna" / "b.wav")
    (tmp_path / "corpus" / "c.txt").write_text("text", encoding="utf-8")
    imported = read("folder", tmp_path / "corpus")
    assert imported.utterances.strings("id").to_pylist() == ["a"]
    assert reasons(imported) == {"outside": 2, "missing audio": 1}
    allowed = read("folder", tmp_path / "corpus", allow_outside=True).utterances
    assert rows(allowed, {"id", "speaker"}) == {"a": ("a", ""), "b": ("b", "bert"), "c": ("c", "")}


def test_names_that_are_not_utf8_are_dropped(tmp_path: Path) -> None:
    clip(tmp_path, "good")
    bad = os.fsencode(tmp_path) + b"/\xb5\xd1.wav"
    try:
        os.close(os.open(bad, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    imported = read("folder", tmp_path)
    assert imported.utterances.strings("id").to_pylist() == ["good"]
    assert reasons(imported) == {"encoding": 1}
    str(imported.account).encode()  # can be printed


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    clip(tmp_path, "a")
    clip(tmp_path, "._a")
    clip(tmp_path, ".cache/b")
    imported = read("folder", tmp_path)
    assert imported.utterances.strings("id").to_pylist() == ["a"]
    assert reasons(imported) == {}


def test_a_folder_that_may_not_be_listed_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(tmp_path, "a")
    clip(tmp_path, "locked/b")
    listed = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr("tts_kernel.data.corpora.walk.os.scandir", scandir)
    assert reasons(read("folder", tmp_path)) == {"unreadable folder": 1}


def test_a_text_that_vanishes_while_reading_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        clip(tmp_path, name)
    walk = corpora.folder.walk

    def then_gone(*arguments: object) -> object:
        yield from walk(*arguments)  # type: ignore[arg-type]
        (tmp_path / "b.txt").unlink()

    monkeypatch.setattr(corpora.folder, "walk", then_gone)
    imported = read("folder", tmp_path)
    assert imported.utterances.strings("id").to_pylist() == ["a"]
    assert reasons(imported) == {"no text": 1}


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        read("folder", tmp_path / "none")
