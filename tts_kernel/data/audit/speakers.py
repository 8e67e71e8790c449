"""Speakers: whether the mapping fits the pairs to train on."""

from __future__ import annotations

from pathlib import Path

from tts_kernel.data.audit.findings import LISTED, Case, Finding
from tts_kernel.data.manifest import Manifest
from tts_kernel.data.speakers import Coverage, SpeakerMapError, count_rows, coverage, read_mapping


def match(train: Manifest, path: Path) -> tuple[Coverage | None, list[Finding]]:
    """How the mapping in `path` covers the rows of `train`; a finding instead where it cannot be read."""
    try:
        mapping = read_mapping(path)
    except SpeakerMapError as error:
        return None, [Finding("mapping_unusable", 1, 1, (Case(path.name, detail=str(error)),))]
    return coverage(mapping, count_rows(train)), []


def check_mapping(found: Coverage, minimum: float) -> list[Finding]:
    """`minimum` is the share of rows that must have a mapped speaker."""
    findings = []
    if found.share < minimum or found.mapped_speakers < 2:
        case = Case("", detail=f"{found}; expected at least 2 speakers and {minimum:.0%} of the pairs")
        findings.append(Finding("mapping_low", found.rows - found.mapped_rows, found.rows, (case,)))
    for kind, names, total in (
        ("mapping_unused", found.unused, 0),
        ("mapping_unmatched", found.unmatched, found.speakers),
    ):
        if names:
            findings.append(Finding(kind, len(names), total, tuple(Case(name) for name in names[:LISTED])))
    return findings
