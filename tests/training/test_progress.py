"""Means, speed and the line that tells them."""

from __future__ import annotations

import time

import pytest
import torch

from tts_kernel.training.progress import Clock, Interval, Pace, describe, memory_gb

SPEED = {
    "train/steps_per_second": 2.0,
    "train/tokens_per_second": 12345.6,
    "train/memory_gb": 3.25,
    "train/eta_seconds": 3600.0,
}


def test_interval_averages_what_fluctuates_and_keeps_what_is_scheduled() -> None:
    interval = Interval()
    interval.add({"train/lr": 1.0, "train/text_loss": 1.0, "train/speaker_acc": 0.5})
    interval.add({"train/lr": 3.0, "train/text_loss": 2.0})
    assert interval.means() == {"train/lr": 3.0, "train/text_loss": 1.5, "train/speaker_acc": 0.5}
    interval.add({"train/lr": 4.0})
    assert interval.means() == {"train/lr": 4.0}


def test_the_log_line_tells_speed_memory_and_the_time_left() -> None:
    shown = describe(100, 9000, {"train/text_loss": 1.23456, "train/clipped": 1.0, "train/skipped": 0.0, **SPEED})
    assert shown == "step 100/9000  text_loss 1.235  2.00 steps/s  12,346 tokens/s  3.2 GB  eta 1:00:00"


def test_the_log_line_shows_skipped_updates_where_there_were_some() -> None:
    assert "skipped 0.25" in describe(100, 9000, {"train/skipped": 0.25, **SPEED})


def test_the_clock_counts_steps_and_tokens_since_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(10)
    clock.add(300)
    clock.add(100)
    now[0] += 2.0
    assert clock.read(14) == (2.0, 200.0)
    now[0] += 1.0
    assert clock.read(15) == (1.0, 0.0)


def test_the_time_left_counts_what_lies_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace()
    assert pace.seconds(50) == 0.0
    pace.steps = 4
    now[0] += 4.0 + 6.0  # of steps, and of a validation
    assert pace.seconds(50) == 125.0


def test_memory_of_this_process_grows_with_what_it_holds() -> None:
    before = memory_gb(torch.device("cpu"))
    held = torch.ones(50_000_000)
    assert memory_gb(torch.device("cpu")) > before + 0.1
    assert held.sum() > 0
