"""A job for tests to kill: `python -m tests.data.extract.jobs DATA CLIPS WORKERS` extracts `make_clips`."""

from __future__ import annotations

import logging
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from tests.data.extract.extractors import Numbered
from tts_kernel.audio import wav as audio
from tts_kernel.data.extract import Extractor, extract
from tts_kernel.data.features import Features
from tts_kernel.data.features.shards import read_index

RATE = 22_050
SHARD = 5  # clips


def make_clips(data: Path, count: int) -> list[tuple[str, Path]]:
    """`count` clips of 10 ms whose samples say their number."""
    data.mkdir(parents=True, exist_ok=True)
    clips = [(f"clip{number}", data / f"clip{number}.wav") for number in range(count)]
    for number, (_, path) in enumerate(clips):
        if not path.exists():
            audio.write(path, np.full(220, number / 1_000), RATE)
    return clips


def numbered(data: Path, seconds: float = 0.0, deadly: int = -1) -> Extractor:
    return Extractor(("number",), Numbered(data / "calls.txt", seconds, deadly), RATE)


def calls(data: Path) -> Counter[int]:
    """How often each clip was computed."""
    return Counter(int(line.split()[0]) for line in (data / "calls.txt").read_text().splitlines())


def workers(data: Path) -> set[int]:
    """Process ids that computed something."""
    return {int(line.split()[1]) for line in (data / "calls.txt").read_text().splitlines()}


def finished_shards(data: Path) -> list[str]:
    return sorted(path.stem for path in (data / "features").glob("*.arrow"))


def check_complete(data: Path, numbers: set[int]) -> None:
    """Each of these clips has its array, and lies in one shard once; nothing half-written is left."""
    tables = [read_index(path)[0] for path in (data / "features").glob("*.arrow")]
    found = Counter(clip for table in tables for clip in table.column("clip").to_pylist())
    assert found == Counter(f"clip{number}" for number in numbers)
    arrays = Features(data).read_kind("number", [f"clip{number}" for number in sorted(numbers)])
    assert [int(array[0]) for array in arrays] == sorted(numbers)
    assert not list((data / "features").glob(".*.tmp"))
    assert {path.stem for path in (data / "features").glob("*.tar")} == set(finished_shards(data))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    logging.basicConfig(level=logging.INFO)
    folder = Path(sys.argv[1])
    listed = make_clips(folder, int(sys.argv[2]))
    extract(listed, folder, numbered(folder, seconds=0.05), workers=int(sys.argv[3]), shard_size=SHARD)
