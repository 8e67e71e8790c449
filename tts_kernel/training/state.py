"""Everything a run is made of at one moment: into a checkpoint, and back out of one.

What may differ when it goes on and what may not is told in docs/resume.md.
"""

from __future__ import annotations

import logging
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tts_kernel.data.planned import Plan
from tts_kernel.data.sampler import Position
from tts_kernel.models.weights import CheckpointError
from tts_kernel.optim.optimizers import training_mode
from tts_kernel.training.checkpoints import FORMAT, random_state, set_random_state
from tts_kernel.training.outcome import TrainingError
from tts_kernel.training.processes import Processes

log = logging.getLogger(__name__)

# What a resume takes from the settings of now, not from the optimizer's saved state.
_MAY_CHANGE = ("initial_lr", "weight_decay", "d_coef", "fused", "foreach")


@dataclass
class Standing:
    """Changes with every update; all of it goes into a checkpoint and comes back from it."""

    step: int = 0  # updates begun, also those that were not taken
    position: Position = field(default_factory=Position)  # where the data go on
    rate_scale: float = 1.0  # on the learning rate, lowered by every rollback
    rollbacks: int = 0
    spiked_at: int = 0  # the update with which the spike began that was last rolled back
    rolled_back_to: int = 0  # the step it went to
    bad_steps: int = 0  # not finite, in a row
    parts: int = 1  # forward passes of a micro-batch, more after running out of memory
    best_loss: float = math.inf  # val/loss, after the start
    since_best: int = 0  # validations
    val_before: dict[str, float] = field(default_factory=dict)
    val_last: dict[str, float] = field(default_factory=dict)
    train_last: dict[str, float] = field(default_factory=dict)
    interval: list[dict[str, float]] = field(default_factory=list)  # metrics since the last log line
    usual_loss: dict[str, Any] = field(default_factory=dict)  # of the spike watch
    updater: dict[str, Any] = field(default_factory=dict)  # of what takes the steps, beyond the optimizer's state

    def note_validation(self, loss: float) -> None:
        """One more val/loss, of weights that were trained."""
        if loss < self.best_loss:  # never of one that is not a number
            self.best_loss, self.since_best = loss, 0
        else:
            self.since_best += 1

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> Standing:
        known = {item.name: values[item.name] for item in fields(Standing) if item.name in values}
        return Standing(**{**known, "position": Position(**values["position"])})


def versions() -> dict[str, str]:
    """Of what a checkpoint was made with."""
    names = ("tts_kernel", "torch", "numpy", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


class RunState:
    """The weights, the optimizer and the standing of one run."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        plan: Plan,
        processes: Processes,
        *,
        identity: Mapping[str, Any],
        digest: Callable[[int], int],
        settings: Mapping[str, Any],
    ) -> None:
        """`identity` holds what a resume must not change, by name, as plain values. `digest(n)` is a checksum of the
        first n rows of the plan and their order: a resume compares it over the rows begun with."""
        self.model, self.optimizer, self.plan, self.processes = model, optimizer, plan, processes
        self.identity = dict(identity)
        self.settings = dict(settings)
        self._facts = {"settings": self.settings, "versions": versions()}
        self._digest = lru_cache(maxsize=1)(digest)  # over millions of rows; asked at every save, new once a window
        self.now = Standing()

    def weights(self) -> dict[str, Any]:
        """What every checkpoint holds: weights, and what they were made from. All processes have to call it."""
        return {
            "model": self.processes.whole(self.model.state_dict()),
            "step": self.now.step,
            "epoch": self.now.position.epoch,
            "format": FORMAT,
            "identity": self.identity,
            **self._facts,
        }

    def full(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """`weights` and what a resume needs beyond them, with the guide's keys. All processes have to call it."""
        now = self.now
        begun = self._rows_begun(now.position)
        return {
            **weights,
            "optimizer": self.processes.whole(self.optimizer.state_dict()),
            "optimizer_type": type(self.optimizer).__name__.lower(),
            "scheduler": {"last_epoch": now.step},
            "scaler": now.updater or None,  # bfloat16 needs none; the key is the guide's
            "manifests": self.identity.get("manifests"),
            "standing": now.to_mapping(),
            "batch_size": self.plan.batch_size,
            "rows_begun": begun,
            "rows_digest": self._digest(begun),
            "random": self.processes.gather(random_state()),
            **{name.replace("/", "_"): value for name, value in {**now.train_last, **now.val_last}.items()},
        }

    def _rows_begun(self, position: Position) -> int:
        """How many rows, from the head, a resume must find as they were."""
        return position.end if position.epoch == 0 else self.plan.available

    def check(self, content: Mapping[str, Any], run_name: str, weights: Path) -> None:
        """Raise TrainingError, naming each difference, if the checkpoint is one of other facts than this run's."""
        before, begun = content["identity"], content["rows_begun"]
        changed = [
            f"{name}: {before.get(name)!r} when it was saved, {value!r} now"
            for name, value in self.identity.items()
            if before.get(name) != value
        ]
        if not changed and content["rows_digest"] != self._digest(begun):
            changed = [f"manifest: its first {begun:,} rows, which were trained on, are others or in another order"]
        if changed:
            raise TrainingError(
                f"run {run_name} cannot go on at step {content['step']} with other facts than it began with:\n  "
                + "\n  ".join(changed)
                + f"\nUse the old values, or start a new run with base_checkpoint {weights}"
            )

    def restore(self, content: Mapping[str, Any]) -> bool:
        """Be what was saved; says whether the optimizer's state was part of it. Raises CheckpointError for weights of
        another model."""
        missing, unexpected = self.model.load_state_dict(
            self.processes.parts_of(content["model"], self.model.state_dict()), strict=False
        )
        if missing or unexpected:
            raise CheckpointError(
                f"checkpoint of step {content['step']}: missing {missing[:4]}, unexpected {unexpected[:4]}"
            )
        self.now = Standing.from_mapping(content["standing"])
        whole = self._restore_optimizer(content)
        if content["batch_size"] != self.plan.batch_size and self.now.position.batch:
            log.warning(
                "batch_size was %d and is %d: the current window of %d rows is begun again",
                content["batch_size"],
                self.plan.batch_size,
                min(self.plan.window, self.now.position.end - self.now.position.start - self.now.position.row),
            )
            self.now.position = replace(self.now.position, batch=0)
        self._restore_random(content["random"])
        return whole

    def _restore_optimizer(self, content: Mapping[str, Any]) -> bool:
        kind = type(self.optimizer).__name__.lower()
        same = content["optimizer_type"] == kind
        if same:
            saved = self.processes.optimizer_parts(content["optimizer"], self.optimizer)
            asked = [
                {name: group[name] for name in _MAY_CHANGE if name in group} for group in self.optimizer.param_groups
            ]
            # Before it is loaded: a fused optimizer wants its step counts where its parameters are.
            groups = [{**group, **values} for group, values in zip(saved["param_groups"], asked, strict=True)]
            self.optimizer.load_state_dict({**saved, "param_groups": groups})
        else:
            log.warning(
                "the checkpoint's optimizer is %s, this run's is %s: weights kept, optimizer state dropped",
                content["optimizer_type"],
                kind,
            )
            self.optimizer.state.clear()
            own = {name: value for name, value in self.optimizer.defaults.items() if name not in ("lr", *_MAY_CHANGE)}
            for group in self.optimizer.param_groups:
                group.update(own)  # counters and estimates
        training_mode(self.optimizer)
        return same

    def _restore_random(self, states: list[dict[str, Any]]) -> None:
        """Each process its own state, where there are as many as there were."""
        rank, world = self.processes.rank, self.processes.world
        if len(states) == world:
            set_random_state(states[rank])
            return
        log.warning(
            "the run had %d processes and has %d: random numbers (dropout) go on from the first one's",
            len(states),
            world,
        )
        set_random_state(states[0])
        if rank:  # not the same dropout on all of them
            torch.manual_seed(torch.initial_seed() + rank)
