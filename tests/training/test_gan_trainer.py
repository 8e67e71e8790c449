"""Files of each network beside the run's own checkpoints; whole runs are tested with the recipe (recipes/melotts)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tts_kernel.models.weights import read_checkpoint
from tts_kernel.training.gan_trainer import adversarial_updater, network_files, save_networks, steps
from tts_kernel.training.outcome import LoopSettings
from tts_kernel.training.processes import Processes
from tts_kernel.training.speed import ScaledPrecision


def state(networks: Mapping[str, nn.Module], step: int) -> Any:
    parameters = [parameter for network in networks.values() for parameter in network.parameters()]
    return SimpleNamespace(now=SimpleNamespace(step=step), optimizer=torch.optim.AdamW(parameters, lr=0.5))


def test_the_newest_of_each_kind_stay_by_number(tmp_path: Path) -> None:
    networks = {"G": nn.Linear(2, 2), "D": nn.Linear(2, 1)}
    for step in (8, 9, 10, 100):
        save_networks(tmp_path, networks, state(networks, step), keep=2)
    for name in ("G", "D", "optimizer"):
        assert [path.name for path in steps(tmp_path, name)] == [f"{name}_10.pth", f"{name}_100.pth"]
    assert (tmp_path / "G_latest.pth").read_bytes() == (tmp_path / "G_100.pth").read_bytes()


def test_a_file_has_what_public_ones_have(tmp_path: Path) -> None:
    networks = {"G": nn.Linear(2, 2)}
    save_networks(tmp_path, networks, state(networks, 7), keep=1)
    content = read_checkpoint(tmp_path / "G_latest.pth")
    assert (content["iteration"], content["learning_rate"]) == (7, 0.5)
    assert torch.equal(content["model"]["weight"], networks["G"].weight)
    assert "param_groups" in read_checkpoint(tmp_path / "optimizer_7.pth")["optimizer"]


def test_other_files_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    networks = {"G": nn.Linear(2, 2)}
    for name in ("G_best.pth", "MG_1.pth", "G_1.pth.bak"):
        (tmp_path / name).touch()
    for step in (1, 2):
        save_networks(tmp_path, networks, state(networks, step), keep=1)
    assert {"G_best.pth", "MG_1.pth", "G_1.pth.bak", "G_2.pth"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "G_1.pth").exists()


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_the_newest_network_stays_however_few_are_asked_for(tmp_path: Path, keep: int) -> None:
    networks = {"G": nn.Linear(2, 2)}
    after_save = network_files(tmp_path, networks, keep)
    for step in (1, 2, 3):
        after_save(state(networks, step))
    assert [path.name for path in steps(tmp_path, "G")] == [f"G_{step}.pth" for step in (2, 3)[-max(keep, 1) :]]


@pytest.mark.parametrize(("precision", "scaled"), [("float16", True), ("bfloat16", False), ("float32", False)])
def test_only_float16_lifts_its_losses(precision: ScaledPrecision, scaled: bool) -> None:
    objective: Any = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(objective.parameters())
    settings = LoopSettings(grad_clip=0.25, precision=precision)
    updater = adversarial_updater(objective, optimizer, Processes(torch.device("cpu")), settings)
    assert (updater.scale is not None) == scaled
    assert updater.grad_clip == 0.25
