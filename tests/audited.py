"""Audits of the tiny corpus, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.tiny import read_rows, write_rows
from tts_kernel.data.audit import AuditSettings, Report, audit, open_corpus
from tts_kernel.data.audit.rows import Rows, Split
from tts_kernel.data.manifest import import_manifest

RATE = 22_050


def audit_of(folder: Path, **changes: Any) -> Report:
    """In this process, the files of every clip."""
    settings = AuditSettings(**{"data": str(folder), "workers": 1, "sample": 0, **changes})
    return audit(open_corpus(settings), settings)


def rows_of(folder: Path) -> Rows:
    """Both splits of it."""
    files = {"train": "gpt_pairs_train.jsonl", "validation": "gpt_pairs_val.jsonl"}
    return Rows(tuple(Split(name, *import_manifest(folder / file)) for name, file in files.items()))


def named(report: Report) -> dict[str, list[str]]:
    """Kind -> ids of its cases, sorted; those that any tiny corpus has left out."""
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        if finding.kind != "leak_speaker":  # three speakers are in both splits
            found[finding.kind] = sorted(case.id or case.where for case in finding.cases)
    return found


def change_rows(
    folder: Path, change: Callable[[list[dict[str, Any]]], Any], name: str = "gpt_pairs_train.jsonl"
) -> None:
    """Rewrite a manifest with its rows changed in place."""
    rows = read_rows(folder / name)
    change(rows)
    write_rows(folder / name, rows)


def add_audio(folder: Path) -> None:
    """Give every clip a sound of the length of its mel, noise of its own, and name it in the manifests."""
    (folder / "audio").mkdir()
    for name in ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"):
        rows = read_rows(folder / name)
        for row in rows:
            row["target_audio_path"] = f"audio/{row['target_id']}.wav"
            row["prompt_audio_path"] = f"audio/{row['prompt_id']}.wav"
            path = folder / row["target_audio_path"]
            if not path.exists():
                random = np.random.default_rng(int.from_bytes(row["target_id"].encode()[-4:]))
                soundfile.write(path, random.uniform(-0.3, 0.3, row["target_mel_len"] * 256), RATE)
        write_rows(folder / name, rows)
