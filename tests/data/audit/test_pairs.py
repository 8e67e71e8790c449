from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.audited import audit_of, change_rows, named
from tests.conftest import CorpusMaker
from tests.tiny import read_rows
from tts_kernel.data.audit import Report

Row = dict[str, Any]


def rows_only(folder: Path, **changes: Any) -> Report:
    return audit_of(folder, **{"check_features": False, "check_audio": False, **changes})


def test_a_clean_corpus_has_nothing_to_name(tiny_corpus: Path) -> None:
    assert named(audit_of(tiny_corpus)) == {}


def test_bad_lines_are_findings_with_their_numbers_and_the_rest_is_audited(tiny_corpus: Path) -> None:
    path = tiny_corpus / "gpt_pairs_train.jsonl"
    row = read_rows(path)[0]
    bad = [
        b'{"id": \n',
        json.dumps(row | {"id": "x", "target_code_len": "many"}).encode() + b"\n",
        json.dumps(row | {"id": "y", "target_code_len": -1}).encode() + b"\n",
        json.dumps(row | {"id": "z", "target_mel_path": "/etc/passwd"}).encode() + b"\n",
        json.dumps(row).encode() + b"\n",
        json.dumps({key: row[key] for key in row if key != "speaker"} | {"id": "w"}).encode() + b"\n",
        b'{"id": "\xff"}\n',
        json.dumps(row).encode()[:50],
    ]
    path.write_bytes(path.read_bytes() + b"".join(bad))
    report = rows_only(tiny_corpus)
    lines = {
        "line_not_json": [25, 32],
        "line_wrong_type": [26],
        "line_length": [27],
        "line_outside": [28],
        "line_duplicate_id": [29],
        "line_missing_field": [30],
        "line_encoding": [31],
    }
    expected = {kind: [f"gpt_pairs_train.jsonl:{line}" for line in numbers] for kind, numbers in lines.items()}
    found = named(report)
    assert {kind: found[kind] for kind in expected} == expected
    assert report.summary["pairs"] == {"train": 25, "validation": 6}  # the row that points outside stays


def test_paths_that_leave_the_folder_pass_where_they_are_meant(tiny_corpus: Path) -> None:
    change_rows(tiny_corpus, lambda rows: rows[0].update(target_mel_path="../mel.npy"))
    assert "line_outside" in named(rows_only(tiny_corpus))
    assert "line_outside" not in named(rows_only(tiny_corpus, allow_outside_paths=True))


def test_a_manifest_without_pairs_is_one_finding(tiny_corpus: Path) -> None:
    (tiny_corpus / "gpt_pairs_train.jsonl").write_text("", encoding="utf-8")
    assert list(named(audit_of(tiny_corpus, validation_manifest=""))) == ["line_no_rows"]


def test_mistakes_of_prompts_are_told_apart(tiny_corpus: Path) -> None:
    first = read_rows(tiny_corpus / "gpt_pairs_train.jsonl")
    stranger = next(row["target_id"] for row in first if row["speaker"] != first[1]["speaker"])

    def change(rows: list[Row]) -> None:
        rows[0]["prompt_id"] = rows[0]["target_id"]
        rows[1]["prompt_id"] = stranger
        rows[2]["prompt_id"] = "nobody"
        del rows[3]["prompt_condition_path"], rows[3]["prompt_condition_len"]

    change_rows(tiny_corpus, change)
    assert named(rows_only(tiny_corpus)) == {
        "prompt_is_target": [first[0]["id"]],
        "prompt_other_speaker": [first[1]["id"]],
        "prompt_unknown": [first[2]["id"]],
        "prompt_missing": [first[3]["id"]],
    }


def test_the_same_pair_under_another_id_is_found_once(tiny_corpus: Path) -> None:
    change_rows(tiny_corpus, lambda rows: rows.extend([rows[4] | {"id": "again"}, rows[4] | {"id": "and again"}]))
    assert named(rows_only(tiny_corpus)) == {"pair_repeated": ["again", "and again"]}


def test_unknown_prompts_of_one_target_are_no_repetition(tiny_corpus: Path) -> None:
    def change(rows: list[Row]) -> None:
        two = [row for row in rows if row["target_id"] == rows[0]["target_id"]]
        assert len(two) == 2
        for number, row in enumerate(two):
            row["prompt_id"] = f"nobody {number}"

    change_rows(tiny_corpus, change)
    assert list(named(rows_only(tiny_corpus))) == ["prompt_unknown"]


@pytest.mark.parametrize(("field", "value"), [("language", "en"), ("target_code_len", 99), ("speaker", "sp9")])
def test_rows_of_one_clip_that_disagree_are_named_with_both_values(
    tiny_corpus: Path, field: str, value: object
) -> None:
    rows = read_rows(tiny_corpus / "gpt_pairs_train.jsonl")
    second = next(at for at, row in enumerate(rows) if row["target_id"] in {other["target_id"] for other in rows[:at]})
    change_rows(tiny_corpus, lambda rows: rows[second].update({field: value}))
    (finding,) = (item for item in rows_only(tiny_corpus).findings if item.kind == "clip_disagrees")
    (case,) = finding.cases
    assert case.id == rows[second]["target_id"]
    assert f"{rows[second][field]!r} here and {value!r} in gpt_pairs_train.jsonl:{second + 1}" in case.detail


def test_a_path_that_other_rows_have_is_missed(tiny_corpus: Path) -> None:
    def change(rows: list[Row]) -> None:
        del rows[5]["target_semantic_path"], rows[5]["target_semantic_len"]

    first = read_rows(tiny_corpus / "gpt_pairs_train.jsonl")
    change_rows(tiny_corpus, change)
    assert named(rows_only(tiny_corpus)) == {"field_missing": [first[5]["id"]]}


def test_a_path_that_no_row_of_a_manifest_has_is_not_missed(tiny_corpus: Path) -> None:
    change_rows(tiny_corpus, lambda rows: [row.pop("target_semantic_path") for row in rows], "gpt_pairs_val.jsonl")
    assert named(rows_only(tiny_corpus)) == {}


def without_mel(rows: list[Row], clips: set[str]) -> None:
    for row in rows:
        if row["target_id"] in clips:
            del row["target_mel_path"], row["target_mel_len"]


def test_mels_that_are_missing_out_of_order_or_unlisted_are_named(tiny_corpus: Path) -> None:
    (tiny_corpus / "gpt_pairs_train_mel.jsonl").unlink()
    rows = read_rows(tiny_corpus / "gpt_pairs_train.jsonl")
    clip = rows[-1]["target_id"]
    gone = [at for at, row in enumerate(rows) if row["target_id"] == clip]
    change_rows(tiny_corpus, lambda rows: without_mel(rows, {clip}))
    behind = [row["id"] for at, row in enumerate(rows) if at > gone[0] and at not in gone]
    waiting = sorted(rows[at]["id"] for at in gone)
    expected = {"mel_missing": waiting, "mel_order": sorted(behind)}
    assert named(rows_only(tiny_corpus)) == {kind: ids for kind, ids in expected.items() if ids}
    assert named(audit_of(tiny_corpus))["mel_unlisted"] == waiting
    (tiny_corpus / "mel" / f"{clip}.npy").unlink()
    assert "mel_unlisted" not in named(audit_of(tiny_corpus))


def test_the_order_of_mels_does_not_matter_where_another_manifest_is_ordered(tiny_corpus: Path) -> None:
    clip = read_rows(tiny_corpus / "gpt_pairs_train.jsonl")[0]["target_id"]
    change_rows(tiny_corpus, lambda rows: without_mel(rows, {clip}))
    assert "mel_order" not in named(rows_only(tiny_corpus))


def test_what_is_in_both_splits_is_named_by_what_it_is(tiny_corpus: Path) -> None:
    clip = read_rows(tiny_corpus / "gpt_pairs_train.jsonl")[0]["target_id"]
    prompt = read_rows(tiny_corpus / "gpt_pairs_val.jsonl")[0]
    leaked = read_rows(tiny_corpus / "gpt_pairs_train.jsonl")[0] | {"prompt_id": prompt["target_id"]}
    change_rows(tiny_corpus, lambda rows: rows.append(leaked), "gpt_pairs_val.jsonl")
    report = rows_only(tiny_corpus)
    assert named(report)["leak_clip"] == [clip]
    (speakers,) = (item for item in report.findings if item.kind == "leak_speaker")
    assert speakers.count == 3


def test_a_recording_in_both_splits_is_named(tiny_corpus: Path) -> None:
    for name in ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"):
        change_rows(
            tiny_corpus, lambda rows: [row.update(recording=f"rec {row['target_id'][:3]}") for row in rows], name
        )
    assert named(rows_only(tiny_corpus)) == {"leak_recording": ["rec sp0", "rec sp1", "rec sp2"]}


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"sp0": 0, "sp1": 1, "sp2": 2}, {}),
        ({"sp0": 0, "sp1": 1}, {"mapping_unmatched": ["sp2"]}),
        ({"sp0": 0, "sp1": 1, "sp2": 2, "ghost": 3}, {"mapping_unused": ["ghost"]}),
        (
            {"SP0": 0, "sp1": 1},
            {"mapping_low": [""], "mapping_unused": ["SP0"], "mapping_unmatched": ["sp0", "sp2"]},
        ),
        ({"sp0": 3}, {"mapping_unusable": ["speaker_mapping.json"]}),
    ],
)
def test_a_speaker_mapping_is_held_against_the_rows_to_train_on(
    tiny_corpus: Path, mapping: dict[str, int], expected: dict[str, list[str]]
) -> None:
    (tiny_corpus / "speaker_mapping.json").write_text(json.dumps(mapping), encoding="utf-8")
    assert named(rows_only(tiny_corpus)) == expected


def test_the_count_is_of_all_cases_and_the_list_of_the_first(make_tiny_corpus: CorpusMaker) -> None:
    folder = make_tiny_corpus(clips=40, prompts=10)  # 1,200 pairs
    change_rows(folder, lambda rows: [row.update(prompt_id=row["target_id"]) for row in rows])
    report = rows_only(folder)
    assert [
        (item.count, item.total, len(item.cases)) for item in report.findings if item.kind == "prompt_is_target"
    ] == [(1200, 1206, 1000)]


def test_clips_of_one_audio_file_are_named(tiny_corpus: Path) -> None:
    def change(rows: list[Row]) -> None:
        for row in rows:
            row["target_audio_path"] = (
                f"audio/{'sp0_0' if row['target_id'] in ('sp0_1', 'sp0_3') else row['target_id']}.wav"
            )

    change_rows(tiny_corpus, change)
    rows = read_rows(tiny_corpus / "gpt_pairs_train.jsonl")
    order = [clip for clip in dict.fromkeys(row["target_id"] for row in rows) if clip in ("sp0_0", "sp0_1", "sp0_3")]
    assert named(rows_only(tiny_corpus)) == {"audio_shared": sorted(order[1:])}


@pytest.mark.parametrize("field", ["text", "recording", "duration", "weight"])
def test_fields_of_another_type_than_expected_are_read_as_they_are(tiny_corpus: Path, field: str) -> None:
    change_rows(tiny_corpus, lambda rows: [row.update({field: "x" if field == "duration" else 7}) for row in rows])
    audit_of(tiny_corpus)
