"""How often the data have been seen, as findings ask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tts_kernel.recovery.course import read_course
from tts_kernel.recovery.evidence import Evidence
from tts_kernel.recovery.facts import RunFacts
from tts_kernel.recovery.history import History, Series


def evidence(facts: RunFacts, *last_steps: int) -> Evidence:
    """Of a run whose metrics end at these steps."""
    series = [Series(np.array([1, step]), np.array([2.0, 1.0]), np.full(2, np.nan)) for step in last_steps]
    history = History(Path("run"), {f"train/loss_{number}": one for number, one in enumerate(series)})
    return Evidence(history, "train/loss_0", read_course(history["train/loss_0"]), "", None, facts, (), alive=False)


def test_epochs_count_to_the_last_step_of_any_metric() -> None:
    assert evidence(RunFacts(steps_per_epoch=200.0), 300, 500).epochs == pytest.approx(2.5)


def test_epochs_of_a_run_whose_rows_nobody_knows_are_unknown() -> None:
    assert evidence(RunFacts(batch_size=4), 300).epochs is None


def test_a_run_that_has_logged_nothing_has_seen_nothing() -> None:
    assert evidence(RunFacts(steps_per_epoch=200.0)).epochs == 0.0
