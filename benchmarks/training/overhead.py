"""What the Trainer itself costs per step: guards, counts, metrics, the plan, against a loop that has none of them."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.data.measure import measure
from benchmarks.data.result import Result, amount
from benchmarks.training.corpus import make_data
from benchmarks.training.harness import make_round, plain, trainer
from benchmarks.training.sizes import Sizes
from benchmarks.training.throughput import LADDER

TITLE = "Overhead of the Trainer"
METHOD = """A step of the plain loop with all our ways (same batches, forward pass, clipping and fused AdamW; one loss
is read per step) against the Trainer's with its defaults, stored conditions; a small model of 3 layers, 128 wide, where
a fixed cost shows. {overhead_steps} steps a round, medians of {rounds} rounds."""


def run(sizes: Sizes) -> list[Result]:
    data = str(sizes.folder / "overhead")
    measure(make_data, 1, data=data, shape="small", pairs=sizes.pairs)
    bare, often, seldom = [], [], []
    for number in range(sizes.rounds):
        common: dict[str, Any] = {"data": data, "stage": 3}
        common["manifest"] = make_round(data, number, sizes.rounds, sizes.overhead_steps)
        place = sizes.folder / f"overhead-{number}"
        ways = dict.fromkeys(LADDER, True)
        bare.append(measure(plain, 1, ways=ways, run=place / "bare", **common)["step"])
        often.append(measure(trainer, 1, run=place / "often", **common)["step"])
        every = {"log_every": sizes.overhead_steps}
        seldom.append(measure(trainer, 1, run=place / "seldom", **every, **common)["step"])
    return [
        _slower("a small model's step, logging each", bare, often),
        _slower("a small model's step, logging the last", bare, seldom),
    ]


def _slower(what: str, bare: list[float], ours: list[float]) -> Result:
    first, second = statistics.median(bare), statistics.median(ours)
    more = statistics.median(own / other - 1 for own, other in zip(ours, bare, strict=True))
    return Result(what, amount(first, "s"), amount(second, "s"), f"{100 * more:+.1f} %")
