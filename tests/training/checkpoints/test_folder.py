from __future__ import annotations

import errno
import json
import logging
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from tts_kernel.models.weights import CheckpointError
from tts_kernel.training.checkpoints import BEST, FORMAT, CheckpointFolder, save
from tts_kernel.training.checkpoints import file as checkpoint_file
from tts_kernel.training.checkpoints.file import verify
from tts_kernel.training.checkpoints.index import scan

NAMES = list(BEST)


def no_space(*args: Any, **kwargs: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def weights(value: float, step: int = 1) -> dict[str, Any]:
    return {"model": {"a": torch.full((300,), float(value))}, "step": step, "epoch": 0, "format": FORMAT}


def value(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["model"]["a"][0])


def save_latest(folder: CheckpointFolder, step: int, healthy: bool = True) -> None:
    """With weights of the step's number."""
    folder.save_latest(weights(step, step), {**weights(step, step), "optimizer": {}}, step, healthy=healthy)


def save_best(folder: CheckpointFolder, step: int, loss: float) -> list[str]:
    return folder.save_best(weights(step, step), {"val/loss": loss, "val/text_loss": loss, "val/mel_loss": loss}, step)


def waited(folder: CheckpointFolder, save: Callable[..., Any], *values: float) -> None:
    save(folder, *values)
    folder.wait()


def files(folder: Path, pattern: str = "*.pth") -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def damage(path: Path, how: str = "flip") -> None:
    """`flip` changes one byte of a tensor, in this name only; `cut` halves the file; `gone` removes it."""
    content = bytearray(path.read_bytes())
    place = content.index(torch.load(path, weights_only=True)["model"]["a"].numpy().tobytes())
    content[place + 10] ^= 1
    path.unlink()
    if how != "gone":
        path.write_bytes(content if how == "flip" else content[: len(content) // 2])


@pytest.fixture(params=[False, True], ids=["foreground", "background"])
def background(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files larger than 100 kB are refused halfway."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# A disk that is full


@pytest.mark.parametrize("broken", ["torch.save", "os.fsync", "os.replace"])
def test_a_full_disk_leaves_the_old_files_and_no_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, background: bool
) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=2, keep_best=2, background=background)
    save_latest(folder, 1)
    save_best(folder, 1, 1.0)
    folder.wait()
    before = contents(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(f"tts_kernel.training.checkpoints.file.{broken}", no_space)
        with pytest.raises(CheckpointError, match="No space left"):
            waited(folder, save_latest, 2)
        with pytest.raises(CheckpointError, match="No space left"):
            waited(folder, save_best, 2, 0.5)
    assert contents(tmp_path) == before
    assert save_best(folder, 3, 0.7) == [*NAMES, "top_00003.pth"], "0.5 was never saved"
    folder.close()


def test_a_disk_that_fills_up_in_the_middle_of_a_background_save_is_heard_of(tmp_path: Path, small_disk: None) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=2, background=True)
    save_latest(folder, 1)
    save_best(folder, 1, 1.0)
    folder.wait()
    before = contents(tmp_path)
    large = {**weights(2, 2), "optimizer": {"a": torch.zeros(100_000)}}
    folder.save_latest(weights(2, 2), large, 2)  # returns before the disk is full
    with pytest.raises(CheckpointError, match=r"latest_full\.pth: could not be written .* MB are free"):
        folder.wait()
    assert contents(tmp_path) == before
    for path in tmp_path.glob("*.pth"):
        verify(path)
    folder.save_latest(weights(2, 2), large, 2)
    while not folder._writer._pending["latest"].done():  # type: ignore[union-attr]
        time.sleep(0.01)
    with pytest.raises(CheckpointError, match="could not be written"):
        save_best(folder, 3, 0.5)
    assert contents(tmp_path) == before
    assert folder.read_latest()["step"] == 1
    folder.close()


def test_a_full_disk_at_the_last_file_of_a_save_costs_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    def half(source: Path, target: Path) -> NoReturn:
        Path(target).write_bytes(b"half")
        no_space()

    folder = CheckpointFolder(tmp_path, keep_steps=2, background=background)
    monkeypatch.setattr(os, "link", _no_links)
    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(CheckpointError, match=r"step_00001\.pth.*No space left"):
        waited(folder, save_latest, 1)
    assert files(tmp_path, "*") == ["latest.pth", "latest_full.pth"]
    assert CheckpointFolder(tmp_path, keep_steps=2).read_latest()["step"] == 1
    folder.close()


def _no_links(*args: Any) -> NoReturn:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_names_are_copies_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _no_links)
    folder = CheckpointFolder(tmp_path, keep_steps=1, keep_best=1)
    save_latest(folder, 1)
    save_best(folder, 1, 1.0)
    assert [value(tmp_path / name) for name in ("step_00001.pth", "top_00001.pth", *NAMES)] == [1.0] * 5


# What stays


def test_the_newest_step_files_stay(tmp_path: Path, background: bool) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=2, background=background)
    for step in (9, 99_999, 100_000, 100_001):
        save_latest(folder, step)
    folder.close()
    assert [path.name for path in folder.steps()] == ["step_100000.pth", "step_100001.pth"]
    assert value(tmp_path / "step_100000.pth") == 100_000
    assert value(tmp_path / "latest.pth") == value(folder.latest_full) == 100_001


def test_the_newest_are_those_written_last_whatever_their_number_and_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(2_000_000_000, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    for step in (300, 400, 120, 130):  # went back from 400 to 100
        folder = CheckpointFolder(tmp_path, keep_steps=3)
        save_latest(folder, step)
        os.utime(tmp_path / f"step_{step:05d}.pth", (step, next(clock)))
        assert folder.steps()[-1].name == f"step_{step:05d}.pth"
    assert files(tmp_path, "step_*") == ["step_00120.pth", "step_00130.pth", "step_00400.pth"]
    assert CheckpointFolder(tmp_path, keep_steps=3).read_last_good()["step"] == 130


def test_the_two_newest_healthy_ones_stay_when_all_others_are_not(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=2)
    for step, healthy in ((1, True), (2, True), (3, False), (4, False), (5, False)):
        save_latest(folder, step, healthy)
    assert files(tmp_path, "step_*") == [f"step_0000{step}.pth" for step in (1, 2, 4, 5)]
    assert folder.read_latest()["step"] == 5
    assert folder.read_last_good()["step"] == 2
    assert folder.read_last_good(before=2)["step"] == 1
    with pytest.raises(CheckpointError, match="no checkpoint that is whole"):
        folder.read_last_good(before=1)
    again = CheckpointFolder(tmp_path, keep_steps=2)
    save_latest(again, 6)
    assert files(tmp_path, "step_*") == ["step_00002.pth", "step_00005.pth", "step_00006.pth"]


def test_keeping_no_step_files_writes_and_removes_none(tmp_path: Path) -> None:
    save_latest(CheckpointFolder(tmp_path, keep_steps=1), 4)
    save_latest(CheckpointFolder(tmp_path, keep_steps=0), 5)
    assert files(tmp_path, "step_*") == ["step_00004.pth"]


def test_a_users_own_files_are_left_alone(tmp_path: Path) -> None:
    own = ["step_good.pth", "top_secret.pth", ".step_good.pth.part", ".notes.part", "best.pth", "averaged.pth"]
    for name in own:
        (tmp_path / name).write_bytes(b"mine")
    folder = CheckpointFolder(tmp_path, keep_steps=1, keep_best=1)
    for step in (1, 2):
        save_latest(folder, step)
        save_best(folder, step, 1.0 / step)
    assert [(tmp_path / name).read_bytes() for name in own] == [b"mine"] * len(own)
    assert files(tmp_path, "step_0*") + files(tmp_path, "top_0*") == [
        "step_00001.pth",
        "step_00002.pth",
        "top_00002.pth",
    ]


def test_each_best_file_follows_its_own_metric_and_never_gets_worse(tmp_path: Path, background: bool) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=0, background=background)
    steps = [(3.0, 3.0, 3.0), (2.0, 4.0, 3.0), (2.5, 1.0, 2.0), (2.0, 1.0, 2.0), (float("nan"), 0.5, 9.0)]
    beaten = [
        folder.save_best(weights(number), dict(zip(BEST.values(), metrics, strict=True)), number)
        for number, metrics in enumerate(steps)
    ]
    folder.close()
    assert beaten == [NAMES, NAMES[:1], NAMES[1:], [], NAMES[1:2]]
    assert [value(tmp_path / name) for name in NAMES] == [1.0, 4.0, 2.0]
    assert folder.best == dict(zip(NAMES, (2.0, 0.5, 2.0), strict=True))


def test_a_bests_step_is_its_weights_where_none_is_given(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path, keep_steps=0, keep_best=1).save_best(weights(1.0, step=7), {"val/loss": 1.0})
    assert files(tmp_path) == ["best_model.pth", "top_00007.pth"]


def test_the_lowest_losses_stay_on_top(tmp_path: Path, background: bool) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=0, keep_best=3, background=background)
    losses = {1: 9.0, 2: 5.0, 3: 7.0, 4: 8.0, 5: float("nan"), 6: 4.0, 7: 7.0, 8: float("inf"), 9: 6.0}
    for step, loss in losses.items():
        save_best(folder, step, loss)
    assert [path.name for path in folder.top(2)] == ["top_00006.pth", "top_00002.pth"]
    assert [value(path) for path in folder.top(9)] == [6, 2, 9]
    assert files(tmp_path, "top_*") == ["top_00002.pth", "top_00006.pth", "top_00009.pth"]
    folder.close()


def test_all_names_of_one_best_are_written_once(tmp_path: Path) -> None:
    save_best(CheckpointFolder(tmp_path, keep_steps=0, keep_best=2), 3, 1.0)
    assert len({path.stat().st_ino for path in tmp_path.glob("*.pth")}) == 1
    assert files(tmp_path) == sorted([*NAMES, "top_00003.pth"])


def test_a_step_trained_again_takes_its_name_only_when_it_is_better(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=0, keep_best=2)
    for step, loss in ((1, 5.0), (2, 4.0), (2, 4.5)):
        save_best(folder, step, loss)
    assert [scan(tmp_path)[path.name].metrics["val/loss"] for path in folder.top(2)] == [4.0, 5.0]
    save_best(folder, 1, 3.0)
    assert [scan(tmp_path)[path.name].metrics["val/loss"] for path in folder.top(2)] == [3.0, 4.0]


def test_the_top_begins_with_the_best_also_where_it_was_not_kept_from_the_start(tmp_path: Path) -> None:
    save_best(CheckpointFolder(tmp_path, keep_steps=0), 1, 1.0)
    folder = CheckpointFolder(tmp_path, keep_steps=0, keep_best=2)
    assert [path.name for path in folder.top(2)] == ["best_model.pth"]
    save_best(folder, 2, 3.0)
    assert [value(path) for path in folder.top(2)] == [1, 2]
    assert files(tmp_path, "top_*") == ["top_00001.pth", "top_00002.pth"]


def test_best_values_are_known_again_after_a_restart(tmp_path: Path) -> None:
    save_best(CheckpointFolder(tmp_path, keep_steps=0), 1, 1.0)
    for index in (None, "[", '[{"file": "best_model.pth", "kind": "best", "step": 1, "number": 1}]'):
        (tmp_path / "index.json").unlink() if index is None else (tmp_path / "index.json").write_text(index)
        folder = CheckpointFolder(tmp_path, keep_steps=0)
        assert folder.best["best_model.pth"] == 1.0
        assert save_best(folder, 2, 1.1) == []
    assert save_best(folder, 3, 0.9) == NAMES


# After a crash


def test_what_a_killed_save_left_behind_is_removed_by_the_next(tmp_path: Path) -> None:
    left = [".latest_full.pth.part", ".step_00002.pth.part", ".best_model.pth.part", ".top_00002.pth.part"]
    left += [".averaged.pth.part", ".link.part", ".linked.part", ".index.json.4711"]
    for name in left:
        (tmp_path / name).write_bytes(b"half")
    folder = CheckpointFolder(tmp_path, keep_steps=1)
    assert files(tmp_path, ".*") == sorted(left), "it may be another process that only looks"
    save_latest(folder, 1)
    assert files(tmp_path, "*") == ["index.json", "latest.pth", "latest_full.pth", "step_00001.pth"]


@pytest.mark.parametrize("written", [1, 2, 3])
def test_a_best_that_was_killed_between_its_names_gets_the_others(tmp_path: Path, written: int) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=0, keep_best=2)
    save_best(folder, 1, 2.0)
    aside = tmp_path / "aside"
    shutil.copytree(tmp_path, aside)
    save_best(folder, 2, 1.0)
    for name in [*NAMES, "top_00002.pth"][written:]:  # as they were before
        (tmp_path / name).unlink()
        if (aside / name).exists():
            shutil.copy(aside / name, tmp_path / name)
    again = CheckpointFolder(tmp_path, keep_steps=0, keep_best=2)
    assert set(again.best.values()) == {1.0}
    assert save_best(again, 3, 1.5) == ["top_00003.pth"]
    assert [value(tmp_path / name) for name in NAMES] == [2, 2, 2]
    assert files(tmp_path, "top_*") == ["top_00002.pth", "top_00003.pth"]


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_damaged_latest_is_replaced_by_the_newest_whole_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=3)
    for step in (1, 2, 3):
        save_latest(folder, step)
    damage(tmp_path / "step_00003.pth", "flip")
    damage(folder.latest_full, how)
    folder = CheckpointFolder(tmp_path, keep_steps=3)
    assert folder.begun()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert folder.read_latest()["step"] == 2
    last = caplog.messages[-1]
    assert "latest_full.pth" in last
    assert "Going on from step_00002.pth, step 2" in last
    assert folder.read_last_good()["step"] == 2
    save_latest(folder, 4)
    assert CheckpointFolder(tmp_path, keep_steps=3).read_latest()["step"] == 4


def test_a_run_with_nothing_whole_to_resume_from_says_so(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=1)
    assert not folder.begun()
    save_latest(folder, 1)
    damage(folder.latest_full)
    damage(tmp_path / "step_00001.pth")
    with pytest.raises(CheckpointError, match=r"latest_full\.pth: record .* no step file .* base_checkpoint"):
        folder.read_latest()
    with pytest.raises(CheckpointError, match="no checkpoint that is whole and was written while the loss was healthy"):
        folder.read_last_good()


def test_a_damaged_best_is_set_aside_and_not_taken_for_the_best(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=0, keep_best=2)
    save_best(folder, 1, 2.0)
    save_best(folder, 2, 1.0)
    for name in (*NAMES, "top_00002.pth"):
        damage(tmp_path / name, "cut")
    folder = CheckpointFolder(tmp_path, keep_steps=0, keep_best=2)
    assert set(folder.best.values()) == {2.0}
    save_latest(folder, 3)
    assert [value(tmp_path / name) for name in NAMES] == [1, 1, 1], "the second best took their places"
    assert files(tmp_path, "*.damaged") == sorted(f"{name}.damaged" for name in NAMES)


def test_a_best_file_without_its_metrics_is_named(tmp_path: Path) -> None:
    torch.save(weights(1.0), tmp_path / "best_model.pth")
    with pytest.raises(CheckpointError, match=r"best_model\.pth.*val/loss"):
        CheckpointFolder(tmp_path, keep_steps=0)


def test_another_format_is_not_resumed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=1)
    save_latest(folder, 1)
    save(folder.latest_full, {**weights(1.0), "format": FORMAT + 1})
    with pytest.raises(CheckpointError, match=f"format {FORMAT + 1}, expected {FORMAT}.*base_checkpoint"):
        folder.read_latest()


def test_files_from_before_the_order_was_written_count_as_the_oldest(tmp_path: Path) -> None:
    for step in (7, 900):
        torch.save(weights(step, step), tmp_path / f"step_{step:05d}.pth")
    folder = CheckpointFolder(tmp_path, keep_steps=2)
    assert [path.name for path in folder.steps()] == ["step_00007.pth", "step_00900.pth"]
    save_latest(folder, 3)
    assert [path.name for path in folder.steps()] == ["step_00900.pth", "step_00003.pth"]


# Background


def test_a_background_save_is_of_the_moment_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, own = threading.Event(), torch.save

    def later(*args: Any, **kwargs: Any) -> None:
        assert gate.wait(60)
        own(*args, **kwargs)

    monkeypatch.setattr(checkpoint_file.torch, "save", later)
    folder = CheckpointFolder(tmp_path, keep_steps=1, keep_best=1, background=True)
    state = weights(1.0, 1)
    assert save_best(folder, 1, 1.0) == [*NAMES, "top_00001.pth"]
    folder.save_latest(state, state, 1)
    state["model"]["a"].fill_(2.0)
    assert not files(tmp_path)
    assert folder.best == {}, "what is on the disk"
    gate.set()
    folder.close()
    assert value(folder.latest_full) == value(tmp_path / "step_00001.pth") == 1.0
    assert set(folder.best.values()) == {1.0}


def test_what_is_read_in_the_background_is_what_was_saved_last(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=2, background=True)
    for step in (1, 2, 3):
        save_latest(folder, step, healthy=step < 3)
        assert folder.read_latest()["step"] == step
    assert folder.read_last_good()["step"] == 2
    folder.close()


def test_a_process_that_only_reads_sees_what_the_writing_one_has_saved_since(tmp_path: Path) -> None:
    writing, reading = (CheckpointFolder(tmp_path, keep_steps=1) for _ in range(2))
    save_latest(writing, 1)
    save_latest(writing, 2)
    assert reading.read_last_good()["step"] == reading.read_latest()["step"] == 2


# The index


def test_the_index_lists_what_is_there_newest_first(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=1, keep_best=1)
    save_latest(folder, 1)
    save_best(folder, 2, 1.5)
    save_latest(folder, 3, healthy=False)
    records = folder.records()
    assert [record.step for record in records] == [3, 3, 3, 2, 2, 2, 2, 1]
    assert {record.file: record.kind for record in records if "best" not in record.file} == {
        "latest.pth": "latest",
        "latest_full.pth": "latest_full",
        "step_00003.pth": "step",
        "top_00002.pth": "top",
        "step_00001.pth": "step",
    }
    by_name = {record.file: record for record in records}
    assert by_name.keys() == {*files(tmp_path)}
    assert [by_name[name].healthy for name in ("latest_full.pth", "step_00001.pth", "top_00002.pth")] == [
        False,
        True,
        True,
    ]
    assert by_name["best_model.pth"].metrics["val/loss"] == 1.5
    assert by_name["best_model.pth"].number == by_name["top_00002.pth"].number
    assert abs(by_name["latest.pth"].time - time.time()) < 3600
    assert {name: record.bytes for name, record in by_name.items()} == {
        path.name: path.stat().st_size for path in tmp_path.glob("*.pth")
    }
    assert by_name == scan(tmp_path), "the index and the files say the same"


@pytest.mark.parametrize("index", [None, "", "[{", '[{"other": 1}]', "{}", "7"])
def test_without_an_index_the_files_are_asked(tmp_path: Path, index: str | None) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=1)
    save_latest(folder, 1)
    before = folder.records()
    (tmp_path / "index.json").unlink() if index is None else (tmp_path / "index.json").write_text(index)
    assert folder.records() == before


def test_files_that_are_gone_are_not_listed(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=1)
    save_latest(folder, 1)
    (tmp_path / "step_00001.pth").unlink()
    assert {record.file for record in folder.records()} == {"latest.pth", "latest_full.pth"}


def test_files_that_the_index_does_not_know_are_asked(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_steps=1)
    save_latest(folder, 1)
    save_best(folder, 1, 1.0)
    before = folder.records()
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index[2:]))
    assert folder.records() == before
