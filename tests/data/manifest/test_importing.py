"""Manifests as they come: large, mixed, damaged. What is wrong in one line is in test_manifest.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.manifest.test_manifest import ROW
from tests.tiny import read_rows, write_rows
from tts_kernel.data.manifest import (
    ManifestError,
    PathRule,
    import_manifest,
    jsonl,
    read_manifest,
    write_manifest,
)
from tts_kernel.data.manifest import importing as manifest_import
from tts_kernel.data.manifest import joining as manifest_join


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pairs.jsonl"


@pytest.fixture(params=["one piece", "many pieces", "pieces in files"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small files take the way of large ones, too."""
    if request.param != "one piece":
        monkeypatch.setattr(jsonl, "CHUNK", 1000)
    if request.param == "pieces in files":
        monkeypatch.setattr(manifest_import, "_IN_MEMORY", 0)
        monkeypatch.setattr(manifest_join, "_GROUP", 5)
    return request.param


def row(number: int, **more: Any) -> dict[str, Any]:
    clip = f"c{number:03d}"
    paths = {"target_text_ids_path": f"text_ids/{clip}.npy", "target_codes_path": f"codes/{clip}.npy"}
    return ROW | {"id": f"{clip}__p", "target_id": clip, "speaker": f"s{number % 3}"} | paths | more


def round_trip(path: Path) -> list[dict[str, Any]]:
    write_manifest(read_manifest(path), path.with_name("again.jsonl"))
    return read_rows(path.with_name("again.jsonl"))


@pytest.mark.usefixtures("pieces")
def test_every_row_and_field_survives(path: Path) -> None:
    rows = [row(n, note="한" * n, score=n / 7) for n in range(40)]
    write_rows(path, rows)
    assert round_trip(path) == rows
    assert not list(path.parent.glob("*.parts")), "temporary pieces were left"


@pytest.mark.usefixtures("pieces")
def test_mixed_schemas_keep_every_value(path: Path) -> None:
    """Fields that only some rows have, mels that come late, types that change on the way."""
    rows = [row(n, score=n) for n in range(10)]
    rows += [row(n, score=n + 0.5, target_mel_path=f"mel/c{n:03d}.npy", target_mel_len=n) for n in range(10, 20)]
    rows += [row(n, score=n, late=True, target_codes_path=f"elsewhere/{n}.npy") for n in range(20, 30)]
    write_rows(path, rows)
    assert round_trip(path) == rows


@pytest.mark.usefixtures("pieces")
def test_a_field_of_text_and_numbers_becomes_text(path: Path) -> None:
    values = [1, "two", None, [3], {"four": 4}, True]
    rows = [row(n, mixed=values[n % 6]) for n in range(24)]
    write_rows(path, rows)
    found = read_manifest(path).strings("mixed").to_pylist()
    assert found == [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values * 4]


@pytest.mark.usefixtures("pieces")
def test_paths_that_follow_from_an_id_are_kept_as_a_rule(path: Path) -> None:
    write_rows(path, [row(n, target_audio_path=f"audio/{n % 2}/c{n:03d}.mp3") for n in range(40)])
    manifest = read_manifest(path)
    assert manifest.rules == {
        "target_text_ids_path": PathRule("text_ids/", "target_id", ".npy"),
        "target_codes_path": PathRule("codes/", "target_id", ".npy"),
    }
    assert "target_codes_path" not in manifest.stored.column_names
    assert manifest.strings("target_codes_path").to_pylist() == [f"codes/c{n:03d}.npy" for n in range(40)]
    assert manifest.strings("target_audio_path").to_pylist() == [f"audio/{n % 2}/c{n:03d}.mp3" for n in range(40)]


@pytest.mark.usefixtures("pieces")
def test_an_id_that_occurs_twice_is_named_with_both_lines(path: Path) -> None:
    rows = [row(n) for n in range(30)]
    write_rows(path, [*rows, row(7, speaker="other"), rows[3], row(7)])
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert caught.value.problems == [
        f"{path}:31: id 'c007__p' is also that of line 8; make them different",
        f"{path}:32: id 'c003__p' is also that of line 4; make them different",
        f"{path}:33: id 'c007__p' is also that of line 8; make them different",
    ]
    manifest, problems = import_manifest(path)
    assert manifest.strings("id").to_pylist() == [item["id"] for item in rows], "the first of each stays"
    assert problems.counts == {"duplicate id": 3}


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("ends", ["\r\n", "\n\n", "\n \n"])
def test_other_line_ends_and_blank_lines_are_read_and_counted(path: Path, ends: str) -> None:
    rows = [row(n) for n in range(20)]
    rows[13] |= {"target_code_len": -1}
    path.write_text(ends.join(json.dumps(item) for item in rows) + ends, newline="")
    manifest, problems = import_manifest(path)
    step = ends.count("\n")
    assert [problem.line for problem in problems] == [13 * step + 1]
    assert len(manifest) == 19
    assert [manifest.line(n) for n in (0, 12, 13)] == [1, 12 * step + 1, 14 * step + 1]


@pytest.mark.usefixtures("pieces")
def test_a_byte_order_mark_is_passed_over(path: Path) -> None:
    rows = [row(n) for n in range(20)]
    path.write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8-sig")
    assert round_trip(path) == rows


@pytest.mark.usefixtures("pieces")
def test_a_last_line_without_a_newline_is_a_line(path: Path) -> None:
    rows = [row(n) for n in range(20)]
    path.write_text("\n".join(json.dumps(item) for item in rows))
    assert round_trip(path) == rows


@pytest.mark.usefixtures("pieces")
def test_a_truncated_last_line_is_named_as_such(path: Path) -> None:
    text = "".join(json.dumps(row(n)) + "\n" for n in range(20))
    path.write_text(text[:-30])
    with pytest.raises(ManifestError, match=r"pairs\.jsonl:20: not JSON: .*the file ends within this line"):
        read_manifest(path)
    assert len(import_manifest(path)[0]) == 19


def test_a_line_of_100_megabytes_is_refused_and_the_others_are_read(path: Path) -> None:
    with path.open("w") as file:
        file.write(json.dumps(row(1)) + "\n")
        file.write('{"id": "' + "x" * 100_000_000 + '"}\n')
        file.write(json.dumps(row(2)) + "\n")
    manifest, problems = import_manifest(path)
    (problem,) = problems
    assert (problem.line, problem.reason) == (2, "too long")
    assert "100,000,011 bytes in one line, expected at most 16,777,216" in problem.message
    assert manifest.strings("target_id").to_pylist() == ["c001", "c002"]
    assert [manifest.line(0), manifest.line(1)] == [1, 3]


@pytest.mark.usefixtures("pieces")
def test_paths_that_leave_the_folder_are_refused_unless_allowed(path: Path) -> None:
    rows = [row(n) for n in range(20)]
    rows[4] |= {"target_audio_path": "/other/disk/a.mp3"}
    rows[9] |= {"target_codes_path": "../codes/a.npy"}
    write_rows(path, rows)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [f"{path}:5", f"{path}:10"]
    manifest = read_manifest(path, allow_outside=True)
    assert manifest.strings("target_audio_path")[4].as_py() == "/other/disk/a.mp3"
    assert manifest.strings("target_codes_path")[9].as_py() == "../codes/a.npy"
    assert manifest.strings("target_codes_path")[10].as_py() == rows[10]["target_codes_path"]


def test_an_id_that_climbs_out_makes_its_paths_refused(path: Path) -> None:
    rows = [row(n) for n in range(5)]
    rows[2] |= {name: rows[2][name].replace("c002", "../c") for name in ("target_text_ids_path", "target_codes_path")}
    rows[2] |= {"target_id": "../c"}
    write_rows(path, rows)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert [problem.split(" is ")[0] for problem in caught.value.problems] == [
        f"{path}:3: target_codes_path",
        f"{path}:3: target_text_ids_path",
    ]


@pytest.mark.parametrize(
    "line", ['{"a": 1} {"b": 2}', '{"a": "\\ud800"}', '{"a": NaN' + "}", "nul", '{"a": 1e999999}x']
)
def test_odd_lines_are_named_and_no_row_is_lost(path: Path, line: str) -> None:
    path.write_text("\n".join([json.dumps(row(1)), line, json.dumps(row(2))]))
    manifest, problems = import_manifest(path)
    assert {problem.line for problem in problems} == {2}
    assert manifest.strings("target_id").to_pylist() == ["c001", "c002"]


@pytest.mark.parametrize("value", [1 << 31, 1 << 40, 1 << 70])
def test_a_length_beyond_32_bits_is_refused(path: Path, value: int) -> None:
    write_rows(path, [row(1), row(2, target_code_len=value)])
    with pytest.raises(ManifestError, match=rf":2: target_code_len is {value}, expected less than {1 << 31}"):
        read_manifest(path)
