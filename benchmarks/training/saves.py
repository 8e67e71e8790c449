"""How long a save holds up training: written at once, against copied and written by a thread.

python -m benchmarks.training.saves --gigabytes 1.5 --saves 7 --folder runs

The state is AdamW's: weights and twice as much. `blocked` is the call of save_latest. `lost` is what a save costs a
loop of CPU-bound steps in all: writing needs the same cores and memory, so on a CPU it is more than what was blocked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tts_kernel.training.checkpoints import FORMAT, CheckpointFolder
from tts_kernel.training.checkpoints.room import readable, size_of

TENSORS = 150
STEPS = 6  # between two saves at least, and as many more as the thread needs to write


@dataclass(frozen=True)
class Measured:
    """Medians over the saves but the first, in seconds."""

    first: float  # blocked; memory for the copy is new
    blocked: float
    lost: float  # per save, of a loop of steps


def state(gigabytes: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run saves: (weights, full), the full one of this size."""
    length = int(gigabytes * 1e9 / 4 / 3 / TENSORS)
    model = {f"layer.{number}.weight": torch.randn(length) for number in range(TENSORS)}
    moments = {
        number: {"step": torch.tensor(1.0), "exp_avg": torch.randn(length), "exp_avg_sq": torch.rand(length)}
        for number in range(TENSORS)
    }
    weights = {"model": model, "step": 1, "epoch": 0, "format": FORMAT}
    return weights, {**weights, "optimizer": {"state": moments, "param_groups": []}}


def step(a: Tensor, b: Tensor) -> Tensor:
    """About what a small training step does to a CPU: matrix products on all its cores."""
    for _ in range(4):
        b = torch.tanh(a @ b)
    return b


def measure(folder: Path, weights: dict[str, Any], full: dict[str, Any], saves: int, background: bool) -> Measured:
    checkpoints = CheckpointFolder(folder, keep_steps=2, background=background)
    a, b = torch.randn(700, 700) / 26, torch.randn(700, 700)
    step(a, b)
    alone = statistics.median(timed(lambda: step(a, b)) for _ in range(5 * STEPS))
    blocked, lost = [], []
    for number in range(saves + 1):
        began = time.perf_counter()
        blocked.append(timed(lambda number=number: checkpoints.save_latest(weights, full, number)))
        steps = 0
        while steps < STEPS or max((record.number for record in checkpoints.records()), default=0) <= number:
            step(a, b)
            steps += 1
        lost.append(time.perf_counter() - began - steps * alone)
    checkpoints.close()
    return Measured(blocked[0], statistics.median(blocked[1:]), statistics.median(lost[1:]))


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.5, help="size of latest_full.pth")
    parser.add_argument("--saves", type=int, default=7, help="of each kind; the median is shown")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured; a temporary one in it")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the steps beside it")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    weights, full = state(asked.gigabytes)
    print(f"{readable(size_of(full))} and the weights again, {readable(size_of(weights))}; {asked.threads} threads")
    print(f"{'':14}{'blocked':>12}{'first':>12}{'lost':>12}   milliseconds, median of {asked.saves}")
    found = {}
    for name, background in (("synchronous", False), ("background", True)):
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            found[name] = measure(Path(folder), weights, full, asked.saves, background)
        row = found[name]
        print(f"{name:14}{row.blocked * 1e3:12.0f}{row.first * 1e3:12.0f}{row.lost * 1e3:12.0f}")
    share = found["background"].blocked / found["synchronous"].blocked
    lost = found["background"].lost / found["synchronous"].lost
    print(f"training is blocked for {share:.1%} of a synchronous save (target: under 15 %); lost in all: {lost:.1%}")
    return 0 if share < 0.15 else 1


if __name__ == "__main__":
    sys.exit(main())
