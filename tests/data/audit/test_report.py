from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.audited import add_audio, audit_of, change_rows, named
from tts_kernel.data.audit import KINDS, AuditError, AuditSettings, open_corpus
from tts_kernel.runs import Run


@pytest.fixture
def faulty(tiny_corpus: Path) -> Path:
    """A repeated pair (a warning), eleven prompts that are their targets (an error), two lost sounds."""
    add_audio(tiny_corpus)

    def change(rows: list[dict]) -> None:
        others = {row["target_id"]: row for row in rows if row["target_id"] != rows[0]["target_id"]}
        for row in others.values():  # one pair of each
            row["prompt_id"] = row["target_id"]
        rows.append(rows[0] | {"id": "again"})

    change_rows(tiny_corpus, change)
    for clip in ("sp0_4", "sp1_5"):
        (tiny_corpus / "audio" / f"{clip}.wav").unlink()
    return tiny_corpus


def test_every_finding_says_how_bad_how_often_where_and_what_to_do(faulty: Path, tmp_path: Path) -> None:
    report = audit_of(faulty, min_duration=0.01)
    written = json.loads(report.save(Run(tmp_path)).read_text(encoding="utf-8"))
    found = {item["kind"]: item for item in written["findings"]}
    assert found["prompt_is_target"]["severity"] == "error"
    assert (found["prompt_is_target"]["count"], found["prompt_is_target"]["of"]) == (11, 31)
    assert len(found["prompt_is_target"]["examples"]) == 10
    assert [example["id"] for example in found["audio_missing"]["examples"]] == ["sp0_4", "sp1_5"]
    assert found["audio_missing"]["examples"][0]["where"].startswith("gpt_pairs_val.jsonl:")
    for item in written["findings"]:
        assert item["advice"] == KINDS[item["kind"]].advice
        assert item["examples"]


def test_cases_and_sounds_are_tables_with_what_the_manifest_says(faulty: Path, tmp_path: Path) -> None:
    audit_of(faulty, min_duration=0.01).save(Run(tmp_path))
    cases = pq.read_table(tmp_path / "cases.parquet").to_pylist()
    (case,) = (case for case in cases if case["kind"] == "pair_repeated")
    assert case["id"] == "again"
    assert case["audio"] == f"audio/{case['clip']}.wav"
    assert case["speaker"] == case["clip"][:3]
    assert sum(case["kind"] == "prompt_is_target" for case in cases) == 11
    clips = pq.read_table(tmp_path / "clips.parquet").to_pylist()
    assert len(clips) == 18
    assert {clip["split"] for clip in clips} == {"train", "validation"}
    assert [clip["clip"] for clip in clips if clip["status"] == "missing"] == ["sp0_4", "sp1_5"]


def test_errors_come_first_and_are_counted_by_severity(faulty: Path) -> None:
    report = audit_of(faulty, min_duration=0.01)
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert report.facts()["findings"] == {"error": 2, "warning": 1, "info": 1}
    assert "findings: 2 errors, 1 warning, 1 to know" in str(report)
    assert report.facts()["kinds"]["prompt_is_target"] == 11


@pytest.mark.parametrize(("fail_on", "refused"), [("error", 2), ("warning", 3), ("never", 0)])
def test_fail_on_decides_what_does_not_pass(faulty: Path, fail_on: str, refused: int) -> None:
    report = audit_of(faulty, min_duration=0.01)
    assert report.passes(fail_on) == (refused == 0)
    if not refused:
        report.refuse(fail_on)
        return
    with pytest.raises(AuditError, match=f"{refused} kinds of finding") as caught:
        report.refuse(fail_on)
    assert KINDS["prompt_is_target"].advice in str(caught.value)


def test_a_sample_says_that_it_is_one(faulty: Path) -> None:
    report = audit_of(faulty, min_duration=0.01, sample=17, seed=1)
    missing = [finding for finding in report.findings if finding.kind == "audio_missing"]
    assert missing
    assert all(finding.sampled for finding in missing)
    assert "in the sample" in str(missing[0])
    assert not any(finding.sampled for finding in report.findings if finding.kind == "prompt_is_target")
    assert report.summary["sample"]["clips"] == 17


def test_the_same_seed_finds_the_same(faulty: Path) -> None:
    once, again = (audit_of(faulty, min_duration=0.01, sample=6, seed=2) for _ in range(2))
    assert named(once) == named(again)
    assert once.clips.equals(again.clips)
    assert once.cases.equals(again.cases)


def test_files_of_a_kind_that_was_not_asked_for_stay_closed(faulty: Path) -> None:
    report = audit_of(faulty, check_audio=False)
    assert "audio_missing" not in named(report)
    assert report.clips.num_rows == 0
    assert report.summary["sample"]["audio_files"] == 0


def test_what_is_named_and_not_there_is_one_error(tiny_corpus: Path) -> None:
    with pytest.raises(AuditError, match="no such folder"):
        open_corpus(AuditSettings(data=str(tiny_corpus / "nowhere")))
    wrong = AuditSettings(
        data=str(tiny_corpus),
        train_manifest="pairs.jsonl",
        validation_manifest="../other.jsonl",
        tokenizer="/nowhere/bpe.model",
        speaker_mapping="/nowhere/map.json",
    )
    with pytest.raises(AuditError) as caught:
        open_corpus(wrong)
    for part in ("pairs.jsonl is not there", "gpt_pairs_train.jsonl", "would leave", "bpe.model", "map.json"):
        assert part in str(caught.value)
