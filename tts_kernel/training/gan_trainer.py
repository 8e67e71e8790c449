"""The training loop for a generator and the critics that judge it, and the files that others know such a run by.

The loop is `trainer.Trainer`: its resume, guards, validation and checkpoints are those of every run. What differs is
how a step is taken (`adversarial.AdversarialUpdater`), and that beside the run's checkpoints each network lies in a
file of its own:

    G_<step>.pth  D_<step>.pth  DUR_<step>.pth   weights, one network each, the newest few of each kind
    optimizer_<step>.pth                         the optimizer's state of all of them
    G_latest.pth                                 the newest G_<step>.pth
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from tts_kernel.data.planned import Plan
from tts_kernel.runs import Run
from tts_kernel.training.adversarial import AdversarialObjective, AdversarialUpdater, LossScale
from tts_kernel.training.checkpoints import save
from tts_kernel.training.checkpoints.file import link
from tts_kernel.training.outcome import LoopSettings
from tts_kernel.training.processes import Processes
from tts_kernel.training.speed import autocast
from tts_kernel.training.state import RunState
from tts_kernel.training.trainer import Trainer

GENERATOR, OPTIMIZER = "G", "optimizer"


def gan_trainer(
    *,
    run: Run,
    objective: AdversarialObjective,
    networks: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    data: Dataset[Any],
    plan: Plan,
    validation: tuple[Dataset[Any], Plan],
    settings: LoopSettings,
    processes: Processes,
    identity: Mapping[str, Any],
    digest: Callable[[int], int],
    recorded: Mapping[str, Any],
    after_validation: Callable[[int], None] | None = None,
) -> Trainer:
    """The trainer of one run; `networks` are saved under their names, the generator's is G. `optimizer` has the
    parameters of all of them. The rest is as `Trainer` takes it."""
    updater = AdversarialUpdater(
        objective,
        optimizer,
        processes,
        grad_clip=settings.grad_clip,
        autocast=autocast(processes.device, settings.precision),
        scale=LossScale() if settings.precision == "float16" else None,
    )
    keep = max(settings.keep_checkpoints, 1)
    return Trainer(
        run=run,
        objective=objective,
        optimizer=optimizer,
        rate=rate,
        data=data,
        plan=plan,
        validation=validation,
        settings=settings,
        processes=processes,
        identity=identity,
        digest=digest,
        recorded=recorded,
        updater=updater,
        after_validation=after_validation,
        after_save=lambda state: save_networks(run.checkpoints, networks, state, keep),
    )


def save_networks(folder: Path, networks: Mapping[str, nn.Module], state: RunState, keep: int) -> None:
    """Each network and the optimizer's state in a file of its own, as public ones are, then remove all but the newest
    `keep` of each kind. Raises CheckpointError."""
    step = state.now.step
    shared = {"iteration": step, "learning_rate": state.optimizer.param_groups[0]["lr"], "optimizer": None}
    for name, network in networks.items():
        save(folder / f"{name}_{step}.pth", {"model": network.state_dict(), **shared})
    save(folder / f"{OPTIMIZER}_{step}.pth", {**shared, "optimizer": state.optimizer.state_dict()})
    link(folder / f"{GENERATOR}_{step}.pth", folder / f"{GENERATOR}_latest.pth")
    for name in (*networks, OPTIMIZER):
        for path in steps(folder, name)[:-keep]:
            path.unlink()


def steps(folder: Path, name: str) -> list[Path]:
    """The files of one network, lowest step first."""
    pattern = re.compile(rf"{re.escape(name)}_(\d+)\.pth")
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(found)]
