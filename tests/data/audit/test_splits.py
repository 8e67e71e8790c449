from __future__ import annotations

from pathlib import Path

import pytest

from tests.audited import change_rows, rows_of
from tests.tiny import read_rows
from tts_kernel.data.audit.splits import check_leaks
from tts_kernel.data.manifest import read_manifest
from tts_kernel.data.split import leaks

TRAIN, VALIDATION = "gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"


@pytest.mark.parametrize("named", ["by field", "by name"])
def test_what_leaks_is_what_the_split_itself_calls_a_leak(tiny_corpus: Path, named: str) -> None:
    trained = read_rows(tiny_corpus / TRAIN)
    change_rows(
        tiny_corpus, lambda rows: rows.extend(row | {"id": f"{row['id']}_v"} for row in trained[:3]), VALIDATION
    )
    if named == "by name":  # a prompt that is validated on, and is no target of a training pair
        change_rows(tiny_corpus, lambda rows: rows[0].update(prompt_id="sp1_5"), TRAIN)

    def recordings(rows: list[dict]) -> None:
        for row in rows:
            if named == "by field":
                row["recording"] = f"rec_{int(row['target_id'][-1]) // 2}"
            else:
                row["target_id"] = f"KO_{int(row['target_id'][-1]) // 2}_W{row['target_id'][2]}{row['target_id'][-1]}"
                row["prompt_id"] = f"KO_{int(row['prompt_id'][-1]) // 2}_W{row['prompt_id'][2]}{row['prompt_id'][-1]}"

    for name in (TRAIN, VALIDATION):
        change_rows(tiny_corpus, recordings, name)
    expected = leaks(read_manifest(tiny_corpus / TRAIN), read_manifest(tiny_corpus / VALIDATION), by="speaker")
    found = {
        item.kind.removeprefix("leak_"): sorted(case.id for case in item.cases)
        for item in check_leaks(rows_of(tiny_corpus))
    }
    assert found == expected
    assert set(found) == {"clip", "recording", "speaker"}
    assert len(found["clip"]) > 1


def test_splits_without_a_common_clip_leak_nothing_but_speakers(tiny_corpus: Path) -> None:
    assert [finding.kind for finding in check_leaks(rows_of(tiny_corpus))] == ["leak_speaker"]
