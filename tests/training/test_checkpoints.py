from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from tts_kernel.models.weights import CheckpointError
from tts_kernel.training import checkpoints
from tts_kernel.training.checkpoints import FORMAT, CheckpointFolder, random_state, save, set_random_state


def no_space(*args: Any, **kwargs: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def weights(value: float) -> dict[str, Any]:
    return {"model": {"a": torch.full((3,), value)}, "step": 1, "epoch": 0, "format": FORMAT}


def value(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["model"]["a"][0])


@pytest.mark.parametrize("broken", ["torch.save", "os.fsync", "os.replace"])
def test_a_full_disk_leaves_the_old_file_and_no_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=2)
    folder.save_latest(weights(1.0), weights(1.0), step=1)
    folder.save_best(weights(1.0), {"val/loss": 1.0})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as full:
        full.setattr(f"tts_kernel.training.checkpoints.{broken}", no_space)
        with pytest.raises(CheckpointError, match="No space left"):
            folder.save_latest(weights(2.0), weights(2.0), step=2)
        with pytest.raises(CheckpointError, match="No space left"):
            folder.save_best(weights(2.0), {"val/loss": 0.5})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert folder.save_best(weights(3.0), {"val/loss": 0.7}) == ["best_model.pth"], "0.5 was never saved"


def test_a_disk_that_fills_up_while_the_step_file_is_copied_is_a_checkpoint_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(source: Path, target: Path) -> NoReturn:
        Path(target).write_bytes(b"half")
        no_space()

    folder = CheckpointFolder(tmp_path, keep_steps=2)
    monkeypatch.setattr(os, "link", no_space)  # a file system without hard links
    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(CheckpointError, match=r"step_00001\.pth.*No space left"):
        folder.save_latest(weights(1.0), weights(1.0), step=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.pth", "latest_full.pth"]


def test_step_files_work_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_space)
    folder = CheckpointFolder(tmp_path, keep_steps=1)
    folder.save_latest(weights(1.0), weights(1.0), step=1)
    assert value(tmp_path / "step_00001.pth") == 1.0


def test_an_error_without_a_message_is_still_a_checkpoint_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> NoReturn:
        raise OSError

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError, match="OSError"):
        save(tmp_path / "latest.pth", weights(1.0))


def test_the_newest_step_files_stay(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=2)
    for step in (9, 99_999, 100_000, 100_001):
        folder.save_latest(weights(step), weights(step), step)
    assert [path.name for path in folder.steps()] == ["step_100000.pth", "step_100001.pth"]
    assert value(tmp_path / "step_100000.pth") == 100_000
    assert value(tmp_path / "latest.pth") == value(folder.latest_full) == 100_001


def test_keeping_no_step_files_writes_none(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, keep_steps=0).save_latest(weights(1.0), weights(1.0), 5)
    assert not list(tmp_path.glob("step_*"))


def test_a_users_own_copy_of_a_step_file_is_left_alone(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=1)
    (tmp_path / "step_good.pth").write_bytes(b"mine")
    for step in (1, 2):
        folder.save_latest(weights(step), weights(step), step)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_00002.pth", "step_good.pth"]


def test_each_best_file_follows_its_own_metric_and_never_gets_worse(tmp_path: Path) -> None:
    names = list(checkpoints.BEST)
    folder = CheckpointFolder(tmp_path, keep_steps=0)
    steps = [(3.0, 3.0, 3.0), (2.0, 4.0, 3.0), (2.5, 1.0, 2.0), (2.0, 1.0, 2.0), (float("nan"), 0.5, 9.0)]
    beaten = [
        folder.save_best(weights(number), dict(zip(checkpoints.BEST.values(), metrics, strict=True)))
        for number, metrics in enumerate(steps)
    ]
    assert beaten == [names, names[:1], names[1:], [], names[1:2]]
    assert [value(tmp_path / name) for name in names] == [1.0, 4.0, 2.0]


def test_best_values_are_known_again_after_a_restart(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, keep_steps=0).save_best(weights(1.0), {"val/loss": 1.0})
    folder = CheckpointFolder(tmp_path, keep_steps=0)
    assert folder.save_best(weights(2.0), {"val/loss": 1.1}) == []
    assert folder.save_best(weights(3.0), {"val/loss": 0.9}) == ["best_model.pth"]


def test_a_best_file_without_its_metrics_is_named(tmp_path: Path) -> None:
    torch.save(weights(1.0), tmp_path / "best_model.pth")
    with pytest.raises(CheckpointError, match=r"best_model\.pth.*val/loss"):
        CheckpointFolder(tmp_path, keep_steps=0)


def test_another_format_is_not_resumed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=0)
    save(folder.latest_full, {**weights(1.0), "format": FORMAT + 1})
    with pytest.raises(CheckpointError, match=f"format {FORMAT + 1}, expected {FORMAT}"):
        folder.read_latest()


def test_random_state_survives_a_checkpoint(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), *np.random.standard_normal(3), *torch.randn(3).tolist()]

    draw()  # leaves a second normal number waiting in Python's and in numpy's generator
    save(tmp_path / "x.pth", {"random": random_state()})
    expected = draw()
    draw()
    set_random_state(torch.load(tmp_path / "x.pth", weights_only=True)["random"])
    assert draw() == expected
