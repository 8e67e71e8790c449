"""One update of a generator and of the critics that judge it: critics first, by what the generator has just said, then
the generator, by what they think of it now. Each step is taken whole or not at all.

One optimizer has the parameters of all networks. AdamW treats every parameter by itself and leaves alone what has no
gradient, so this is the same as an optimizer for each network, with one state to save and to resume.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from tts_kernel.data.planned import AnyBatch
from tts_kernel.optim.optimizers import effective_rate
from tts_kernel.training.processes import Processes
from tts_kernel.training.update import Objective, Updated, targets

log = logging.getLogger(__name__)


class AdversarialObjective(Objective, Protocol):
    """What each network learns from. Calling it is for validation: the generator's own losses, without draws that
    training would miss. Sums are over the targets that `counts` tells, so that means over several batches are exact."""

    @property
    def generator(self) -> nn.Module: ...

    @property
    def critics(self) -> Mapping[str, nn.Module]:
        """By the name that their gradient is logged under."""

    def say(self, batch: Any) -> Any:
        """The generator's forward pass."""

    def judge(self, batch: Any, said: Any) -> dict[str, Tensor]:
        """What the critics learn from: sums over targets. Nothing of it reaches the generator."""

    def please(self, batch: Any, said: Any) -> dict[str, Tensor]:
        """What the generator learns from, before the weights."""


@dataclass
class LossScale:
    """Lifts gradients into the range of float16: halved where they leave it, doubled after `patience` updates in which
    they did not. Source: Micikevicius et al. 2018 (arXiv 1710.03740, section 3.2); the values are torch's."""

    value: float = 65_536.0
    good: int = 0  # updates since it was changed last
    patience: int = 2000

    def lower(self) -> None:
        self.value, self.good = max(self.value / 2.0, 1.0), 0

    def keep(self) -> None:
        self.good += 1
        if self.good == self.patience:
            self.value, self.good = self.value * 2.0, 0


@dataclass(frozen=True)
class _Gradient:
    """Of the networks that step together."""

    losses: dict[str, float]  # sums over all processes
    norms: dict[str, float]  # of each network, unscaled, before clipping

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, (*self.losses.values(), *self.norms.values())))

    @property
    def overflowed(self) -> bool:
        """The losses are numbers and their gradient is not."""
        return not self.finite and all(map(math.isfinite, self.losses.values()))


class AdversarialUpdater:
    """Takes both steps of every update of one run. With `scale` losses are lifted for float16; a gradient that leaves
    its range costs one update and halves the scale."""

    parts = 1  # forward passes that a micro-batch is taken in; memory is not traded for time here

    def __init__(
        self,
        objective: AdversarialObjective,
        optimizer: torch.optim.Optimizer,
        processes: Processes,
        *,
        grad_clip: float,
        autocast: Callable[[], AbstractContextManager[object]],
        scale: LossScale | None = None,
    ) -> None:
        self.objective, self.optimizer, self.processes = objective, optimizer, processes
        self.grad_clip, self.autocast, self.scale = grad_clip, autocast, scale

    def totals(self, batches: Iterable[AnyBatch], requests: Sequence[bool] = ()) -> tuple[dict[str, int], list[bool]]:
        """As `update.targets`."""
        return targets(self.objective, self.processes, batches, requests)

    def __call__(self, micro_batches: Sequence[AnyBatch], totals: Mapping[str, int]) -> Updated:
        """Where the critics' gradient is not finite neither step is taken, where the generator's is not its own is not.
        Raises torch.OutOfMemoryError."""
        objective, critics = self.objective, self.objective.critics
        batches = [batch.to(self.processes.device) for batch in micro_batches]
        with self.autocast():
            spoken = [objective.say(batch) for batch in batches]
        rate = effective_rate(self.optimizer)
        judged = self._gradient(batches, spoken, totals, objective.judge, critics)
        pleased = _Gradient({}, {})
        if judged.finite:
            self._take(critics, judged)
            for critic in critics.values():
                critic.requires_grad_(False)
            try:
                pleased = self._gradient(batches, spoken, totals, objective.please, {"g": objective.generator})
            finally:
                for critic in critics.values():
                    critic.requires_grad_(True)
            if pleased.finite:
                self._take({"g": objective.generator}, pleased)
        return self._updated(judged, pleased, totals, rate)

    def _gradient(
        self,
        batches: Sequence[AnyBatch],
        spoken: Sequence[Any],
        totals: Mapping[str, int],
        losses: Callable[[Any, Any], dict[str, Tensor]],
        networks: Mapping[str, nn.Module],
    ) -> _Gradient:
        """Of the sum of all weighted means, over all processes, left in the parameters."""
        sums: dict[str, Tensor] = {}
        weights, lift = self.objective.weights, self.scale.value if self.scale else 1.0
        for batch, said in zip(batches, spoken, strict=True):
            with self.autocast():
                found = losses(batch, said)
            terms = [weights[name] * value.float() / max(totals[name], 1) for name, value in found.items()]
            share = 0.0 if batch.idle else lift
            (torch.stack(terms).sum() * share).backward()
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() * (not batch.idle)
        own = {name: [p for p in network.parameters() if p.grad is not None] for name, network in networks.items()}
        gradients = [p.grad for parameters in own.values() for p in parameters if p.grad is not None]
        self._add_up(gradients)
        torch._foreach_mul_(gradients, 1.0 / lift)
        norms = torch.stack([self.processes.norm(parameters).float() for parameters in own.values()])
        values = self.processes.total(torch.stack(list(sums.values())))
        # The one time that the GPU is waited for.
        numbers = torch.cat([values, norms]).tolist()
        return _Gradient(dict(zip(sums, numbers, strict=False)), dict(zip(own, numbers[len(sums) :], strict=True)))

    def _add_up(self, gradients: Sequence[Tensor]) -> None:
        """Over the processes, in one message."""
        if self.processes.world > 1:
            summed = self.processes.total(_flatten_dense_tensors(gradients))
            for gradient, value in zip(gradients, _unflatten_dense_tensors(summed, gradients), strict=True):
                gradient.copy_(value)

    def _take(self, networks: Mapping[str, nn.Module], found: _Gradient) -> None:
        for name, network in networks.items():
            if found.norms[name] > self.grad_clip:
                factor = self.grad_clip / (found.norms[name] + 1e-6)
                torch._foreach_mul_([p.grad for p in network.parameters() if p.grad is not None], factor)
        self.optimizer.step()
        self.clear()

    def _updated(self, judged: _Gradient, pleased: _Gradient, totals: Mapping[str, int], rate: float) -> Updated:
        taken = judged.finite and pleased.finite
        excused = False
        if self.scale is not None:
            excused = (judged.overflowed or pleased.overflowed) and self.scale.value > 1.0
            if taken:
                self.scale.keep()
            elif excused:
                self.scale.lower()
                log.warning("a gradient left the range of float16: the loss scale is now %g", self.scale.value)
        sums, norms = judged.losses | pleased.losses, judged.norms | pleased.norms
        means = {name: value / totals[name] for name, value in sums.items() if totals[name]}
        extra = {"learning_rate": rate, **{f"grad_norm/{name}": value for name, value in norms.items()}}
        if self.scale is not None:
            extra["loss_scale"] = self.scale.value
        norm = pleased.norms.get("g", math.hypot(*judged.norms.values()))
        tokens = sum(totals[name] for name in self.objective.tokens)
        stands = "the generator's weights are as they were" if judged.finite else Updated.stands
        return Updated(means, tokens, norm, rate, taken, excused, extra, stands)

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def advice(self, batch_size: int, grad_accumulation: int) -> str:
        """What to set where memory does not suffice."""
        smaller = f"batch_size {batch_size // 2}, " if batch_size > 1 else ""
        return f"{smaller}half the segment_size, or precision 'float16'"

    def state(self) -> dict[str, Any]:
        """The loss scale, for a checkpoint."""
        return asdict(self.scale) if self.scale else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        if self.scale is not None and state:
            self.scale = LossScale(**state)
