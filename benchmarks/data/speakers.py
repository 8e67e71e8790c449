"""The speaker mapping of a manifest, and how much of it the mapping covers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.data.manifest import parse_lines
from benchmarks.data.measure import Figures, Stopwatch, measure
from benchmarks.data.result import Result, Sizes, below

TOP_K, MIN_CLIPS = 500, 50


def plain(path: str) -> Figures:
    """Clips per speaker from records, the most frequent ones, and the rows that they cover."""
    pairs = parse_lines(Path(path))
    with Stopwatch() as whole:
        clips = {pair.target_id: pair.speaker for pair in pairs}
        ranked = sorted(Counter(clips.values()).items(), key=lambda item: (-item[1], item[0]))
        mapping = {name: number for number, (name, count) in enumerate(ranked[:TOP_K]) if count >= MIN_CLIPS}
        covered = sum(pair.speaker in mapping for pair in pairs)
    assert 0 < covered <= len(pairs)
    return {"seconds": whole.seconds / len(pairs)}


def ours(path: str) -> Figures:
    from tts_kernel.data.manifest import read_manifest
    from tts_kernel.data.speakers import check_coverage, count_clips, count_rows, coverage, map_speakers

    manifest = read_manifest(Path(path))
    with Stopwatch() as whole:
        mapping = map_speakers(count_clips(manifest), TOP_K, MIN_CLIPS)
        found = coverage(mapping, count_rows(manifest))
        check_coverage(found, 0.1)
    return {"seconds": whole.seconds, "share": 100 * found.share, "speakers": len(mapping)}


TITLE = "Speaker mapping"
METHOD = """`top_k` 500, `min_clips` 50, from the manifest to a mapping, its coverage and the check before training.
The plain way counts over records that are already there (time scaled from {sampled:,} rows)."""


def run(sizes: Sizes) -> list[Result]:
    loop = measure(plain, 1, path=sizes.sample_manifest)["seconds"] * sizes.rows
    columns = measure(ours, sizes.repeats, path=sizes.manifest)
    return [
        below("mapping, coverage, check", columns["seconds"], 3, plain=loop, judged=sizes.full),
        below("speakers mapped", columns["speakers"], None, ""),
        below("rows covered", columns["share"], None, "%"),
    ]
