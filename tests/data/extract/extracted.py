"""Clips of noise for tests of extraction, and what a job made of them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np

from tests.data.extract.extractors import double
from tts_kernel.audio import wav as audio
from tts_kernel.data.extract import ExtractionReport, Extractor
from tts_kernel.data.features.shards import read_index

RATE = 22_050
DOUBLE = Extractor(("double",), double, RATE)
Clips = list[tuple[str, Path]]


def noise_clips(folder: Path, count: int = 12) -> Clips:
    """Clips of noise, each of another length: 4,000 samples, 4,100, ..."""
    noise = np.random.default_rng(1)
    clips = [(f"good{number}", folder / f"good{number}.wav") for number in range(count)]
    for number, (_, path) in enumerate(clips):
        audio.write(path, 0.1 * noise.standard_normal(4_000 + 100 * number).clip(-5, 5), RATE)
    return clips


def reasons(report: ExtractionReport) -> dict[str, tuple[str, str]]:
    """clip -> (status, reason), as the report has them; its table on the disk must say the same."""
    with report.table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == report.failures.to_pylist()
    return {row["clip"]: (row["status"], row["reason"]) for row in rows}


def stored(data: Path) -> Counter[tuple[str, str]]:
    """How often each (clip, kind) lies in the finished shards."""
    tables = [read_index(path)[0] for path in (data / "features").glob("*.arrow")]
    return Counter(
        pair
        for table in tables
        for pair in zip(table.column("clip").to_pylist(), table.column("kind").to_pylist(), strict=True)
    )


def shards(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "features").glob("*.tar"))
