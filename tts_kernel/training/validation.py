"""The losses of the pairs that are held out, by the path that training takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from tts_kernel.data.loader import BatchLoader
from tts_kernel.data.sampler import Position
from tts_kernel.training.processes import Processes
from tts_kernel.training.update import Objective


@torch.no_grad()
def validation_metrics(
    objective: Objective,
    loader: BatchLoader,
    processes: Processes,
    autocast: Callable[[], AbstractContextManager[object]],
) -> dict[str, float]:
    """Of all that `loader` has: means over the targets of all processes, under the objective's names. All processes
    have to call it, each with its share. The model computes in the mode that it is in."""
    names, device = objective.names, processes.device
    sums = {name: torch.zeros((), device=device) for name in names}
    totals: dict[str, int] = defaultdict(int)
    for batch in loader.batches(Position()):
        with autocast():
            found = objective(batch.to(device))  # also where idle: a sharded model needs all
        if batch.idle:
            continue
        for name, count in objective.counts(batch).items():
            totals[name] += count
        for name, value in found.items():
            sums[name] += value
    counted = torch.tensor([totals[name] for name in names], dtype=torch.float64)
    summed = torch.stack([sums[name].double() for name in names]).cpu()
    both = processes.total(torch.stack([summed, counted]).to(device)).tolist()
    means = {name: value / count for name, value, count in zip(names, *both, strict=True) if count}
    return objective.summary("val", means)
