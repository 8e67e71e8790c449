"""What training and validation have in common: clips and recordings must not be, speakers may. The same as
data.split.leaks, from the numbers of clips that an audit has anyway."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.audit.findings import LISTED, Case, Finding, in_clips
from tts_kernel.data.audit.rows import TEXT, Rows
from tts_kernel.data.split import recordings


def check_leaks(rows: Rows) -> list[Finding]:
    """Clips, recordings and speakers that are validated on and, in either role, trained on."""
    if len(rows.splits) < 2:
        return []
    start = rows.starts[1]
    trained = np.zeros(len(rows.clips) + 1, dtype=bool)  # the last place takes prompts that are no target
    trained[rows.clip[:start]] = trained[rows.prompt[:start]] = True
    validated = np.zeros(len(rows.clips), dtype=bool)
    validated[rows.clip[start:]] = True
    both = np.flatnonzero(trained[:-1] & validated)
    findings = in_clips("leak_clip", rows, both, int(validated.sum()))
    of_clip = _recordings(rows)
    strangers = np.flatnonzero(rows.prompt[:start] < 0)
    elsewhere = recordings(rows.values("prompt_id", strangers))
    here = pa.chunked_array([*of_clip.filter(pa.array(trained[:-1])).chunks, *elsewhere.chunks], TEXT)
    findings += _shared("leak_recording", here, of_clip.filter(pa.array(validated)))
    names, speaker = rows.categories("speaker")
    train, validation = (pa.array(names, TEXT).take(np.unique(part)) for part in (speaker[:start], speaker[start:]))
    return findings + _shared("leak_speaker", train, validation)


def _recordings(rows: Rows) -> pa.ChunkedArray:
    """(clips,) what each was cut from, null where nothing tells."""
    if "recording" in rows:
        return rows.values("recording", rows.first)
    return recordings(pa.chunked_array([rows.clips]))


def _shared(kind: str, trained: pa.ChunkedArray | pa.Array, validated: pa.ChunkedArray | pa.Array) -> list[Finding]:
    held = pc.drop_null(validated).unique()
    names: Sequence[str] = sorted(held.filter(pc.is_in(held, value_set=trained.unique())).to_pylist())
    if not names:
        return []
    return [Finding(kind, len(names), len(held), tuple(Case(name) for name in names[:LISTED]))]
