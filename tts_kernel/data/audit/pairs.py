"""What the columns of the manifests alone tell of lines, pairs and mels. No file is opened, and no row becomes a
Python object but the few that are shown."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tts_kernel.data.audit.findings import LISTED, Case, Finding, in_clips, in_pairs
from tts_kernel.data.audit.rows import SPREAD, Rows, Split
from tts_kernel.data.features import Features
from tts_kernel.data.ordering import MEL_MANIFEST
from tts_kernel.data.string_keys import string_keys

_NAMES = ("speaker", "language", "style", "recording", "text")  # every row of a clip has the same
_LENGTHS = ("target_text_len", "target_code_len", "target_mel_len", "target_semantic_len")


def check_lines(split: Split, allow_outside: bool) -> list[Finding]:
    """The lines that the import left out, and paths that leave the folder."""
    counts = split.problems.counts
    total = len(split.manifest) + sum(count for reason, count in counts.items() if reason != "outside")
    findings = []
    for reason, count in counts.items():
        if reason == "outside" and allow_outside:
            continue
        cases = [
            Case(id="", where=f"{split.manifest.path.name}:{problem.line}", detail=problem.message)
            for problem in split.problems
            if problem.reason == reason
        ]
        findings.append(Finding(f"line_{reason.replace(' ', '_')}", count, total, tuple(cases[:LISTED])))
    return findings


def check_pairs(rows: Rows) -> list[Finding]:
    """Prompt and target of every pair."""
    total = len(rows)
    names, speaker = rows.categories("speaker")
    speaker = speaker[rows.first]  # of every clip
    known = rows.prompt >= 0
    stranger = np.flatnonzero(known & (speaker[rows.prompt] != speaker[rows.clip]))

    def two_speakers(listed: np.ndarray) -> Iterable[str]:
        for row in listed:
            target, prompt = speaker[rows.clip[row]], speaker[rows.prompt[row]]
            yield f"target by {names[target]}, prompt by {names[prompt]}"

    findings = in_pairs("prompt_is_target", rows, np.flatnonzero(rows.prompt == rows.clip), total)
    findings += in_pairs("prompt_other_speaker", rows, stranger, total, two_speakers)
    findings += in_pairs("prompt_unknown", rows, np.flatnonzero(~known), total)
    findings += in_pairs("pair_repeated", rows, _repeated(rows), total)
    return findings


def check_fields(rows: Rows) -> list[Finding]:
    """Rows that lack a path which other rows of their manifest have, and clips whose rows say different things."""
    findings = []
    for kind, role in (("prompt_missing", "prompt_"), ("field_missing", "target_")):
        columns = [name for name in rows.columns if name.startswith(role) and name.endswith("_path")]
        lacking = {name: _lacking(rows, name) for name in columns if name != "target_mel_path"}
        members = np.flatnonzero(np.any([np.zeros(len(rows), bool), *lacking.values()], axis=0))

        def which(listed: np.ndarray, lacking: dict[str, np.ndarray] = lacking) -> Iterable[str]:
            return (f"no {', '.join(name for name, gone in lacking.items() if gone[row])}" for row in listed)

        findings += in_pairs(kind, rows, members, len(rows), which)
    return findings + _disagreements(rows)


def check_shared_audio(rows: Rows) -> list[Finding]:
    """Clips that name the audio file of an earlier clip."""
    filled = np.flatnonzero(rows.has("target_audio_path")[rows.first])
    keys = string_keys(rows.values("target_audio_path", rows.first[filled]))
    order = np.argsort(keys, kind="stable")
    again = order[1:][keys[order[1:]] == keys[order[:-1]]]
    return in_clips("audio_shared", rows, np.sort(filled[again]), len(filled), lambda clips: _paths(rows, clips))


def _paths(rows: Rows, clips: np.ndarray) -> Iterable[str]:
    return rows.values("target_audio_path", rows.first[clips]).to_pylist()


def check_mels(rows: Rows) -> list[Finding]:
    """Pairs that have no mel yet, and pairs behind them that have one: those are not trained on."""
    filled = rows.has("target_mel_path")
    findings = in_pairs("mel_missing", rows, np.flatnonzero(~filled), len(rows))
    manifest = rows.splits[0].manifest
    is_ordered_apart = (manifest.root / MEL_MANIFEST).is_file() and manifest.path.name != MEL_MANIFEST
    train = filled[: len(manifest)]
    if is_ordered_apart or not train.any() or train.all():
        return findings
    head = int(np.argmin(train))
    stray = np.flatnonzero(train[head:]) + head
    return findings + in_pairs("mel_order", rows, stray, len(train))


def check_unlisted(rows: Rows, features: Features) -> list[Finding]:
    """Pairs without a mel in the manifest whose target has one in the data folder."""
    waiting = np.flatnonzero(~rows.has("target_mel_path"))
    there = features.exists("mel", rows.values("target_id", waiting)) if len(waiting) else np.empty(0, bool)
    return in_pairs("mel_unlisted", rows, waiting[there], len(waiting))


def _lacking(rows: Rows, column: str) -> np.ndarray:
    """(rows,) bool: not filled although another row of the same manifest has it."""
    lacking = ~rows.has(column)
    for start, end in zip(rows.starts[:-1], rows.starts[1:], strict=True):
        if lacking[start:end].all():
            lacking[start:end] = False
    return lacking


def _repeated(rows: Rows) -> np.ndarray:
    """Rows whose target and prompt an earlier row has."""
    keys = string_keys(rows.values("prompt_id")) + rows.clip.astype(np.uint64) * SPREAD
    order = np.argsort(keys, kind="stable")
    return np.sort(order[1:][keys[order[1:]] == keys[order[:-1]]])


def _disagreements(rows: Rows) -> list[Finding]:
    """Clips of which one row says something else than the clip's first row."""
    first = rows.first[rows.clip]  # (rows,) the first row of each row's clip
    fields = [name for name in (*_NAMES, *_LENGTHS) if name in rows]
    other = np.full(len(rows.clips), -1)  # (clips,) the row that differs
    field = np.zeros(len(rows.clips), dtype=np.int8)  # in what
    for number, name in enumerate(fields):
        values = string_keys(rows.texts(name)) if name in _NAMES else rows.numbers(name)
        filled = rows.has(name)
        differing = np.flatnonzero((values != values[first]) & filled & filled[first])[::-1]
        differing = differing[other[rows.clip[differing]] < 0]
        other[rows.clip[differing]], field[rows.clip[differing]] = differing, number

    def what(listed: np.ndarray) -> Iterable[str]:
        for clip in listed:
            name, rows_of_clip = fields[field[clip]], np.array([rows.first[clip], other[clip]])
            before, here = rows.values(name, rows_of_clip).to_pylist()
            yield f"{name} is {before!r} here and {here!r} in {rows.places(rows_of_clip[1:])[0]}"

    return in_clips("clip_disagrees", rows, np.flatnonzero(other >= 0), len(rows.clips), what)
