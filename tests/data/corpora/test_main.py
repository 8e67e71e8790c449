"""The command line: one corpus in, another out, the account on the screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.corpora.clips import KINDS, read, rows, small_corpus, write
from tts_kernel.data.corpora.__main__ import main


@pytest.mark.parametrize("source_kind", KINDS)
def test_a_corpus_is_rewritten_and_accounted_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source_kind: str
) -> None:
    corpus = small_corpus(tmp_path / "source")
    write(source_kind, corpus, tmp_path / "in")
    assert main([source_kind, str(tmp_path / "in"), "melotts", str(tmp_path / "out"), "--speaker", "x"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(": 15 read, 15 kept, 0 dropped")
    assert printed[1] == "a MeloTTS list: 15 read, 15 kept, 0 dropped"
    assert rows(read("melotts", tmp_path / "out").utterances, {"id", "text"}) == rows(corpus, {"id", "text"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "source"], "nothing else is left behind"


def test_drops_are_printed_with_their_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = small_corpus(tmp_path / "source", ["fine", "this|that", "gone"])
    write("folder", corpus, tmp_path / "in")
    gone = corpus.strings("id")[2].as_py()
    (tmp_path / "in" / "스피커_2" / f"{gone}.txt").unlink()
    arguments = ["folder", str(tmp_path / "in"), "melotts", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "text has a '|'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--drop-unfit", "--language", "KR"]) == 0
    printed = capsys.readouterr().out
    assert "3 read, 2 kept, 1 dropped" in printed
    assert "2 read, 1 kept, 1 dropped" in printed
    assert f"{gone}.wav: no .txt or .lab of that name" in printed
    assert (tmp_path / "out" / "metadata.list").read_text(encoding="utf-8").endswith("|fine|스피커_0|KR\n")


def test_an_existing_target_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert main(["kaldi", str(tmp_path / "no such source"), "folder", str(tmp_path / "out")]) == 1
    assert "exists and is not an empty folder" in capsys.readouterr().err


def test_audio_inside_of_shards_cannot_be_referred_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("cosyvoice2", small_corpus(tmp_path / "source"), tmp_path / "in")
    assert main(["cosyvoice2", str(tmp_path / "in"), "kaldi", str(tmp_path / "out"), "--audio", "refer"]) == 1
    assert "inside of other files" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
