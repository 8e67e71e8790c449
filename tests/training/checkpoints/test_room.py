from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from tts_kernel.models.weights import CheckpointError
from tts_kernel.optim.optimizers import build as build_optimizer
from tts_kernel.optim.optimizers import training_mode
from tts_kernel.training.checkpoints import CheckpointFolder, room
from tts_kernel.training.checkpoints.file import save
from tts_kernel.training.checkpoints.room import check_save, full_size, readable, room_needed, size_of, taken

MB = 1_000_000


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(room, "free", lambda folder: count)


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    shared = torch.randn(100, 100)
    content = {"a": shared, "b": shared.T, "c": [torch.ones(5000), {"d": (torch.ones(9), "text")}], "e": 1}
    save(tmp_path / "a.pth", content)
    file = (tmp_path / "a.pth").stat().st_size
    assert file * 0.95 < size_of(content) < file * 1.05
    many = {str(number): torch.ones(()) for number in range(2000)}
    save(tmp_path / "b.pth", many)
    file = (tmp_path / "b.pth").stat().st_size
    assert file * 0.6 < size_of(many) < file * 1.6


@pytest.mark.parametrize("name", ["adamw", "prodigy", "schedulefree"])
def test_a_full_checkpoints_size_is_known_before_the_first_step(tmp_path: Path, name: str) -> None:
    model = nn.Linear(200, 100)
    groups = [{"params": list(model.parameters()), "lr": 1e-3, "weight_decay": 0.0}]
    optimizer = build_optimizer(name, groups)  # type: ignore[arg-type]
    weights = {"model": model.state_dict()}
    before = full_size(weights, optimizer)
    training_mode(optimizer)
    model(torch.randn(4, 200)).sum().backward()
    optimizer.step()
    save(tmp_path / "full.pth", {**weights, "optimizer": optimizer.state_dict()})
    file = (tmp_path / "full.pth").stat().st_size
    assert file * 0.95 < before < file * 1.1
    assert file * 0.95 < full_size(weights, optimizer) < file * 1.1


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(("keep_steps", "keep_best"), [(0, 0), (0, 2), (1, 0), (3, 0), (2, 3)])
def test_no_run_takes_more_than_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_steps: int, keep_best: int, links: bool
) -> None:
    """The worst case: each metric's best at another step, and the newest checkpoints all amid a spike."""
    if not links:
        monkeypatch.setattr("tts_kernel.training.checkpoints.file.os.link", _refuse)
    folder = CheckpointFolder(tmp_path, keep_steps, keep_best)
    weights = {"model": {"a": torch.zeros(25_000)}, "format": 1}
    full = {**weights, "optimizer": {"a": torch.zeros(75_000)}}
    needed = room_needed(size_of(weights), size_of(full), keep_steps=keep_steps, keep_best=keep_best, links=links)
    largest = 0
    names = ["val/loss", "val/text_loss", "val/mel_loss"]
    for step in range(1, 10):
        folder.save_latest({**weights, "step": step}, {**full, "step": step}, step, healthy=step < 2)
        metrics = {name: 100.0 - step if step % 3 == number else 200.0 for number, name in enumerate(names)}
        folder.save_best({**weights, "step": step}, metrics, step)
        largest = max(largest, taken(tmp_path.glob("*.pth")))
    beside = size_of(full)  # while the next is written
    assert largest + beside <= needed * 1.05
    assert largest + beside >= needed * 0.6, "an estimate far too high would refuse runs that fit"


def _refuse(*args: object) -> None:
    raise PermissionError(1, os.strerror(1))


def test_several_names_of_one_file_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_bytes(b"x" * 10)
    assert taken([*tmp_path.iterdir(), tmp_path / "gone"]) == 1010


def test_a_run_that_does_not_fit_says_by_how_much_and_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 700 * MB)
    folder = CheckpointFolder(tmp_path, keep_steps=3, keep_best=4)
    with pytest.raises(CheckpointError) as error:
        folder.check_room(40 * MB, 120 * MB)
    needed = room_needed(40 * MB, 120 * MB, keep_steps=3, keep_best=4)
    for part in (
        f"up to {readable(needed)}; 700 MB are free",
        "lower keep_best (now 4, 40.0 MB each)",
        "lower keep_checkpoints (now 3, 120 MB each)",
        "TTS_KERNEL_RUNS",
        str(tmp_path),
    ):
        assert part in str(error.value)
    CheckpointFolder(tmp_path, keep_steps=1, keep_best=1).check_room(40 * MB, 120 * MB)
    assert not list(tmp_path.iterdir())


def test_where_lowering_would_not_help_it_is_not_advised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 100 * MB)
    with pytest.raises(CheckpointError) as error:
        CheckpointFolder(tmp_path, keep_steps=3, keep_best=4).check_room(40 * MB, 120 * MB)
    assert "lower keep" not in str(error.value)
    assert "TTS_KERNEL_RUNS" in str(error.value)


def test_what_the_run_has_written_already_is_room_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"model": {"a": torch.zeros(250_000)}, "step": 1, "format": 1}
    folder = CheckpointFolder(tmp_path, keep_steps=2)
    folder.save_latest(weights, weights, 1)
    free(monkeypatch, room_needed(MB, MB, keep_steps=2, keep_best=0) - 2 * MB)
    folder.check_room(MB, MB)
    with pytest.raises(CheckpointError, match=r"2\.0 MB are checkpoints already"):
        folder.check_room(MB * 2, MB * 2)


def test_a_save_that_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"model": {"a": torch.zeros(250_000)}, "step": 1, "format": 1}
    folder = CheckpointFolder(tmp_path, keep_steps=2)
    folder.save_latest(weights, weights, 1)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    free(monkeypatch, MB)
    with pytest.raises(CheckpointError, match=r"checkpoint of 2\.\d MB does not fit, 1\.0 MB are free.*untouched"):
        folder.save_latest(weights, weights, 2)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    check_save(tmp_path, MB)


@pytest.mark.parametrize(("count", "text"), [(2.5e9, "2.5 GB"), (3e11, "300 GB"), (124e6, "124 MB"), (1e5, "0.1 MB")])
def test_sizes_are_told_in_units_that_fit(count: float, text: str) -> None:
    assert readable(int(count)) == text
