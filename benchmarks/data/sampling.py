"""A whole epoch of shuffled, length-bucketed batches, and the padding that is left in them."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.manifest import parse_lines
from benchmarks.data.measure import Figures, Stopwatch, measure
from benchmarks.data.result import Result, Sizes, below

BATCH_SIZE = 16
WINDOW = 4096  # rows that are sorted by length together


def plain(path: str) -> Figures:
    """Shuffled records, sorted window by window, cut into batches, the batches shuffled."""
    pairs = parse_lines(Path(path))
    rng = random.Random(0)
    count = 0
    with Stopwatch() as whole:
        order = list(range(len(pairs)))
        rng.shuffle(order)
        for start in range(0, len(order), WINDOW):
            window = sorted(order[start : start + WINDOW], key=lambda row: pairs[row].text_len + pairs[row].code_len)
            batches = [window[first : first + BATCH_SIZE] for first in range(0, len(window), BATCH_SIZE)]
            rng.shuffle(batches)
            count += sum(len(batch) for batch in batches)
    assert count == len(pairs)
    return {"seconds": whole.seconds / len(pairs)}


def plan_of(manifest: Any) -> Any:
    """Buckets by text tokens + codes, what a row fills of the model's sequence."""
    from tts_kernel.data.sampler import BatchPlan

    lengths = manifest.numbers("target_text_len") + manifest.numbers("target_code_len")
    rows = np.arange(len(manifest))
    return BatchPlan(rows, lengths, available=len(rows), batch_size=BATCH_SIZE, window=WINDOW)


def ours(path: str) -> Figures:
    from tts_kernel.data.manifest import read_manifest
    from tts_kernel.data.sampler import Position

    manifest = read_manifest(Path(path))
    count = 0
    with Stopwatch() as whole:
        for planned in plan_of(manifest).epoch(Position()):
            count += len(planned.rows)
    assert count == len(manifest)
    return {"seconds": whole.seconds}


def padding(path: str) -> Figures:
    """Percent of padded positions that hold nothing, over the first 20,000 batches, counted from the batches."""
    from tts_kernel.data.manifest import read_manifest
    from tts_kernel.data.sampler import Position

    manifest = read_manifest(Path(path))
    bucketed = [planned.rows for planned in islice(plan_of(manifest).epoch(Position()), 20_000)]
    order = np.random.default_rng(0).permutation(len(manifest))
    shuffled = [order[first : first + BATCH_SIZE] for first in range(0, len(order), BATCH_SIZE)][:20_000]
    text, codes = manifest.numbers("target_text_len"), manifest.numbers("target_code_len")
    lengths = {"sequence": text + codes, "codes": codes, "text": text}
    figures = {name: waste(values, bucketed) for name, values in lengths.items()}
    return figures | {"shuffled": waste(text + codes, shuffled)}


def waste(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    padded = sum(int(lengths[rows].max()) * len(rows) for rows in batches)
    return 100.0 * (1.0 - sum(int(lengths[rows].sum()) for rows in batches) / padded)


TITLE = "Shuffling, length bucketing, sampling"
METHOD = """Every batch of one epoch over {rows:,} rows at batch size 16, rows shuffled and sorted by length within
windows of 4,096. The plain way does the same with a list of records (time scaled from {sampled:,} rows). Padding is
counted from the lengths of the planned batches; the plain way for it is a shuffle."""


def run(sizes: Sizes) -> list[Result]:
    loop = measure(plain, 1, path=sizes.sample_manifest)["seconds"] * sizes.rows
    columns = measure(ours, sizes.repeats, path=sizes.manifest)
    share = measure(padding, 1, path=sizes.manifest)
    return [
        below("one epoch of batches", columns["seconds"], 3, plain=loop, judged=sizes.full),
        below("peak memory", columns["peak_mb"], None, "MB"),
        below("padding at batch 16, text + codes", share["sequence"], 5, "%", plain=share["shuffled"]),
        below("padding of the codes alone", share["codes"], None, "%"),
        below("padding of the text alone", share["text"], None, "%"),
    ]
