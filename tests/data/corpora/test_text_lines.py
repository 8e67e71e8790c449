"""Lists with mistakes in them: every line that is left out is counted, with its reason and where it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.corpora.clips import read, reasons, write_wav
from tts_kernel.data.corpora import collect
from tts_kernel.data.corpora.lines import LONGEST
from tts_kernel.data.manifest.jsonl import CHUNK


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with the audio of clips a, b and c."""
    for name in "abc":
        write_wav(tmp_path / "wavs" / f"{name}.wav")
    return tmp_path


def ids(imported: object) -> list[str]:
    return imported.utterances.strings("id").to_pylist()  # type: ignore[attr-defined]


def melotts(folder: Path, data: bytes, **options: object) -> object:
    (folder / "metadata.list").write_bytes(data)
    return read("melotts", folder, **options)


def test_bom_and_windows_line_ends_leave_no_trace(corpus: Path) -> None:
    imported = melotts(
        corpus, b"\xef\xbb\xbfwavs/a.wav|one|s|KR\r\nwavs/b.wav|two|s|KR\r\n\r\nwavs/c.wav|three|s|KR\r\n"
    )
    assert ids(imported) == ["a", "b", "c"]
    assert imported.utterances.strings("language").to_pylist() == ["KR"] * 3
    assert reasons(imported) == {}


def test_a_last_line_without_its_end_is_read(corpus: Path) -> None:
    assert ids(melotts(corpus, b"wavs/a.wav|one|s|KR\nwavs/b.wav|two|s|KR")) == ["a", "b"]


def test_a_torn_last_line_is_dropped(corpus: Path) -> None:
    imported = melotts(corpus, b"wavs/a.wav|one|s|KR\nwavs/b.wav|tw")
    assert ids(imported) == ["a"]
    [example] = imported.account.drops["malformed line"].examples
    assert example.startswith(f"{corpus / 'metadata.list'}:2: 2 fields, expected audio|text|speaker|language")


def test_lines_with_other_numbers_of_fields_are_dropped(corpus: Path) -> None:
    lines = b"one\nwavs/a.wav|one|s|KR\nwavs/b.wav|t|wo|s|KR\nwavs/c.wav|three|s\n||||\n"
    imported = melotts(corpus, lines)
    assert ids(imported) == ["a", "c"]
    assert reasons(imported) == {"malformed line": 3}
    numbers = [example.split(":")[1] for example in imported.account.drops["malformed line"].examples]
    assert numbers == ["1", "3", "5"]


def test_lines_that_are_not_utf8_are_dropped_alone(corpus: Path) -> None:
    lines = b"wavs/a.wav|one|s|KR\nwavs/b.wav|" + "둘".encode("cp949") + b"|s|KR\nwavs/c.wav|three|s|KR\n"
    imported = melotts(corpus, lines)
    assert ids(imported) == ["a", "c"]
    assert imported.account.drops["encoding"].examples == [f"{corpus / 'metadata.list'}:2: not UTF-8"]


@pytest.mark.parametrize("size", [LONGEST + 1, 3 * CHUNK], ids=["long", "longer than what is read at a time"])
def test_a_line_that_is_too_long_is_dropped_alone(corpus: Path, size: int) -> None:
    imported = melotts(corpus, b"wavs/a.wav|one|s|KR\n" + b"x" * size + b"\nbad\nwavs/c.wav|three|s|KR\n")
    assert ids(imported) == ["a", "c"]
    assert reasons(imported) == {"too long": 1, "malformed line": 1}
    assert "metadata.list:2: " in imported.account.drops["too long"].examples[0]
    assert "metadata.list:3:" in imported.account.drops["malformed line"].examples[0]


def test_line_numbers_hold_across_empty_lines_and_chunks(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_kernel.data.manifest.jsonl.CHUNK", 64)
    imported = melotts(corpus, b"\n" * 50 + b"wavs/a.wav|one|s|KR\n" + b"\n" * 50 + b"bad\n" + b"wavs/b.wav|two|s|KR\n")
    assert ids(imported) == ["a", "b"]
    assert ":102: " in imported.account.drops["malformed line"].examples[0]


@pytest.mark.parametrize("path", ["/etc/passwd", "../b.wav", "wavs/../../b.wav", "C:/b.wav", ".."])
def test_paths_that_leave_the_folder_are_dropped(corpus: Path, path: str) -> None:
    imported = melotts(corpus, f"{path}|one|s|KR\nwavs/a.wav|one|s|KR\n".encode())
    assert ids(imported) == ["a"]
    assert reasons(imported) == {"outside": 1}
    assert "allow_outside" in imported.account.drops["outside"].examples[0]


@pytest.mark.parametrize("path", ["", " ", r"wavs\b.wav", "wavs/\x01b.wav"])
def test_paths_that_are_none_are_dropped_even_where_outside_is_allowed(corpus: Path, path: str) -> None:
    imported = melotts(corpus, f"{path}|one|s|KR\nwavs/a.wav|one|s|KR\n".encode(), allow_outside=True)
    assert ids(imported) == ["a"]
    assert reasons(imported) == {"bad path": 1}


def test_paths_outside_are_read_where_allowed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = write_wav(tmp_path_factory.mktemp("other") / "d.wav")
    lines = f"{other}|one|s|KR\nwavs/../wavs/a.wav|two|s|KR\n".encode()
    imported = melotts(corpus, lines, allow_outside=True)
    assert ids(imported) == ["d", "a"]
    assert imported.utterances.paths()[0] == other


def test_an_absolute_path_inside_the_folder_becomes_relative(corpus: Path) -> None:
    imported = melotts(corpus, f"{corpus}/wavs/a.wav|one|s|KR\n".encode())
    assert imported.utterances.strings("audio").to_pylist() == ["wavs/a.wav"]


def test_empty_texts_missing_audio_and_repeated_clips_are_dropped(corpus: Path) -> None:
    lines = (
        b"wavs/a.wav|  |s|KR\nwavs/b.wav|one|s|KR\nwavs/x.wav|two|s|KR\nwavs/b.wav|again|s|KR\nwavs/a.wav|good|s|KR\n"
    )
    imported = melotts(corpus, lines)
    assert ids(imported) == ["b", "a"]
    assert reasons(imported) == {"empty text": 1, "missing audio": 1, "duplicate id": 1}
    place = f"{corpus / 'metadata.list'}"
    assert imported.account.drops["missing audio"].examples == [f"{place}:3: wavs/x.wav does not exist"]
    assert imported.account.drops["duplicate id"].examples == [f"{place}:4: wavs/b.wav occurs before"]


def test_missing_audio_is_kept_where_files_are_not_checked(corpus: Path) -> None:
    assert ids(melotts(corpus, b"wavs/x.wav|two|s|KR\n", check_files=False)) == ["x"]


def test_braces_in_names_are_plain_characters(corpus: Path) -> None:
    imported = melotts(corpus, b"wavs/{0}.wav|two|s|KR\n")
    assert imported.account.drops["missing audio"].examples[0].endswith("wavs/{0}.wav does not exist")


def test_only_the_first_examples_are_kept(corpus: Path) -> None:
    imported = melotts(corpus, b"bad\n" * 100)
    assert imported.account.drops["malformed line"].count == 100
    assert len(imported.account.drops["malformed line"].examples) == 5


def test_many_paths_are_found_by_listings_as_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.wav", "s/b.wav", "s/t/c d.wav", "s//b.wav", "./a.wav", "none.wav", "no/folder.wav", "s", "s/t/한.wav"]
    for name in ("a.wav", "s/b.wav", "s/t/c d.wav", "s/t/한.wav"):
        write_wav(tmp_path / name)
    (tmp_path / "s" / "link.wav").symlink_to("b.wav")
    (tmp_path / "s" / "broken.wav").symlink_to("nowhere")
    (tmp_path / "s" / b"\xff.wav".decode("utf-8", "surrogateescape")).touch()
    paths = collect.pa.chunked_array([[*names, "s/link.wav", "s/broken.wav", str(tmp_path / "a.wav")]], collect.TEXT)
    one_by_one = collect.existing(tmp_path, paths)
    assert one_by_one.tolist() == [True] * 5 + [False] * 3 + [True, True, False, True]
    monkeypatch.setattr(collect, "_FEW", 3)
    monkeypatch.setattr(collect, "_BATCH", 2)
    np.testing.assert_array_equal(collect.existing(tmp_path, paths), one_by_one)
