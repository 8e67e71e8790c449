"""One optimiser step: forward, backward, clip, step, in the order it happens; a bad one is not taken."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tts_kernel.data.planned import AnyBatch
from tts_kernel.optim.optimizers import effective_rate
from tts_kernel.training.guards import OnOutOfMemory
from tts_kernel.training.processes import Processes

log = logging.getLogger(__name__)


class Objective(Protocol):
    """The recipe's loss: a module that holds the model, so that whatever wraps it sees the whole forward pass."""

    @property
    def model(self) -> nn.Module:
        """What is trained and saved."""

    @property
    def weights(self) -> Mapping[str, float]:
        """By loss term."""

    @property
    def names(self) -> Sequence[str]:
        """Of all sums: loss terms and metrics."""

    @property
    def tokens(self) -> Sequence[str]:
        """Of those whose targets count as tokens of the batch."""

    @property
    def watched(self) -> Sequence[str]:
        """Of those whose sum tells whether the loss leaves its range."""

    def counts(self, batch: Any) -> dict[str, int]:
        """Targets by name, known before the forward pass, so that each micro-batch can be divided by the total of its
        update; a name that is absent has none."""

    def __call__(self, batch: Any) -> dict[str, Tensor]:
        """Forward pass: sums over their targets, so that the mean over several batches is exact."""

    def before_step(self, step: int) -> dict[str, float]:
        """Called before every update, with its number counted from 0; returns metrics to log, with full names."""

    def summary(self, split: Literal["train", "val"], means: Mapping[str, float]) -> dict[str, float]:
        """Mean by name -> metrics under their full names, `train/...` or `val/...`."""


@dataclass(frozen=True)
class Updated:
    """What one update did."""

    means: dict[str, float]  # of each sum with targets, over all processes
    tokens: int  # targets that count as tokens
    norm: float  # of the gradient before clipping
    rate: float  # that reached the weights
    taken: bool  # False: a loss or the gradient is not finite, and the weights are as they were
    excused: bool = False  # not taken for a loss scale that was too high, which is lower now
    extra: Mapping[str, float] = field(default_factory=dict)  # metrics to log beside, with full names
    stands: str = "the weights are as they were"  # of one that was not taken


class TakesSteps(Protocol):
    """What the loop asks of whatever takes a run's optimiser steps."""

    parts: int  # forward passes that a micro-batch is taken in

    def totals(self, batches: Iterable[Any], requests: Sequence[bool] = ()) -> tuple[dict[str, int], list[bool]]:
        """Targets by name of all processes' batches, and whether any process makes each of the requests."""

    def __call__(self, micro_batches: Sequence[Any], totals: Mapping[str, int]) -> Updated:
        """One update. A gradient that is not finite stays, for a report, until `clear`."""

    def clear(self) -> None: ...

    def advice(self, batch_size: int, grad_accumulation: int) -> str:
        """What to set where memory does not suffice."""

    def state(self) -> dict[str, Any]:
        """Beyond the optimizer's: plain values, for a checkpoint."""

    def restore(self, state: Mapping[str, Any]) -> None: ...


def targets(
    objective: Objective, processes: Processes, batches: Iterable[AnyBatch], requests: Sequence[bool] = ()
) -> tuple[dict[str, int], list[bool]]:
    """Targets by name of all processes' batches, and whether any process makes each of the requests."""
    counted: dict[str, int] = defaultdict(int)
    for batch in batches:
        if not batch.idle:
            for name, count in objective.counts(batch).items():
                counted[name] += count
    names = objective.names
    if processes.world == 1:
        return {name: counted[name] for name in names}, list(requests)
    mine = [*(counted[name] for name in names), *map(int, requests)]
    summed = processes.total(torch.tensor(mine, device=processes.device)).tolist()
    return dict(zip(names, summed, strict=False)), [count > 0 for count in summed[len(names) :]]


class Updater:
    """Takes the optimiser steps of one run. `requests` travel with the counts: what any process asks for, all learn in
    the same update."""

    def __init__(
        self,
        objective: Objective,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
        processes: Processes,
        *,
        grad_clip: float,
        autocast: Callable[[], AbstractContextManager[object]],
        on_out_of_memory: OnOutOfMemory = "stop",
    ) -> None:
        self.objective, self.wrapped, self.optimizer, self.processes = objective, wrapped, optimizer, processes
        self.grad_clip, self.autocast, self.on_out_of_memory = grad_clip, autocast, on_out_of_memory
        self.trainable = [p for group in optimizer.param_groups for p in group["params"]]
        norms = [module for module in objective.model.modules() if isinstance(module, _BatchNorm)]
        self._statistics = [buffer for module in norms for buffer in module.buffers()]  # changed by a forward pass
        self.parts = 1  # forward passes that a micro-batch is taken in

    def totals(self, batches: Iterable[AnyBatch], requests: Sequence[bool] = ()) -> tuple[dict[str, int], list[bool]]:
        """As `targets`."""
        return targets(self.objective, self.processes, batches, requests)

    def __call__(self, micro_batches: Sequence[AnyBatch], totals: Mapping[str, int]) -> Updated:
        """Losses are sums over targets, divided once by their totals, so the gradient does not depend on how the rows
        were split over micro-batches and processes (but for an adversary that standardises each micro-batch). A
        gradient that is not finite stays, for a report, until `clear`. Raises torch.OutOfMemoryError."""
        before = [buffer.clone() for buffer in self._statistics]
        while True:
            try:
                sums = self._gradient(micro_batches, totals)
                break
            except torch.OutOfMemoryError:
                largest = max(len(batch.ids) for batch in micro_batches)
                if self.on_out_of_memory == "stop" or self.parts >= largest:
                    raise
            # Here the error and the tensors that it held are gone.
            self.clear()
            self._put_back(before)
            torch.cuda.empty_cache()
            self.parts *= 2
            log.warning(
                "out of memory: from now on a batch takes %d forward passes of %d rows at most, for the same update",
                self.parts,
                -(-largest // self.parts),
            )
        norm = self.processes.norm(self.trainable)
        names = list(sums)
        values = self.processes.total(torch.stack([sums[name] for name in names]))
        # The one time that the GPU is waited for.
        norm_value, *summed = torch.cat([norm.detach().float().reshape(1), values]).tolist()
        rate = effective_rate(self.optimizer)  # the one this step uses
        taken = all(map(math.isfinite, (norm_value, *summed)))
        if taken:
            if norm_value > self.grad_clip:
                factor = self.grad_clip / (norm_value + 1e-6)
                torch._foreach_mul_([p.grad for p in self.trainable if p.grad is not None], factor)
            self.optimizer.step()
            self.clear()
        else:
            self._put_back(before)
        means = {name: value / totals[name] for name, value in zip(names, summed, strict=True) if totals[name]}
        return Updated(means, sum(totals[name] for name in self.objective.tokens), norm_value, rate, taken)

    def _gradient(self, micro_batches: Sequence[AnyBatch], totals: Mapping[str, int]) -> dict[str, Tensor]:
        parts = [part for batch in micro_batches for part in (batch.split(self.parts) if self.parts > 1 else [batch])]
        sums = {name: torch.zeros((), device=self.processes.device) for name in self.objective.names}
        for number, batch in enumerate(parts):
            with self.processes.accumulating(self.wrapped, last=number + 1 == len(parts)):
                with self.autocast():
                    found = self.wrapped(batch.to(self.processes.device))
                    terms = [
                        weight * found[name] / max(totals[name], 1) for name, weight in self.objective.weights.items()
                    ]
                # Gradients are averaged over the processes, and are to be summed. An idle one adds nothing.
                (torch.stack(terms).sum() * (0 if batch.idle else self.processes.world)).backward()
            for name, value in found.items():
                if not batch.idle:
                    sums[name] += value.detach()
        return sums

    def _put_back(self, statistics: Sequence[Tensor]) -> None:
        for buffer, value in zip(self._statistics, statistics, strict=True):
            buffer.copy_(value)

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def advice(self, batch_size: int, grad_accumulation: int) -> str:
        """What to set where memory does not suffice."""
        half, rest = divmod(batch_size, 2)
        way = f"batch_size {half} and grad_accumulation {2 * grad_accumulation}, which is the same update"
        return "gradient_checkpointing" if rest else f"{way}, or with on_out_of_memory 'split'"

    def state(self) -> dict[str, Any]:
        """Nothing beyond the optimizer's."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
