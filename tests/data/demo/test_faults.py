"""The audit finds what was planted, where it was planted, and nothing on the corpus without faults."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.audited import audit_of
from tts_kernel.data.audit import KINDS, Report
from tts_kernel.data.demo.corpus import make_corpus
from tts_kernel.data.demo.faults import NOT_PLANTED, plant

pytestmark = [
    pytest.mark.slow,  # the corpus is spoken first
    pytest.mark.skipif(
        importlib.util.find_spec("espeakng_loader") is None, reason="the demo corpus needs the extra `demo`"
    ),
]
SMALL = {"speakers": 4, "sentences": 14, "clips_per_style": 11, "codebook_size": 32, "vocab_size": 220}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("demo") / "clean", **SMALL)


@pytest.fixture(scope="module")
def faulty(clean: Path) -> Path:
    return plant(clean, clean.with_name("faulty"))


@pytest.fixture(scope="module")
def report(faulty: Path) -> Report:
    return audit_of(faulty)


def planted(faulty: Path) -> dict[str, list[str]]:
    return json.loads((faulty / "faults.json").read_text(encoding="utf-8"))["planted"]


def test_the_clean_corpus_has_no_errors_and_no_warnings(clean: Path, faulty: Path) -> None:
    report = audit_of(clean)  # after planting: the copy shares files with it
    assert {finding.kind for finding in report.findings} == {"leak_speaker", "feature_absent"}
    assert all(finding.severity == "info" for finding in report.findings)


def test_every_kind_of_finding_is_planted_or_said_why_not(faulty: Path) -> None:
    assert set(planted(faulty)) | set(NOT_PLANTED) == set(KINDS)
    assert not set(planted(faulty)) & set(NOT_PLANTED)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(NOT_PLANTED)))
def test_a_planted_fault_is_found_where_it_is_and_nowhere_else(faulty: Path, report: Report, kind: str) -> None:
    (finding,) = (finding for finding in report.findings if finding.kind == kind)
    assert sorted(case.id or case.where for case in finding.cases) == sorted(planted(faulty)[kind])
    if kind != "feature_absent":  # its cases are kinds, its count is of files
        assert finding.count == len(planted(faulty)[kind])


def test_nothing_is_found_that_was_not_planted(faulty: Path, report: Report) -> None:
    assert {finding.kind for finding in report.findings} == set(planted(faulty))


def test_planting_again_gives_the_same_corpus(clean: Path, faulty: Path) -> None:
    again = plant(clean, clean.with_name("again"))
    assert planted(again) == planted(faulty)
    for name in ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl", "speaker_mapping.json"):
        assert (again / name).read_bytes() == (faulty / name).read_bytes()


def test_a_corpus_that_is_too_small_is_refused_and_leaves_nothing(clean: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for name in ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"):
        lines = (clean / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (small / name).write_text("".join(lines[:10]), encoding="utf-8")
    for name in ("audio", "mel", "codes", "semantic", "text_ids", "features", "bpe.model"):
        if (clean / name).exists():
            (small / name).symlink_to(clean / name)
    with pytest.raises(ValueError, match="use a larger corpus"):
        plant(small, tmp_path / "faulty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]
