from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import read_rows, write_rows
from tts_kernel.data.manifest import ManifestError, read_manifest, write_manifest

ROW: dict[str, Any] = {
    "id": "a__b",
    "target_id": "a",
    "prompt_id": "b",
    "speaker": "화자",
    "target_text_ids_path": "text_ids/a.npy",
    "target_text_len": 3,
    "target_codes_path": "codes/a.npy",
    "target_code_len": 4,
}


def numbered(*rows: dict[str, Any] | str) -> list[Any]:
    """Rows that are otherwise ROW get ids of their own."""
    return [
        row | {"id": f"{number}__b"} if isinstance(row, dict) and row.get("id") == ROW["id"] else row
        for number, row in enumerate(rows, start=1)
    ]


def problems(path: Path, *rows: dict[str, Any] | str) -> list[str]:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in numbered(*rows)]
    text = "".join(line + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert all(problem in str(caught.value) for problem in caught.value.problems[:20])
    return caught.value.problems


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pairs.jsonl"


def test_rows_survive_reading_and_writing_in_their_order(tiny_corpus: Path) -> None:
    source = tiny_corpus / "gpt_pairs_train.jsonl"
    write_manifest(read_manifest(source), tiny_corpus / "again.jsonl")
    assert read_rows(tiny_corpus / "again.jsonl") == read_rows(source)


def test_fields_that_only_some_rows_have_survive_too(path: Path) -> None:
    rows = [
        ROW | {"target_mel_path": "mel/a.npy", "target_mel_len": 5},
        ROW | {"id": "other", "style": "행복", "ours": [1, 2]},
        ROW | {"id": "plain"},
    ]
    write_rows(path, rows)
    write_manifest(read_manifest(path), path)
    assert read_rows(path) == rows


def test_a_field_of_dates_survives_as_it_was_written(path: Path) -> None:
    rows = [ROW | {"recorded": "2024-03-01"}, ROW | {"id": "c", "recorded": "2024-03-02T10:00:00"}]
    write_rows(path, rows)
    write_manifest(read_manifest(path), path)
    assert read_rows(path) == rows


def test_both_spellings_of_the_mel_fields_are_read(path: Path) -> None:
    rows = [
        ROW | {"prompt_mel_path": "mel/old.npy", "prompt_mel_len": 7},
        ROW | {"target_mel_path": "mel/new.npy", "target_mel_len": 8},
        ROW,
    ]
    write_rows(path, numbered(*rows))
    manifest = read_manifest(path)
    assert manifest.strings("target_mel_path").to_pylist() == ["mel/old.npy", "mel/new.npy", None]
    assert manifest.numbers("target_mel_len").tolist() == [7, 8, -1]
    assert manifest.has("target_mel_path").tolist() == [True, True, False]
    assert "prompt_mel_path" not in manifest


def test_columns_are_those_that_a_row_fills(path: Path) -> None:
    write_rows(path, [ROW])
    manifest = read_manifest(path)
    assert "speaker" in manifest
    assert "target_mel_path" not in manifest
    assert manifest.has("target_mel_path").tolist() == [False]


def test_taking_rows_keeps_their_order_and_folder(tiny_corpus: Path) -> None:
    manifest = read_manifest(tiny_corpus / "gpt_pairs_train.jsonl")
    ids = manifest.strings("id").to_pylist()
    taken = manifest.take(np.array([5, 2]))
    assert taken.strings("id").to_pylist() == [ids[5], ids[2]]
    assert taken.root == tiny_corpus


def test_a_line_that_is_not_json_is_named(path: Path) -> None:
    (problem,) = problems(path, ROW, '{"id": "a", ', ROW)
    assert problem.startswith(f"{path}:2: not JSON: ")


def test_a_line_cut_by_a_full_disk_is_named(path: Path) -> None:
    (problem,) = problems(path, ROW, json.dumps(ROW)[:-30])
    assert problem.startswith(f"{path}:2: not JSON: ")


def test_a_line_that_is_no_object_is_named(path: Path) -> None:
    assert problems(path, ROW, "[1]") == [f"{path}:2: a JSON list, expected an object"]


def test_a_manifest_in_another_encoding_is_refused_with_the_line(path: Path) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in (ROW | {"speaker": "a"}, ROW)]
    path.write_bytes("\n".join(lines).encode("cp949"))
    with pytest.raises(ManifestError, match=r"pairs\.jsonl:2: not JSON: 'utf-8' codec can't decode"):
        read_manifest(path)


def test_blank_lines_are_not_reported_beside_the_bad_one(path: Path) -> None:
    (problem,) = problems(path, ROW, "", "{bad")
    assert problem.startswith(f"{path}:3: not JSON: ")


@pytest.mark.parametrize("name", sorted(ROW))
def test_a_missing_field_is_named_with_its_line(path: Path, name: str) -> None:
    lacking = {key: value for key, value in ROW.items() if key != name}
    assert problems(path, ROW, lacking, ROW | {name: None}) == [
        f"{path}:2: no field {name!r}",
        f"{path}:3: no field {name!r}",
    ]


def test_a_field_that_no_row_has_is_missing_in_every_line(path: Path) -> None:
    lacking = {key: value for key, value in ROW.items() if key != "speaker"}
    assert problems(path, lacking, lacking) == [f"{path}:{line}: no field 'speaker'" for line in (1, 2)]


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("target_text_len", "3", "int"),
        ("target_code_len", 3.5, "int"),
        ("target_text_len", True, "int"),
        ("speaker", 3, "str"),
        ("target_codes_path", ["a"], "str"),
    ],
)
def test_a_field_of_another_type_is_named_with_both(path: Path, name: str, value: object, kind: str) -> None:
    assert f"{path}:2: {name} is {value!r}, expected {kind}" in problems(path, ROW, ROW | {name: value})


@pytest.mark.parametrize("length", [0, -4])
def test_a_length_below_one_is_refused(path: Path, length: int) -> None:
    found = problems(path, ROW, ROW | {"target_code_len": length})
    assert found == [f"{path}:2: target_code_len is {length}, expected at least 1"]


@pytest.mark.parametrize(
    "value",
    ["/etc/passwd", "../up.npy", "codes/../../up.npy", "codes/..", "C:\\a.npy", "..\\a.npy", "~/a.npy", "", " "],
)
@pytest.mark.parametrize("name", ["target_codes_path", "target_mel_path", "prompt_condition_path"])
def test_a_path_outside_the_data_folder_is_refused(path: Path, name: str, value: str) -> None:
    found = problems(path, ROW, ROW | {name: value})
    assert found == [f"{path}:2: {name} is {value!r}, expected a path inside the manifest's folder"]


def test_names_with_dots_in_them_are_paths_inside(path: Path) -> None:
    write_rows(path, [ROW | {"target_codes_path": "codes/..a/b..npy"}])
    assert len(read_manifest(path)) == 1


def test_all_bad_lines_come_in_one_error_in_their_order(path: Path) -> None:
    found = problems(path, ROW | {"target_code_len": 0}, ROW, ROW | {"speaker": None}, ROW | {"target_mel_path": "/m"})
    assert [problem.removeprefix(f"{path}:")[0] for problem in found] == ["1", "3", "4"]


def test_many_problems_are_shown_in_part_and_counted(path: Path) -> None:
    path.write_text("{}\n" * 10, encoding="utf-8")
    with pytest.raises(ManifestError, match=r"\n\.\.\. and 60 more$") as caught:
        read_manifest(path)
    assert len(caught.value.problems) == 80


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_manifest_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(ManifestError, match=r"pairs\.jsonl: .*expected one JSON object per line"):
        read_manifest(path)


def test_a_manifest_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(ManifestError, match=r"pairs\.jsonl: not found; expected a manifest"):
        read_manifest(path)
