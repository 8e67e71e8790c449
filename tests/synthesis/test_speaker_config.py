from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tts_kernel.synthesis.speaker_config import Speaker, SpeakerError, add_speaker, read_speaker_config

PATHS = {
    "llm_lora_model_path": "voices/kim/llm.pt",
    "flow_lora_model_path": "voices/kim/flow.pt",
    "spk_embedding_path": "spk2embedding.pt",
}
KIM: dict[str, Any] = {"type": "lora", **PATHS, "description": "calm", "active": True}


def write(folder: Path, values: Any) -> Path:
    """The file, and those that KIM names."""
    for name in PATHS.values():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    path = folder / "speaker_config.json"
    text = values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path) -> str:
    return "\n".join(read_speaker_config(path)[1])


def test_the_guides_schema_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, {"speakers": {"kim": KIM, "lee": {**KIM, "active": False}}, "default_speaker": "kim"})
    config, found = read_speaker_config(path)
    assert found == []
    assert config.speakers["kim"] == Speaker(**KIM)
    assert config.default_speaker == "kim"
    assert config.active == ["kim"]
    assert config.file("kim", "llm_lora_model_path") == tmp_path / "voices/kim/llm.pt"


def test_what_is_written_is_the_guides_schema(tmp_path: Path) -> None:
    path = tmp_path / "speaker_config.json"
    add_speaker(path, "kim", Speaker(**KIM))
    assert json.loads(path.read_text(encoding="utf-8")) == {"speakers": {"kim": KIM}, "default_speaker": "kim"}


def test_adding_a_speaker_keeps_the_others_whatever_they_hold(tmp_path: Path) -> None:
    others = {"lee": {**KIM, "description": "목소리"}, "old": {"type": "sft", "path": "x"}}
    path = write(tmp_path, {"speakers": others, "default_speaker": "lee", "note": 1})
    add_speaker(path, "kim", Speaker(**KIM))
    after = json.loads(path.read_text(encoding="utf-8"))
    assert after == {"speakers": {**others, "kim": KIM}, "default_speaker": "lee", "note": 1}
    add_speaker(path, "kim", Speaker(**{**KIM, "description": "again"}), default=True)
    after = json.loads(path.read_text(encoding="utf-8"))
    assert after["speakers"] == {**others, "kim": {**KIM, "description": "again"}}
    assert after["default_speaker"] == "kim"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_a_file_that_cannot_be_read_is_never_written_over(tmp_path: Path) -> None:
    path = write(tmp_path, '{"speakers": {} // none yet\n}')
    before = path.read_bytes()
    with pytest.raises(SpeakerError, match="comment"):
        add_speaker(path, "kim", Speaker(**KIM))
    assert path.read_bytes() == before
    path.write_text('{"speakers": []}', encoding="utf-8")
    with pytest.raises(SpeakerError, match="no object 'speakers'"):
        add_speaker(path, "kim", Speaker(**KIM))
    assert path.read_text(encoding="utf-8") == '{"speakers": []}'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{\n"speakers": {}, // the base voice\n"default_speaker": ""}', 2),
        ('{\n"speakers": {} /* none */,\n"default_speaker": ""}', 2),
        ('# voices\n{"speakers": {}}', 1),
        ('{"speakers": {}}\n// the end', 2),
        ('{"speakers":\n// voices\n{}}', 2),
    ],
)
def test_a_comment_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpeakerError, match=rf"speaker_config.json:{line}: a comment .*JSON has none"):
        read_speaker_config(path)


def test_slashes_inside_text_are_no_comment(tmp_path: Path) -> None:
    said = {**KIM, "description": "see // and # here"}
    path = write(tmp_path, {"speakers": {"kim": said}, "default_speaker": "kim"})
    assert problems(path) == ""


@pytest.mark.parametrize("text", ["", "{", '{"speakers": {},}', "[1]", "\x00"])
def test_what_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpeakerError, match=r"no JSON|holds a list"):
        read_speaker_config(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpeakerError, match=r"none.json: no such file"):
        read_speaker_config(tmp_path / "none.json")


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(KIM)
    path = write(tmp_path, f'{{"speakers": {{"kim": {entry}, "kim": {entry}}}, "default_speaker": "kim"}}')
    with pytest.raises(SpeakerError, match="'kim' more than once"):
        read_speaker_config(path)


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    wrong = {**{key: value for key, value in KIM.items() if key != "active"}, "activ": True, "type": "sft"}
    speakers = {"a": wrong, "b": {**KIM, "active": "yes"}, "c": 3, "kim": {**KIM, "active": False}}
    path = write(tmp_path, {"speakers": speakers, "default_speaker": "nobody", "comment": ""})
    found = problems(path)
    for part in (
        "comment: not a known key",
        "speakers.a.active: missing",
        "speakers.a.activ: not a known key",
        "speakers.a.type: found 'sft', expected 'lora'",
        "speakers.b.active: found 'yes', expected true or false",
        "speakers.c: found int, expected an object",
        "no speaker is active among 'a', 'b', 'c', 'kim'",
        "default_speaker: found 'nobody'",
    ):
        assert part in found


def test_a_default_speaker_that_is_not_active_is_refused(tmp_path: Path) -> None:
    speakers = {"kim": KIM, "lee": {**KIM, "active": False}}
    path = write(tmp_path, {"speakers": speakers, "default_speaker": "lee"})
    assert problems(path) == "default_speaker: 'lee' is not active; name one of 'kim'"


def test_no_active_speaker_is_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path, {"speakers": {"kim": {**KIM, "active": False}}, "default_speaker": "kim"})
    assert "no speaker is active among 'kim'; set active to true" in problems(path)


@pytest.mark.parametrize(
    "elsewhere", ["/home/you/export/voices/kim/llm.pt", r"C:\export\voices\kim\llm.pt", "export/voices/kim/llm.pt"]
)
def test_a_path_of_another_machine_is_named_with_the_file_beside(tmp_path: Path, elsewhere: str) -> None:
    entry = {**KIM, "llm_lora_model_path": elsewhere}
    path = write(tmp_path, {"speakers": {"kim": entry}, "default_speaker": "kim"})
    found = problems(path)
    assert found.startswith(f"speakers.kim.llm_lora_model_path: {elsewhere} is not on this machine")
    assert found.endswith('voices/kim/llm.pt lies beside speaker_config.json; write "voices/kim/llm.pt"')


def test_a_path_without_any_such_file_is_named(tmp_path: Path) -> None:
    entry = {**KIM, "llm_lora_model_path": "/home/you/epoch_29_whole.pt", "flow_lora_model_path": "../../flow.pt"}
    path = write(tmp_path / "deep", {"speakers": {"kim": entry}, "default_speaker": "kim"})
    (tmp_path / "flow.pt").touch()
    assert problems(path).count("does not exist, nor does such a file beside") == 2


def test_absolute_paths_of_this_machine_and_inactive_speakers_files_are_accepted(tmp_path: Path) -> None:
    entry = {**KIM, "llm_lora_model_path": str(tmp_path / "voices/kim/llm.pt")}
    gone = {**KIM, "llm_lora_model_path": "gone.pt", "active": False}
    path = write(tmp_path, {"speakers": {"kim": entry, "lee": gone}, "default_speaker": "kim"})
    assert problems(path) == ""
