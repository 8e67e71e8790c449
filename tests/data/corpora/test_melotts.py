from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.corpora.clips import read, reasons, rows, small_corpus, write_wav
from tts_kernel.data.corpora import CorpusError, Utterances, read_melotts, write_melotts
from tts_kernel.data.corpora.melotts import GUIDE, UPSTREAM


def listed(folder: Path, *lines: str) -> Path:
    (folder / "train_list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "train_list.txt"


def test_the_language_may_be_left_out(tmp_path: Path) -> None:
    for name in "ab":
        write_wav(tmp_path / "wavs" / f"{name}.wav")
    path = listed(tmp_path, "wavs/a.wav|안녕|SPEAKER_001|KR", "wavs/b.wav |hello|SPEAKER_001")
    assert rows(read("melotts", path).utterances, {"id", "language"}) == {"a": ("a", "KR"), "b": ("b", "")}
    given = read("melotts", path, language="EN").utterances
    assert rows(given, {"id", "language"}) == {"a": ("a", "KR"), "b": ("b", "EN")}


def test_upstreams_order_is_read_and_written(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "source")
    write_melotts(corpus, tmp_path / "list", order=UPSTREAM)
    first = (tmp_path / "list" / "metadata.list").read_text(encoding="utf-8").split("\n")[0].split("|")
    assert first[1:3] == ["스피커_0", "ko"]
    names = {"id", "text", "speaker", "language"}
    assert rows(read("melotts", tmp_path / "list", order=UPSTREAM).utterances, names) == rows(corpus, names)


@pytest.mark.parametrize(("order", "line"), [(GUIDE, "a.wav|S1|KR|안녕"), (UPSTREAM, "a.wav|안녕|S1|KR")])
def test_a_list_in_the_other_order_is_refused(tmp_path: Path, order: tuple[str, ...], line: str) -> None:
    with pytest.raises(CorpusError, match=r"is a language code.*pass order="):
        read_melotts(listed(tmp_path, *[line] * 3), order=order, check_files=False)


def test_an_order_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"order text\|audio: expected audio\|text\|speaker\|language"):
        read_melotts(listed(tmp_path, "x"), order=("text", "audio"))


def test_a_text_with_the_separator_is_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    corpus = Utterances.of(tmp_path, id=["a"], audio=["a.wav"], text=["this|that"])
    with pytest.raises(CorpusError, match=r"text has a '\|'"):
        write_melotts(corpus, tmp_path / "list")
    imported = read("melotts", listed(tmp_path, "a.wav|this|that|s|KR"))
    assert reasons(imported) == {"malformed line": 1}


def test_file_names_that_repeat_give_ids_from_paths(tmp_path: Path) -> None:
    lines = ["s1/001.wav|a|s1|KR", "s2/001.wav|b|s2|KR", "s2/001.wav|c|s2|KR", "s2/v1.2.wav|d|s2|KR"]
    imported = read("melotts", listed(tmp_path, *lines), check_files=False)
    assert imported.utterances.strings("id").to_pylist() == ["s1_001", "s2_001", "s2_v1.2"]
    assert reasons(imported) == {"duplicate id": 1}
