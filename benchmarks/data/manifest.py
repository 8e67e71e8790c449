"""Importing a manifest, against the loop that parses each line and builds a record with its paths."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data.measure import Figures, Stopwatch, compare, measure, peak_mb
from benchmarks.data.result import Result, Sizes, below, faster


@dataclass
class Pair:
    """What the guide's trainer keeps per row."""

    id: str
    target_id: str
    prompt_id: str
    speaker: str
    language: str
    text_ids_path: Path
    text_len: int
    codes_path: Path
    code_len: int
    condition_path: Path
    condition_len: int
    emo_vec_path: Path
    target_audio_path: Path
    prompt_audio_path: Path
    mel_path: Path | None


def parse_lines(path: Path) -> list[Pair]:
    """The plain way."""
    root, pairs = path.parent, []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            mel = row.get("target_mel_path") or row.get("prompt_mel_path")
            pairs.append(
                Pair(
                    id=row["id"],
                    target_id=row["target_id"],
                    prompt_id=row["prompt_id"],
                    speaker=row["speaker"],
                    language=row["language"],
                    text_ids_path=root / row["target_text_ids_path"],
                    text_len=row["target_text_len"],
                    codes_path=root / row["target_codes_path"],
                    code_len=row["target_code_len"],
                    condition_path=root / row["prompt_condition_path"],
                    condition_len=row.get("prompt_condition_len", 32),
                    emo_vec_path=root / row["prompt_emo_vec_path"],
                    target_audio_path=root / row["target_audio_path"],
                    prompt_audio_path=root / row["prompt_audio_path"],
                    mel_path=root / mel if mel else None,
                )
            )
    return pairs


def plain(path: str) -> Figures:
    before = peak_mb()
    with Stopwatch() as whole:
        pairs = parse_lines(Path(path))
    grown = peak_mb() - before
    per_row = {"seconds": whole.seconds, "cpu": whole.cpu, "mb": grown}
    return {name: value / len(pairs) for name, value in per_row.items()}


def json_alone(path: str) -> Figures:
    """What no way with one Python object per line can undercut."""
    rows = 0
    with Stopwatch() as whole, Path(path).open(encoding="utf-8") as lines:
        for line in lines:
            json.loads(line)
            rows += 1
    return {"seconds": whole.seconds / rows}


def ours(path: str) -> Figures:
    from tts_kernel.data.manifest import read_manifest
    from tts_kernel.data.manifest.cache import places

    for place in places(Path(path)):
        place.unlink(missing_ok=True)
        place.with_suffix(".json").unlink(missing_ok=True)
    with Stopwatch() as whole:
        manifest = read_manifest(Path(path))
    stored = sum(place.stat().st_size for place in places(Path(path)) if place.exists())
    return {"seconds": whole.seconds, "cpu": whole.cpu, "rows": len(manifest), "stored_mb": stored / 1e6}


TITLE = "Manifest import"
METHOD = """The plain way reads JSON lines into one record per row, with a `Path` per file; it runs on {sampled:,}
rows and is scaled to {rows:,}, as is the memory that it keeps. Ours checks every line, paths and ids included, and
writes the columns that later runs map. Nothing is cached before but the source's pages."""


def run(sizes: Sizes) -> list[Result]:
    loop, floor = compare([plain, json_alone], sizes.repeats, path=sizes.sample_manifest)
    columns = measure(ours, sizes.repeats, path=sizes.manifest)
    source = sizes.manifest.stat().st_size / 1e6
    return [
        faster("import, checks included", loop["seconds"] * sizes.rows, columns["seconds"], at_least=8),
        faster("the same by processor time, all threads", loop["cpu"] * sizes.rows, columns["cpu"]),
        faster("the same against `json.loads` of each line alone", floor["seconds"] * sizes.rows, columns["seconds"]),
        below("peak memory", columns["peak_mb"], 3000, "MB", plain=loop["mb"] * sizes.rows, judged=sizes.full),
        below("on disk, beside the JSONL", columns["stored_mb"], None, "MB", plain=source),
    ]
