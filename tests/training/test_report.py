"""What a run leaves in its metrics while it goes on, and what it says."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tts_kernel.runs import Run
from tts_kernel.training.metrics import MetricLog
from tts_kernel.training.outcome import TrainingError
from tts_kernel.training.processes import Processes
from tts_kernel.training.report import Report

STEP = {"train/loss": 2.0, "train/lr": 0.1, "train/skipped": 0.0}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def report(run: Run, processes: Any = None) -> Report:
    return Report(run, processes or Processes(torch.device("cpu")), horizon=10, aim=False)


def test_a_session_takes_back_what_an_earlier_one_logged_after_the_checkpoint(run: Run) -> None:
    first, second, third = report(run), report(run), report(run)
    with first.open(resumed_at=-1):
        for step in (1, 2, 3):
            first.write(step, {"train/loss": float(step)})
    assert "resumed_at" not in (run.folder / "metrics.jsonl").read_text(encoding="utf-8"), "there was none before"
    with second.open(resumed_at=2):
        second.write(3, {"train/loss": 30.0})
    assert run.series("train/loss") == ([1, 2, 3], [1.0, 2.0, 30.0])
    with third.open(resumed_at=-1):
        third.write(1, {"train/loss": 10.0})
        third.take_back(0)
        third.write(1, {"train/loss": 11.0})
    assert run.series("train/loss") == ([1], [11.0])


def test_only_the_main_process_writes_and_only_while_it_is_open(run: Run) -> None:
    other = report(run, SimpleNamespace(main=False, device=torch.device("cpu")))
    with other.open(resumed_at=-1):
        other.write(1, STEP)
        other.take_back(0)
    main = report(run)
    main.write(1, STEP)
    assert list(run.folder.iterdir()) == []
    with main.open(resumed_at=-1):
        main.write(1, STEP)
    main.write(2, STEP)
    assert run.series("train/loss")[0] == [1]


def test_an_interval_is_told_once_with_its_means_its_speed_and_the_time_left(
    run: Run, heard: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    main = report(run)
    with main.open(resumed_at=-1):
        main.begin(4)
        for loss in (2.0, 4.0):
            now[0] += 5.0
            main.add({**STEP, "train/loss": loss}, tokens=50)
        means = main.tell_interval(6, left=4)
        now[0] += 1000.0  # a validation
        main.restart_clock(6)
        now[0] += 2.0
        main.add(STEP, tokens=50)
        main.tell_interval(7, left=3)
    assert means["train/loss"] == 3.0
    first, second = run.records()
    assert (first["train/loss"], first["train/steps_per_second"], first["train/tokens_per_second"]) == (3.0, 0.2, 10.0)
    assert first["train/eta_seconds"] == 20.0
    assert (second["train/loss"], second["train/steps_per_second"]) == (2.0, 0.5), "the validation is no training"
    assert second["train/eta_seconds"] == pytest.approx(3 * 1012 / 3), "but it takes its time"
    assert heard.text.count("step 6/10  loss 3") == 1


def test_a_validation_is_told_with_the_names_that_it_was_kept_under(run: Run, heard: pytest.LogCaptureFixture) -> None:
    report(run).tell_validation(7, {"val/loss": 1.23456, "val/top1": 0.5}, ["best_model.pth", "top_00007.pth"])
    report(run).tell_validation(8, {"val/loss": 2.0}, [])
    assert "step 7  validation  loss 1.235  top1 0.5  -> best_model.pth, top_00007.pth" in heard.text
    assert heard.messages[-1] == "step 8  validation  loss 2"


def test_a_disk_that_takes_no_metrics_is_named_with_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: MetricLog, step: int, metrics: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MetricLog, "write", full)
    main = report(run)
    with pytest.raises(TrainingError, match=r"No space left on device.*checkpoints stand"), main.open(resumed_at=-1):
        main.write(1, STEP)
