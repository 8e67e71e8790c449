"""What an audit found: in words, and on disk as audit.json, cases.parquet and clips.parquet of a run folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tts_kernel.data.audit.files import SOUND
from tts_kernel.data.audit.findings import Finding
from tts_kernel.data.audit.kinds import SEVERITIES, Severity
from tts_kernel.data.audit.media import Opened
from tts_kernel.data.audit.rows import TEXT, Rows
from tts_kernel.data.audit.settings import AuditError, FailOn
from tts_kernel.data.audit.summary import in_words
from tts_kernel.data.audit.text import Texts
from tts_kernel.runs import Run, write_atomically

FORMAT = 1  # of audit.json; raise it when a reader has to know
EXAMPLES = 10  # of each finding in audit.json; cases.parquet has a hundred times as many


@dataclass(frozen=True)
class Report:
    """Findings, worst first, and what there is at all."""

    root: Path  # the data folder
    findings: tuple[Finding, ...]
    summary: dict[str, Any]
    cases: pa.Table  # one row per listed case: kind, severity, id, clip, where, detail, speaker, language, text, audio
    clips: pa.Table  # one row per audio file that was opened: clip, what its row says, what was measured

    def count(self, severity: str) -> int:
        """Findings of this severity, whatever their number of cases."""
        return sum(finding.severity == severity for finding in self.findings)

    def __str__(self) -> str:
        errors, warnings, infos = (self.count(name) for name in SEVERITIES)
        plural = ["" if number == 1 else "s" for number in (errors, warnings)]
        counts = f"findings: {errors} error{plural[0]}, {warnings} warning{plural[1]}, {infos} to know"
        lines = [*in_words(self.summary), counts]
        return "\n".join([*lines, *(f"  {finding}" for finding in self.findings)])

    def facts(self) -> dict[str, Any]:
        """For result.json: how much was found of what."""
        return {
            "findings": {severity: self.count(severity) for severity in SEVERITIES},
            "kinds": {finding.kind: finding.count for finding in self.findings},
        }

    def save(self, run: Run) -> Path:
        """Write the three files into the run's folder and return the path of audit.json."""
        for name, table in (("cases", self.cases), ("clips", self.clips)):
            scratch = run.folder / f".{name}.parquet.{os.getpid()}"
            pq.write_table(table, scratch)
            os.replace(scratch, run.folder / f"{name}.parquet")
        values = {
            "format": FORMAT,
            "data": str(self.root),
            "findings": [_described(finding) for finding in self.findings],
            "summary": self.summary,
        }
        path = run.folder / "audit.json"
        write_atomically(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        return path

    def passes(self, fail_on: FailOn) -> bool:
        """Whether nothing was found that is at least as bad as `fail_on`."""
        return not self._refused(fail_on)

    def refuse(self, fail_on: FailOn) -> None:
        """Raise AuditError, naming every finding that is at least as bad as `fail_on`, if there is one."""
        refused = self._refused(fail_on)
        if refused:
            lines = [f"  {finding}\n{'':<11}{finding.about.advice}" for finding in refused]
            head = f"{self.root}: {len(refused)} kinds of finding that fail_on {fail_on!r} does not let pass:"
            raise AuditError("\n".join([head, *lines]))

    def _refused(self, fail_on: FailOn) -> list[Finding]:
        counting: dict[str, tuple[Severity, ...]] = {"error": ("error",), "warning": ("error", "warning"), "never": ()}
        return [finding for finding in self.findings if finding.severity in counting[fail_on]]


def case_table(rows: Rows, findings: Iterable[Finding], texts: Texts | None) -> pa.Table:
    """One row per listed case, with what the manifest says of its clip."""
    listed = [(finding, case) for finding in findings for case in finding.cases]
    names = {
        "kind": [finding.kind for finding, _ in listed],
        "severity": [finding.severity for finding, _ in listed],
        **{name: [getattr(case, name) for _, case in listed] for name in ("id", "clip", "where", "detail")},
    }
    table = pa.table({name: pa.array(values, TEXT) for name, values in names.items()})
    numbers = pc.fill_null(pc.index_in(table.column("clip"), value_set=rows.clips), -1).to_numpy()
    return _with_clips(table, rows, numbers, texts)


def sound_table(rows: Rows, sounds: Opened | None, texts: Texts | None) -> pa.Table:
    """One row per sound of a target that was opened: its clip, what the manifest says of it, what was measured."""
    if sounds is None:
        return pa.table({})
    kept = np.flatnonzero(sounds.of_target)
    table = sounds.table.take(pa.array(kept))
    numbers = rows.clip[table.column("row").to_numpy()]
    split = pa.array([each.name for each in rows.splits], TEXT).take(rows.split_of(table.column("row").to_numpy()))
    clips = pa.table({"clip": rows.clips.take(pa.array(numbers)), "split": split})
    clips = _with_clips(clips, rows, numbers, texts)
    for name in SOUND.names:
        clips = clips.append_column(name, table.column(name))
    return clips


def _with_clips(table: pa.Table, rows: Rows, numbers: np.ndarray, texts: Texts | None) -> pa.Table:
    """`numbers`: (rows of the table,) of clips, -1 where nothing is known."""
    distinct, back = np.unique(numbers, return_inverse=True)
    known = distinct >= 0
    places = pa.array(np.where(known, np.cumsum(known) - 1, 0), mask=~known).take(pa.array(back))
    first = rows.first[distinct[known]]
    for name, column in (("speaker", "speaker"), ("language", "language"), ("audio", "target_audio_path")):
        table = table.append_column(name, rows.values(column, first).take(places))
    where = pa.nulls(len(numbers), pa.int64())
    if texts is not None and len(texts.clips):
        at = np.minimum(np.searchsorted(texts.clips, numbers), len(texts.clips) - 1)
        where = pa.array(at, mask=texts.clips[at] != numbers)
    values = texts.texts if texts is not None else pa.chunked_array([], TEXT)
    return table.append_column("text", values.take(where))


def _described(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "area": finding.about.area,
        "title": finding.about.title,
        "count": finding.count,
        "of": finding.total,
        "unit": finding.unit,
        "sampled": finding.sampled,
        "advice": finding.about.advice,
        "examples": [
            {"id": case.id, "clip": case.clip, "where": case.where, "detail": case.detail}
            for case in finding.cases[:EXAMPLES]
        ],
    }
