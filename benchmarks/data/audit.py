"""The audit of every row without touching audio, against a loop over lines that makes a part of its checks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.data.generate import write_manifest
from benchmarks.data.manifest import parse_lines
from benchmarks.data.measure import Figures, Stopwatch, measure
from benchmarks.data.result import Result, Sizes, below

VALIDATION = "gpt_pairs_val.jsonl"


def prepare(data: str, rows: int) -> Figures:
    """A validation manifest and a speaker mapping beside the training manifest, everything imported."""
    from tts_kernel.data.manifest import read_manifest
    from tts_kernel.data.speakers import count_clips, map_speakers, write_mapping

    root = Path(data)
    write_manifest(root / VALIDATION, rows, seed=9)
    read_manifest(root / VALIDATION)
    train = read_manifest(root / "gpt_pairs_train.jsonl")
    write_mapping(map_speakers(count_clips(train)), root / "speaker_mapping.json")
    return {}


def plain(path: str) -> Figures:
    """Per record: ids, speakers, prompt and target, lengths, seconds; then counts: a part of the audit."""
    with Stopwatch() as whole:
        pairs = parse_lines(Path(path))
        ids, clips, faults = set(), {}, Counter[str]()
        for pair in pairs:
            faults["duplicate"] += pair.id in ids
            ids.add(pair.id)
            faults["itself"] += pair.target_id == pair.prompt_id
            faults["length"] += pair.text_len < 1 or pair.code_len < 1
            faults["tempo"] += not 0.3 < pair.text_len / (pair.code_len / 25) < 30
            clips[pair.target_id] = pair
        faults["speaker"] = sum(
            clips[pair.prompt_id].speaker != pair.speaker for pair in pairs if pair.prompt_id in clips
        )
        hours = sum(pair.code_len for pair in clips.values()) / 25 / 3600
        speakers = Counter(pair.speaker for pair in clips.values())
    assert hours > 0
    assert speakers
    return {"seconds": whole.seconds / len(pairs)}


def ours(data: str, run_folder: str) -> Figures:
    from tts_kernel.data.audit import AuditSettings, audit, open_corpus
    from tts_kernel.runs import Run

    settings = AuditSettings(data=data, check_audio=False, check_features=False)
    run = Run(Path(run_folder))
    run.folder.mkdir(parents=True, exist_ok=True)
    with Stopwatch() as whole:
        report = audit(open_corpus(settings), settings)
        report.save(run)
    return {"seconds": whole.seconds, "findings": len(report.findings)}


TITLE = "Audit"
METHOD = """{rows:,} rows and a hundredth of that to validate on, both imported before, no audio and no feature file
opened: from the manifests to audit.json. The plain way parses and makes a part of the same checks, record by record
(time scaled from {sampled:,} rows)."""


def run(sizes: Sizes) -> list[Result]:
    data = sizes.manifest.parent
    measure(prepare, 1, data=data, rows=max(sizes.rows // 100, 60))
    loop = measure(plain, 1, path=sizes.sample_manifest)["seconds"] * sizes.rows
    columns = measure(ours, sizes.repeats, data=data, run_folder=sizes.folder / "audit")
    return [
        below("audit of every row", columns["seconds"], 30, plain=loop, judged=sizes.full),
        below("peak memory", columns["peak_mb"], None, "MB"),
    ]
