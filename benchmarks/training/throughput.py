"""Non-padding tokens per second: the plain loop, each of our ways on top of it, and the recipe's own run."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.data.measure import Figures, measure
from benchmarks.data.result import Result, more
from benchmarks.training.corpus import make_data
from benchmarks.training.harness import make_round, plain, trainer
from benchmarks.training.sizes import Sizes

AT_LEAST = 2.4  # times the plain loop's tokens
LADDER = {  # each with all those before it
    "buckets": "batches of like lengths",
    "real_positions": "rows packed, heads at real positions",
    "fused_attention": "fused attention",
    "fused_adamw": "fused AdamW",
    "packed_store": "packed store, a batch at once",
}

TITLE = "Throughput"
METHOD = """Text tokens and codes that are not padding, per second. Everything trains the same model (6 layers, 384
wide) from the same weights on the same pairs: {steps} batches of 16 per round, taken evenly from all lengths of the
corpus, {rounds} rounds in which all take turns, each run in a process of its own; medians. The plain loop shuffles its
pairs, pads text and codes to the longest of a batch, attends by softmax(Q K^T) V with a mask, has heads and losses at
every position with `ignore_index`, AdamW as torch gives it, float32, and reads an item at a time from `.npy`. "The
Trainer" is the recipe's own run with its defaults, guards and metrics included, logging every step. The lines after it,
of the first round alone, give the plain loop our ways one after the other, each with all those before it."""


def run(sizes: Sizes) -> list[Result]:
    data = str(sizes.folder / "throughput")
    measure(make_data, 1, data=data, shape=sizes.shape, pairs=sizes.pairs)
    stages = {2: "stage 2", 3: "stages 1 and 3, stored conditions"}
    return [result for stage, what in stages.items() for result in _stage(sizes, data, stage, what)]


def _stage(sizes: Sizes, data: str, stage: int, what: str) -> list[Result]:
    ladder = LADDER if stage == 3 else {}
    kinds = {"plain": 0, "trainer": 0, "bfloat16": 0} | {f"+ {way}": step + 1 for step, way in enumerate(ladder)}
    speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(sizes.rounds):
        common: dict[str, Any] = {"data": data, "stage": stage}
        common["manifest"] = make_round(data, number, sizes.rounds, sizes.steps)
        for kind, steps in kinds.items():
            if number and kind.startswith("+"):
                continue
            common["run"] = sizes.folder / f"run-{stage}-{number}-{kind.removeprefix('+ ')}"
            figures: Figures
            if kind in ("trainer", "bfloat16"):
                figures = measure(trainer, 1, precision=kind if kind == "bfloat16" else "float32", **common)
            else:
                ways = {way: place < steps for place, way in enumerate(LADDER)}
                figures = measure(plain, 1, ways=ways, **common)
            speeds[kind].append(figures["tokens_per_second"])
    middle = {kind: statistics.median(found) for kind, found in speeds.items()}
    first, begun = middle["plain"], speeds["plain"][0]
    return [
        more(f"{what}: the Trainer", first, middle["trainer"], AT_LEAST, judged=sizes.full),
        more(f"{what}: the Trainer in bfloat16", first, middle["bfloat16"]),
        *(more(f"{what}: plain loop + {words}", begun, middle[f"+ {way}"]) for way, words in ladder.items()),
    ]
