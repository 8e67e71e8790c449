from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from tests.data.corpora.clips import read, reasons, rows, small_corpus, write_wav
from tts_kernel.data.corpora import CorpusError, Utterances, write_folder, write_kaldi


def kaldi(folder: Path, **files: str) -> Path:
    """A data folder with these files; `wav_scp` is wav.scp."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    for name in "ab":
        write_wav(folder / f"{name}.wav", 16000)
    return folder


def test_files_in_any_order_are_joined_by_id(tmp_path: Path) -> None:
    folder = kaldi(
        tmp_path / "data",
        wav_scp="b b.wav\na  a.wav\n",
        text="a  hello   there \nb\t안녕 \n",
        utt2spk="b bert\n",
        utt2lang="a en\n",
        utt2dur="b 1.00\na x\n",
    )
    imported = read("kaldi", folder)
    assert rows(imported.utterances, {"id", "audio", "text", "speaker", "language", "duration"}) == {
        "a": ("a.wav", None, "a", "en", "", "hello   there"),
        "b": ("b.wav", 1.0, "b", "", "bert", "안녕"),
    }
    assert reasons(imported) == {}


def test_a_command_in_wav_scp_is_refused_and_not_executed(tmp_path: Path) -> None:
    folder = kaldi(
        tmp_path / "data",
        wav_scp=f"a a.wav\nb touch {tmp_path}/executed; cat b.wav |\nc | tee {tmp_path}/executed\n",
        text="a x\nb y\nc z\n",
    )
    imported = read("kaldi", folder, probe=True, allow_outside=True)
    assert imported.utterances.strings("id").to_pylist() == ["a"]
    assert reasons(imported) == {"command in wav.scp": 2}
    first = imported.account.drops["command in wav.scp"].examples[0]
    assert first.startswith(f"{folder}/wav.scp:2: 'touch ")
    assert "never executed" in first
    assert not (tmp_path / "executed").exists()


def test_every_utterance_and_every_useless_line_is_accounted_for(tmp_path: Path) -> None:
    folder = kaldi(
        tmp_path / "data",
        wav_scp="a a.wav\nb b.wav\nb a.wav\nunspoken a.wav\nalone\n",
        text="a x\nb\nc no audio\na twice\n",
        utt2spk="a anna\nbroken\n",
    )
    imported = read("kaldi", folder)
    assert imported.utterances.strings("id").to_pylist() == ["a"]
    assert reasons(imported) == {
        "duplicate id": 2,
        "malformed line": 2,
        "no text": 1,
        "empty text": 1,
        "missing audio": 1,
    }
    assert imported.account.drops["missing audio"].examples == [f"{folder}/text:3: 'c' is not in wav.scp"]
    assert imported.account.drops["empty text"].examples == [f"{folder}/text:2: b.wav has no text"]


def test_an_utterance_without_a_speaker_has_its_own_id_there(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "source").with_column("speaker", [""] * 15)
    write_kaldi(corpus, tmp_path / "kaldi")
    first = (tmp_path / "kaldi" / "utt2spk").read_text(encoding="utf-8").split("\n")[0].split(" ")
    assert first[0] == first[1]
    assert set(read("kaldi", tmp_path / "kaldi").utterances.strings("speaker").to_pylist()) == {""}


def test_written_files_are_sorted_in_byte_order(tmp_path: Path) -> None:
    names = ["b", "a_2", "a-1", "B", "한", "é"]
    for name in names:
        write_wav(tmp_path / f"{name}.wav")
    audio = [f"{name}.wav" for name in names]
    speakers = ["z", "a", "Z", "a", "a", "z"]
    write_kaldi(Utterances.of(tmp_path, id=names, audio=audio, text=audio, speaker=speakers), tmp_path / "kaldi")
    for name in ("wav.scp", "text", "utt2spk"):
        lines = (tmp_path / "kaldi" / name).read_bytes().splitlines()
        assert lines == sorted(lines)
        assert len(lines) == len(names)
    groups = (tmp_path / "kaldi" / "spk2utt").read_text(encoding="utf-8").splitlines()
    assert groups == ["Z a-1", "a B a_2 한", "z b é"]


@pytest.fixture
def segmented(tmp_path: Path) -> Path:
    return kaldi(
        tmp_path / "data",
        wav_scp="rec1 a.wav\nrec2 b.wav\nrec3 cat x |\n",
        text="u1 one\nu2 two\nu3 three\nu4 four\nu5 five\nu6 six\nu7 seven\n",
        utt2spk="u1 s\n",
        segments="u1 rec1 0 0.25\nu2 rec1 0.25 0.5\nu3 rec2 0.125 -1\nu4 rec2 0.5 0.5\nu5 nowhere 0 1\n"
        "u6 rec3 0 1\nu9 rec1 0 1\n",
    )


def test_segments_have_their_place_in_the_recording(segmented: Path) -> None:
    imported = read("kaldi", segmented)
    assert rows(imported.utterances, {"id", "audio", "recording", "start", "duration"}) == {
        "u1": ("a.wav", 0.25, "u1", "rec1", 0.0),
        "u2": ("a.wav", 0.25, "u2", "rec1", 0.25),
        "u3": ("b.wav", None, "u3", "rec2", 0.125),
    }
    expected = {"bad segment": 1, "missing audio": 2, "command in wav.scp": 1, "no text": 1}
    assert reasons(imported) == expected
    assert "u4 rec2 0.5 0.5, expected <recording> <begin> <end>" in imported.account.drops["bad segment"].examples[0]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_segments_are_cut_out_exactly_when_written(segmented: Path, tmp_path: Path, subtype: str) -> None:
    for name in "ab":
        write_wav(segmented / f"{name}.wav", 16000, subtype=subtype)
    write_folder(read("kaldi", segmented).utterances, tmp_path / "cut")
    for path, source, first, last in (
        ("s/u1.wav", "a.wav", 0, 4000),
        ("u2.wav", "a.wav", 4000, 8000),
        ("u3.wav", "b.wav", 2000, 16000),
    ):
        assert soundfile.info(str(tmp_path / "cut" / path)).subtype == subtype
        whole, _ = soundfile.read(segmented / source)
        part, _ = soundfile.read(tmp_path / "cut" / path)
        assert part.tolist() == whole[first:last].tolist()


def test_a_segment_that_begins_after_its_recording_stops_the_export(segmented: Path, tmp_path: Path) -> None:
    corpus = read("kaldi", segmented).utterances
    with pytest.raises(CorpusError, match=r"(?s)1 of 3 clips have no usable audio.*a\.wav: ends before 5\.0 s"):
        write_folder(corpus.with_column("start", [5.0, 0.0, 0.0]), tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


def test_paths_may_start_from_another_folder(tmp_path: Path) -> None:
    folder = kaldi(tmp_path / "data", wav_scp="a data/a.wav\n", text="a x\n")
    assert reasons(read("kaldi", folder)) == {"missing audio": 1}
    assert read("kaldi", folder, root=tmp_path).utterances.paths() == [folder / "a.wav"]


def test_ids_and_speakers_with_blanks_are_refused(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "source", ["one", "two"])
    with pytest.raises(CorpusError, match="speaker has a blank"):
        write_kaldi(corpus.with_column("speaker", ["a b", "c"]), tmp_path / "kaldi")
    with pytest.raises(CorpusError, match="id has a blank"):
        write_kaldi(corpus.with_column("id", ["a\u3000b", "c"]), tmp_path / "kaldi")


@pytest.mark.parametrize("missing", ["text", "wav.scp"])
def test_a_folder_without_its_files_is_an_error(tmp_path: Path, missing: str) -> None:
    folder = kaldi(tmp_path / "data", wav_scp="a a.wav\n", text="a x\n")
    (folder / missing).unlink()
    with pytest.raises(CorpusError, match=f"{missing}: no such file"):
        read("kaldi", folder)
