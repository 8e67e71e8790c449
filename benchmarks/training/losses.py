"""Whether what is faster learns as much: validation loss after the same pairs."""

from __future__ import annotations

import statistics

from benchmarks.data.measure import measure
from benchmarks.data.result import Result
from benchmarks.training.corpus import TRAIN, make_data
from benchmarks.training.harness import plain, trainer
from benchmarks.training.sizes import Sizes
from benchmarks.training.throughput import LADDER

RATE = 1.0e-3
NOISE = 2.0  # standard errors of a mean that two equal ones may lie apart

TITLE = "Loss after equal tokens"
METHOD = """Both train a model of 3 layers, 128 wide, from the same weights on all {pairs:,} pairs once, by their own
order and dropout of each of {seeds} seeds, at the same constant rate and with updates of 16 pairs; then the loss (0.2
text + 0.8 codes, nats per token) of the same held-out pairs without dropout. Equal within noise: the means over the
seeds differ by less than twice the standard error of their difference, or by less than 1 %. An update of 4 batches
mixes lengths, as the recipe's default of 4 does; one of a single batch does not, which costs a little: the last
line."""


def run(sizes: Sizes) -> list[Result]:
    data = str(sizes.folder / "losses")
    measure(make_data, 1, data=data, shape="small", pairs=sizes.pairs)
    mixed, single = {"batch_size": 4, "grad_accumulation": 4}, {"batch_size": 16, "grad_accumulation": 1}
    kinds = {  # what is measured by -> how the updates are made, in which precision; None for the plain loop
        "plain": (mixed, None),
        "mixed": (mixed, "float32"),
        "bfloat16": (mixed, "bfloat16"),
        "single": (single, "float32"),
    }
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for seed in range(sizes.seeds):
        for kind, (update, precision) in kinds.items():
            common = {"data": data, "stage": 3, "manifest": TRAIN, "seed": seed, "learning_rate": RATE, **update}
            common["run"] = sizes.folder / f"losses-{kind}-{seed}"
            if precision is None:
                figures = measure(plain, 1, ways=dict.fromkeys(LADDER, False), **common)
            else:
                figures = measure(trainer, 1, precision=precision, **common)
            found[kind].append(figures["loss"])
    judged = sizes.full and sizes.seeds >= 3
    return [
        compared("the Trainer", found["plain"], found["mixed"], judged),
        compared("the Trainer in bfloat16", found["plain"], found["bfloat16"], judged=False),
        compared("the Trainer, an update of one batch of 16", found["plain"], found["single"], judged=False),
    ]


def compared(what: str, plain_losses: list[float], losses: list[float], judged: bool) -> Result:
    """Means of two samples, with what lies between seeds."""
    first, second = statistics.fmean(plain_losses), statistics.fmean(losses)
    spreads = [statistics.stdev(sample) if len(sample) > 1 else 0.0 for sample in (plain_losses, losses)]
    error = (sum(spread**2 for spread in spreads) / len(losses)) ** 0.5
    apart = abs(second - first)
    return Result(
        what,
        plain=f"{first:.4f} ± {spreads[0]:.4f}",
        ours=f"{second:.4f} ± {spreads[1]:.4f}",
        ratio=f"{100 * (second / first - 1):+.2f} %",
        target="equal within noise" if judged else "",
        met=(apart < NOISE * error or apart < 0.01 * first) if judged else None,
    )
