"""An update at the schedule's rate, as the loop takes it: a bad one is reported and stays without effect."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import torch

from tts_kernel.data.planned import AnyBatch
from tts_kernel.runs import Run
from tts_kernel.training.guards import BadStep, finite_or_none, not_finite
from tts_kernel.training.outcome import LoopSettings, TrainingError
from tts_kernel.training.state import RunState
from tts_kernel.training.update import TakesSteps, Updated

log = logging.getLogger(__name__)


class GuardedUpdater:
    """Takes the steps of one run by its updater, and counts them."""

    def __init__(
        self, updater: TakesSteps, state: RunState, rate: Callable[[int], float], run: Run, settings: LoopSettings
    ) -> None:
        """`rate` is the factor on the peak rate by update."""
        self.updater, self.state, self.rate, self.run, self.settings = updater, state, rate, run, settings
        for group in state.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def __call__(self, micro_batches: Sequence[AnyBatch], totals: Mapping[str, int]) -> Updated:
        """Raises TrainingError after too many in a row that are not finite, and where memory does not suffice."""
        now, batch_size = self.state.now, self.state.plan.batch_size
        factor = self.rate(now.step) * now.rate_scale
        for group in self.state.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        try:
            done = self.updater(micro_batches, totals)
        except torch.OutOfMemoryError as error:
            way = self.updater.advice(batch_size, self.settings.grad_accumulation)
            raise TrainingError(
                f"step {now.step + 1}: out of GPU memory at batch_size {batch_size}; resume run {self.run.name} with "
                f"{way}"
            ) from error
        now.step += 1
        now.parts = self.updater.parts
        if done.taken:
            now.bad_steps = 0
        elif done.excused:
            self.updater.clear()
        else:
            self._refuse(micro_batches, done)
        return done

    def _refuse(self, micro_batches: Sequence[AnyBatch], done: Updated) -> None:
        """Keep what there is to know of an update that was not taken; stop after too many in a row."""
        now, processes = self.state.now, self.state.processes
        now.bad_steps += 1
        gradients = not_finite({name: p.grad for name, p in self.state.model.named_parameters()})
        self.updater.clear()
        shares = processes.gather([fact for batch in micro_batches if not batch.idle for fact in batch.facts()])
        bad = BadStep(
            step=now.step,
            losses={name: finite_or_none(value) for name, value in done.means.items()},
            gradient_norm=finite_or_none(done.norm),
            learning_rate=done.rate,
            pairs=[fact for share in shares for fact in share],
            parameters=gradients,
            position=micro_batches[-1].position,
            stands=done.stands,
        )
        if processes.main:
            bad.write(self.run.folder)
        if now.bad_steps >= self.settings.max_bad_steps:
            raise TrainingError(
                f"{bad}. {now.bad_steps} in a row (max_bad_steps): the run stops, its last checkpoint stands. "
                f"Look at these clips, or resume run {self.run.name} with a lower learning_rate or grad_clip, or with "
                "precision 'float32'"
            )
        log.warning("%s", bad)
