"""What a run of a generator and its critics hands to `trainer.Trainer` beyond what every run does.

Its resume, guards, validation and checkpoints are those of every run. What differs is how a step is taken (`updater`),
and that beside the run's checkpoints each network lies in a file of its own (`after_save`), as others know such a run:

    G_<step>.pth  D_<step>.pth  DUR_<step>.pth   weights, one network each, the newest few of each kind
    optimizer_<step>.pth                         the optimizer's state of all of them
    G_latest.pth                                 the newest G_<step>.pth
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from tts_kernel.training.adversarial import AdversarialObjective, AdversarialUpdater, LossScale
from tts_kernel.training.checkpoints import save
from tts_kernel.training.checkpoints.file import link
from tts_kernel.training.outcome import LoopSettings
from tts_kernel.training.processes import Processes
from tts_kernel.training.speed import autocast
from tts_kernel.training.state import RunState

GENERATOR, OPTIMIZER = "G", "optimizer"


def adversarial_updater(
    objective: AdversarialObjective, optimizer: torch.optim.Optimizer, processes: Processes, settings: LoopSettings
) -> AdversarialUpdater:
    """By the run's settings; in float16 with a loss scale. `optimizer` has the parameters of all networks."""
    return AdversarialUpdater(
        objective,
        optimizer,
        processes,
        grad_clip=settings.grad_clip,
        autocast=autocast(processes.device, settings.precision),
        scale=LossScale() if settings.precision == "float16" else None,
    )


def network_files(folder: Path, networks: Mapping[str, nn.Module], keep: int) -> Callable[[RunState], None]:
    """What saves `networks` in `folder` whenever the run is saved, under their names: the generator's is G. At least
    the newest file of each stays."""
    return lambda state: save_networks(folder, networks, state, max(keep, 1))


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
