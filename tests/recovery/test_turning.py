"""Where a known curve turns, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest

from tts_kernel.recovery.turning import turning_point

BINS, EVERY, TURN = 160, 50, 100
STEPS = EVERY * np.arange(BINS, dtype=float)
SINCE = np.clip(np.arange(BINS) - TURN, 0, None)
RISES = {
    "at once": 1.0 * (SINCE > 0),
    "steadily": SINCE / 30,
    "faster": (SINCE / 30) ** 2,
    "at once and on": 0.6 * (SINCE > 0) + SINCE / 60,
}


def noise(seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(BINS)


@pytest.mark.parametrize("rise", RISES.values(), ids=RISES)
@pytest.mark.parametrize("fall", [0.0, 0.3], ids=["flat before", "falling before"])
def test_the_turn_is_in_its_interval_whatever_the_rise(rise: np.ndarray, fall: float) -> None:
    before = fall * np.clip(TURN - np.arange(BINS), 0, None) / TURN
    inside, apart = [], []
    for seed in range(10):
        early, likely, late = turning_point(STEPS, before + rise + noise(seed), 1.0)
        assert STEPS[0] <= early < likely < late <= STEPS[-1]
        inside.append(early <= EVERY * TURN <= late)
        apart.append(abs(likely - EVERY * TURN) / EVERY)
    assert sum(inside) >= 8
    assert np.median(apart) < 12


def test_a_clearer_turn_has_a_narrower_interval() -> None:
    widths = []
    for size in (1, 4):
        early, _, late = turning_point(STEPS, RISES["steadily"] + size * noise(), 1.0)
        widths.append(late - early)
    assert widths[1] > 1.5 * widths[0]


def test_a_memory_makes_the_turn_less_sure() -> None:
    widths = []
    for memory in (1.0, 20.0):
        early, _, late = turning_point(STEPS, RISES["steadily"] + noise(), memory)
        widths.append(late - early)
    assert widths[1] > 1.3 * widths[0]


def test_an_outlier_does_not_move_the_turn() -> None:
    values = RISES["steadily"] + noise()
    plain = turning_point(STEPS, values, 1.0)
    values[30] += 50.0
    assert turning_point(STEPS, values, 1.0) == pytest.approx(plain, abs=3 * EVERY)


def test_steps_and_losses_of_other_units_turn_at_the_same_place() -> None:
    values = RISES["faster"] + noise()
    plain = turning_point(STEPS, values, 1.0)
    other = turning_point(7 * STEPS + 1000, 0.001 * values - 3, 1.0)
    assert other == pytest.approx([7 * step + 1000 for step in plain], abs=1e-3)


@pytest.mark.filterwarnings("error")
def test_a_level_that_never_moves_may_turn_anywhere() -> None:
    assert turning_point(STEPS, np.ones(BINS), 1.0) == (STEPS[0], STEPS[0], STEPS[-1])
