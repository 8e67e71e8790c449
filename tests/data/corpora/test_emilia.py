from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.data.corpora.clips import read, reasons, rows, small_corpus, write_wav
from tts_kernel.data.corpora import CorpusError, write_emilia

EMILIA: dict[str, Any] = {
    "id": "EN_B00000_S00003_W000001",
    "wav": "EN_B00000/EN_B00000_S00003/mp3/EN_B00000_S00003_W000001.mp3",
    "text": " The birch canoe.",
    "duration": 3.228,
    "speaker": "EN_B00000_S00003",
    "language": "en",
    "dnsmos": 3.3697,
}
YODAS: dict[str, Any] = {  # another spelling of the id, and no path
    "_id": "KO_B000000_S00109_W000023",
    "text": "안녕하세요",
    "duration": 3,
    "speaker": "KO_wSq11gYbUgU_SPEAKER_04",
    "language": "ko",
    "dnsmos": 3.1,
    "phone_count": 21,
}
SEEN = {"id", "text", "speaker", "language", "duration", "recording", "dnsmos"}


def expected(clip: dict[str, Any], recording: str) -> tuple[Any, ...]:
    name = clip.get("id") or clip["_id"]
    values = (clip["dnsmos"], clip["duration"], name, clip["language"], recording, clip["speaker"])
    return (*values, clip["text"].strip())


BOTH = {
    "EN_B00000_S00003_W000001": expected(EMILIA, "EN_B00000_S00003"),
    "KO_B000000_S00109_W000023": expected(YODAS, "KO_wSq11gYbUgU"),
}


def lines(folder: Path, *objects: object, name: str = "batch.jsonl") -> Path:
    written = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in objects]
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(written) + "\n", encoding="utf-8")
    return folder


def test_json_beside_audio_is_read_in_both_spellings(tmp_path: Path) -> None:
    for number, clip in enumerate((EMILIA, YODAS)):
        stem = tmp_path / f"KO-B00000{number}" / (clip.get("id") or clip["_id"])
        write_wav(stem.with_suffix(".wav"))
        stem.with_suffix(".json").write_text(json.dumps(clip, indent=2), encoding="utf-8")
    imported = read("emilia", tmp_path)
    assert rows(imported.utterances, SEEN) == BOTH
    assert imported.utterances.strings("audio").to_pylist() == [
        "KO-B000000/EN_B00000_S00003_W000001.wav",
        "KO-B000001/KO_B000000_S00109_W000023.wav",
    ]


def test_json_lines_name_audio_from_their_own_folder(tmp_path: Path) -> None:
    write_wav(tmp_path / "EN" / "x" / "a.wav")
    write_wav(tmp_path / "KO" / "b.wav")
    lines(tmp_path / "EN", EMILIA | {"wav": "x/a.wav"})
    lines(tmp_path / "KO", YODAS | {"wav": "b.wav"})
    imported = read("emilia", tmp_path)
    assert rows(imported.utterances, SEEN) == BOTH
    assert imported.utterances.strings("audio").to_pylist() == ["EN/x/a.wav", "KO/b.wav"]
    assert read("emilia", tmp_path / "KO" / "batch.jsonl").utterances.strings("audio").to_pylist() == ["b.wav"]


def test_bad_objects_are_left_out_with_their_lines(tmp_path: Path) -> None:
    folder = lines(
        tmp_path,
        EMILIA,
        "{not json",
        "",
        EMILIA | {"id": 7},
        EMILIA | {"duration": "long"},
        EMILIA | {"duration": True},
        "[1, 2]",
        '{"id": "s", "wav": "a.wav", "text": "\\ud800"}',
        {"id": "only"},
        {"wav": "a.wav", "text": "x"},
        '{"id": "n", "wav": "a.wav", "text": "x", "duration": NaN, "sample_rate": 24000}',
        EMILIA | {"id": "rate", "sample_rate": 10**12},
        '{"id": "torn", "wav": "a.w',
    )
    imported = read("emilia", folder, check_files=False)
    assert rows(imported.utterances, {"id", "duration"}) == {
        EMILIA["id"]: (3.228, EMILIA["id"]),
        "n": (None, "n"),
    }
    assert reasons(imported) == {"not json": 3, "wrong type": 4, "encoding": 1, "bad path": 1, "no id": 1}
    assert imported.account.drops["not json"].examples[0].startswith(f"{folder / 'batch.jsonl'}:2: not JSON: ")
    assert (
        f"{folder / 'batch.jsonl'}:5: duration is 'long', expected float"
        in imported.account.drops["wrong type"].examples
    )


def test_objects_are_the_same_read_by_arrow_or_one_by_one(tmp_path: Path) -> None:
    quick = lines(tmp_path / "quick", EMILIA, YODAS | {"wav": "x.mp3"}, {"id": "z", "wav": "z", "text": '"\\/ é'})
    slow = lines(
        tmp_path / "slow", EMILIA, "broken", YODAS | {"wav": "x.mp3"}, {"id": "z", "wav": "z", "text": '"\\/ é'}
    )
    first = read("emilia", quick, check_files=False).utterances.table
    assert read("emilia", slow, check_files=False).utterances.table.equals(first)
    assert len(first) == 3


def test_of_clips_with_one_id_the_first_usable_one_stays(tmp_path: Path) -> None:
    for name in "bc":
        write_wav(tmp_path / f"{name}.wav")
    clips = [{"id": "x", "wav": f"{name}.wav", "text": name} for name in "abc"]
    imported = read("emilia", lines(tmp_path, *clips))
    assert imported.utterances.strings("text").to_pylist() == ["b"]
    assert reasons(imported) == {"missing audio": 1, "duplicate id": 1}
    [example] = imported.account.drops["duplicate id"].examples
    assert example == f"{tmp_path / 'batch.jsonl'}:3: id 'x' occurs before"


def test_durations_that_are_none_are_unknown(tmp_path: Path) -> None:
    clips = [{"id": str(value), "wav": f"{value}", "text": "x", "duration": value} for value in (-1.0, 0.0, 2.5)]
    imported = read("emilia", lines(tmp_path, *clips), check_files=False)
    assert imported.utterances.strings("duration").to_pylist() == [None, 0.0, 2.5]


def test_an_object_is_one_line(tmp_path: Path) -> None:
    two_in_one = '{"id": "b", "wav": "b", "text": "x"} {"id": "c", "wav": "c", "text": "x"}'
    one_in_two = '{"id": "d", "wav": "d",\n "text": "x"}'
    for number, (objects, bad) in enumerate(
        (([two_in_one], 1), ([one_in_two], 2), ([two_in_one, one_in_two], 3))  # the last are as many as their lines
    ):
        imported = read("emilia", lines(tmp_path / str(number), EMILIA, *objects), check_files=False)
        assert imported.utterances.strings("id").to_pylist() == [EMILIA["id"]]
        assert reasons(imported) == {"not json": bad}


@pytest.mark.parametrize("wav", ["/etc/passwd", "../../a.wav"])
def test_paths_in_json_lines_stay_inside(tmp_path: Path, wav: str) -> None:
    assert reasons(read("emilia", lines(tmp_path / "EN", EMILIA | {"wav": wav}).parent)) == {"outside": 1}


def test_json_and_audio_without_each_other_are_dropped(tmp_path: Path) -> None:
    write_wav(tmp_path / "alone.wav")
    (tmp_path / "lonely.json").write_text(json.dumps(EMILIA), encoding="utf-8")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    write_wav(tmp_path / "bad.wav")
    assert reasons(read("emilia", tmp_path)) == {"no text": 1, "missing audio": 1, "encoding": 1}


def test_one_json_per_clip_is_written(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "source").with_column("dnsmos", [3.5] * 15)
    write_emilia(corpus, tmp_path / "emilia", form="json")
    assert not list(tmp_path.glob("emilia/*.jsonl"))
    again = read("emilia", tmp_path / "emilia").utterances
    names = {"id", "text", "speaker", "language", "duration", "sample_rate", "recording", "dnsmos"}
    assert rows(again, names) == rows(corpus, names)


def tar_of(path: Path, *members: tuple[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def wav(tmp_path: Path) -> bytes:
    return write_wav(tmp_path / "elsewhere" / "x.wav").read_bytes()


def as_json(clip: dict[str, Any]) -> bytes:
    return json.dumps(clip).encode()


def test_tar_files_are_read_and_their_audio_unpacked(tmp_path: Path, wav: bytes) -> None:
    (tmp_path / "KO").mkdir()
    tar_of(tmp_path / "KO" / "KO-B000000.tar", ("a.json", as_json(EMILIA)), ("a.wav", wav))
    tar_of(tmp_path / "KO" / "KO-B000001.tar", ("./a.wav", wav), ("./a.json", as_json(YODAS)), ("x.txt", b"x"))
    imported = read("emilia", tmp_path / "KO", audio_folder=tmp_path / "audio", probe=True)
    assert reasons(imported) == {}
    seen = rows(imported.utterances, SEEN - {"duration"})
    assert seen == {name: values[:1] + values[2:] for name, values in BOTH.items()}
    assert [path.read_bytes() for path in imported.utterances.paths()] == [wav, wav]


def test_tar_files_need_a_folder_for_their_audio(tmp_path: Path, wav: bytes) -> None:
    tar_of(tmp_path / "a.tar", ("a.json", as_json(EMILIA)), ("a.wav", wav))
    with pytest.raises(CorpusError, match="pass audio_folder"):
        read("emilia", tmp_path / "a.tar")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(CorpusError, match="not an empty folder"):
        read("emilia", tmp_path / "a.tar", audio_folder=tmp_path / "full")


def test_nothing_of_a_tar_leaves_its_folder(tmp_path: Path, wav: bytes) -> None:
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = [
        ("../../evil.wav", wav),
        ("/tmp/evil.wav", wav),
        ("link.wav", link),
        ("a.json", as_json(EMILIA)),
        ("a.wav", wav),
    ]
    tar_of(tmp_path / "a.tar", *members, ("b.json", as_json(YODAS)), ("c.wav", wav), ("c.ogg", wav), ("a.wav", wav))
    imported = read("emilia", tmp_path / "a.tar", audio_folder=tmp_path / "out" / "audio")
    assert reasons(imported) == {"outside": 3, "missing audio": 1, "no text": 1, "duplicate id": 2}
    written = [path for path in (tmp_path / "out").rglob("*") if not path.is_dir()]
    assert written == [tmp_path / "out" / "audio" / "a" / "a.wav"]


@pytest.mark.parametrize(
    "cut", [600, 1024, 2100, 5200], ids=["in json", "before a header", "in audio", "before the end"]
)
def test_what_a_torn_tar_still_holds_is_kept(tmp_path: Path, wav: bytes, cut: int) -> None:
    whole = tar_of(tmp_path / "whole.tar", ("a.json", as_json(EMILIA)), ("a.wav", wav)).read_bytes()
    (tmp_path / "torn.tar").write_bytes(whole[:cut])
    imported = read("emilia", tmp_path / "torn.tar", audio_folder=tmp_path / "audio")
    assert reasons(imported).get("damaged tar") == 1
    assert len(imported.utterances) == int(cut > 5000)


def test_what_is_no_tar_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive" * 100)
    assert reasons(read("emilia", tmp_path / "a.tar", audio_folder=tmp_path / "audio")) == {"damaged tar": 1}


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file or folder"):
        read("emilia", tmp_path / "none")
