from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.corpora.clips import read, reasons, rows, write_wav
from tts_kernel.data.corpora import CorpusError, Utterances, write_ljspeech


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for number in range(4):
        write_wav(tmp_path / "wavs" / f"LJ{number}.wav")
    lines = [
        'LJ0|He said "no|He said "no',  # as CSV this quotation mark would swallow the next line
        'LJ1|"Dr. Who" in 1904|"Doctor Who" in nineteen oh four',
        "LJ2|only raw",
        "LJ3|raw|",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def test_quotation_marks_are_characters(corpus: Path) -> None:
    imported = read("ljspeech", corpus, speaker="lj", language="en")
    assert rows(imported.utterances, {"id", "speaker", "language", "text"}) == {
        "LJ0": ("LJ0", "en", "lj", 'He said "no'),
        "LJ1": ("LJ1", "en", "lj", '"Doctor Who" in nineteen oh four'),
        "LJ2": ("LJ2", "en", "lj", "only raw"),
        "LJ3": ("LJ3", "en", "lj", "raw"),
    }


def test_the_raw_text_may_be_asked_for(corpus: Path) -> None:
    texts = read("ljspeech", corpus / "metadata.csv", normalised=False).utterances.strings("text").to_pylist()
    assert texts == ['He said "no', '"Dr. Who" in 1904', "only raw", "raw"]


def test_raw_and_normalised_text_survive_a_round_trip(corpus: Path, tmp_path: Path) -> None:
    first = read("ljspeech", corpus).utterances
    write_ljspeech(first, tmp_path / "again")
    again = read("ljspeech", tmp_path / "again").utterances
    assert rows(again, {"id", "text", "raw_text"}) == rows(first, {"id", "text", "raw_text"})


def test_what_the_layout_cannot_hold_is_refused_by_name(corpus: Path, tmp_path: Path) -> None:
    first = read("ljspeech", corpus).utterances
    texts = ["a|b", "line\nend", "fine", "fine"]
    with pytest.raises(CorpusError, match=r"(?s)2 text has a '\|' or a line end.*'LJ0': 'a\|b'.*drop_unfit"):
        write_ljspeech(first.with_column("text", texts), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    account = write_ljspeech(first.with_column("text", texts), tmp_path / "new", drop_unfit=True)
    assert (account.kept, account.dropped) == (2, 2)
    assert read("ljspeech", tmp_path / "new").utterances.strings("id").to_pylist() == ["LJ2", "LJ3"]


@pytest.mark.parametrize("name", ["a/b", "../up", ".hidden", "", "x" * 201, "a\\b", "a|b", "a\nb"])
def test_ids_that_would_be_other_files_are_refused(corpus: Path, tmp_path: Path, name: str) -> None:
    bad = Utterances.of(corpus, id=[name], audio=["wavs/LJ0.wav"], text=["x"])
    with pytest.raises(CorpusError, match="id has"):
        write_ljspeech(bad, tmp_path / "new")


def test_ids_cannot_lead_out_of_the_folder(corpus: Path) -> None:
    with (corpus / "metadata.csv").open("a", encoding="utf-8") as file:
        file.write("\n../../etc/passwd|text\n/etc/passwd|text")
    imported = read("ljspeech", corpus)
    assert len(imported.utterances) == 4
    assert reasons(imported) == {"outside": 1, "missing audio": 1}
    assert imported.account.drops["missing audio"].examples[0].endswith("wavs//etc/passwd.wav does not exist")


def test_no_metadata_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"metadata\.csv: no such file"):
        read("ljspeech", tmp_path)
