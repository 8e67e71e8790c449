"""Spikes too short for the trend, and steps of the level, in curves where both are known."""

from __future__ import annotations

import numpy as np
import pytest

from tts_kernel.recovery.jumps import find_jumps, short_spikes
from tts_kernel.recovery.trend import trend_of

COUNT, NOISE = 400, 0.05
NOBODY = np.zeros(0, int)


def quiet(seed: int = 0) -> np.ndarray:
    return NOISE * np.random.default_rng(seed).standard_normal(COUNT)


def jumps(values: np.ndarray, suspects: np.ndarray = NOBODY) -> list[tuple[int, float]]:
    return find_jumps(values, trend_of(values), suspects)


# Spikes


def test_a_spike_has_its_first_and_last_point_and_its_height() -> None:
    residuals = quiet()
    residuals[100:104] = [1.0, 3.0, 2.0, 1.0]
    assert short_spikes(residuals, NOISE) == [(100, 103, 3.0)]


def test_two_points_are_outliers_and_three_are_a_spike() -> None:
    residuals = quiet()
    residuals[100:102] = residuals[200:203] = 2.0
    assert short_spikes(residuals, NOISE) == [(200, 202, 2.0)]


def test_what_noise_could_do_is_no_spike() -> None:
    residuals = quiet()
    residuals[100:110] = 5 * NOISE
    assert short_spikes(residuals, NOISE) == []


def test_a_low_point_in_between_does_not_end_a_spike_and_a_pause_does() -> None:
    residuals = quiet()
    residuals[[100, 101, 104, 105, 120, 121, 122]] = 2.0
    assert [(first, last) for first, last, _ in short_spikes(residuals, NOISE)] == [(100, 105), (120, 122)]


def test_what_reaches_the_last_point_or_begins_the_run_is_no_spike() -> None:
    residuals = quiet()
    residuals[:5] = residuals[-5:] = 2.0
    assert short_spikes(residuals, NOISE) == []


def test_without_noise_nothing_stands_out() -> None:
    residuals = np.zeros(20)
    residuals[8:12] = 5.0
    assert short_spikes(residuals, 0.0) == []
    assert len(short_spikes(residuals, NOISE)) == 1


# Jumps


@pytest.mark.parametrize("height", [-1.0, 1.0])
def test_a_step_is_found_where_it_is_with_its_height(height: float) -> None:
    values = quiet()
    values[250:] += height
    ((place, found),) = jumps(values)
    assert abs(place - 250) <= 1
    assert found == pytest.approx(height, abs=0.1)


def test_noise_and_a_ramp_have_no_jumps() -> None:
    ramp = np.clip(np.arange(COUNT) - 200, 0, 12) / 12
    for seed in range(10):
        assert jumps(quiet(seed)) == []
        assert jumps(quiet(seed) + ramp) == []


def test_a_smaller_step_is_believed_where_one_is_looked_for() -> None:
    found = {"alone": 0, "suspected": 0}
    for seed in range(20):
        values = quiet(seed)
        values[250:] += 0.17
        found["alone"] += bool(jumps(values))
        found["suspected"] += bool(jumps(values, np.arange(248, 253)))
    assert found["suspected"] > found["alone"] + 4, found


def test_two_steps_are_two_jumps() -> None:
    values = quiet()
    values[120:] += 1.0
    values[280:] -= 1.5
    assert [round(height, 1) for _, height in jumps(values)] == pytest.approx([1.0, -1.5], abs=0.11)


def test_too_few_bins_and_a_curve_without_noise_have_none() -> None:
    assert jumps(np.append(np.zeros(5), np.ones(5))) == []
    assert jumps(np.zeros(COUNT)) == []
