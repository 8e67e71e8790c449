"""The smoother follows what is learned, not what is noise, and says how well it knows the level."""

from __future__ import annotations

import numpy as np
import pytest

from tts_kernel.recovery.trend import MOST, bins_of, spread, trend_of

COUNT = 600
TIME = np.arange(COUNT) / COUNT
FALL = 1 + 2 * np.exp(-5 * TIME)


def noise(seed: int = 0, count: int = COUNT) -> np.ndarray:
    """(count,), standard normal."""
    return np.random.default_rng(seed).standard_normal(count)


def slow_noise(seed: int, memory: float = 0.9) -> np.ndarray:
    """(600,), standard normal, each like the one before."""
    values, drive = np.zeros(COUNT), noise(seed)
    for place in range(1, COUNT):
        values[place] = memory * values[place - 1] + np.sqrt(1 - memory**2) * drive[place]
    return values


# Bins


@pytest.mark.parametrize("points", [1, 999, MOST, MOST + 1, 12_345])
def test_every_point_is_in_one_bin_and_there_are_not_too_many(points: int) -> None:
    bins = bins_of(np.arange(points), np.ones(points))
    assert len(bins) <= MOST
    ends = np.append(bins.starts[1:], points)
    assert (np.diff(bins.starts) == bins.size).all()
    assert 1 <= ends[-1] - bins.starts[-1] <= bins.size
    assert bins.starts[0] == 0


def test_a_bin_has_the_medians_of_its_points_also_the_last_and_shorter_one() -> None:
    values = np.array([1.0, 9.0, 2.0, 4.0, 4.0, 40.0, 7.0, 8.0])
    bins = bins_of(np.arange(8) * 10, values, most=3)
    assert bins.size == 3
    assert bins.values.tolist() == [2.0, 4.0, 7.5]
    assert bins.steps.tolist() == [10.0, 40.0, 65.0]


# Trend


def test_a_line_is_its_own_trend_to_both_ends() -> None:
    line = 3 - 2 * TIME
    np.testing.assert_allclose(trend_of(line).level, line, atol=1e-9)


def test_outliers_do_not_move_the_level() -> None:
    values = FALL + 0.05 * noise()
    plain = trend_of(values).level
    values[50::97] += 30.0
    assert np.abs(trend_of(values).level - plain).max() < 0.05


def test_the_true_level_lies_within_two_standard_errors_nineteen_times_of_twenty() -> None:
    inside = []
    for seed in range(10):
        trend = trend_of(FALL + 0.1 * noise(seed))
        inside.append(np.abs(trend.level - FALL)[20:] < 1.96 * trend.error[20:])
    assert 0.9 < np.mean(inside) < 0.995


def test_the_noise_is_that_of_a_point_about_the_level() -> None:
    assert trend_of(FALL + 0.1 * noise()).noise == pytest.approx(0.1, rel=0.15)
    assert trend_of(FALL).noise < 1e-3, "of a bend alone"


def test_noise_that_remembers_tells_less() -> None:
    quick = [trend_of(FALL + 0.1 * noise(seed)).memory for seed in range(5)]
    slow = [trend_of(FALL + 0.1 * slow_noise(seed)).memory for seed in range(5)]
    assert np.median(quick) < 2
    assert np.median(slow) > 4
    assert min(quick) >= 1


def test_the_window_narrows_where_the_wide_one_would_smooth_a_step_over() -> None:
    step = np.where(TIME > 0.5, 2.0, 0.0) + 0.02 * noise()
    level = trend_of(step).level
    middle = COUNT // 2
    assert np.abs(level[: middle - 12]).max() < 0.1
    assert np.abs(level[middle + 12 :] - 2).max() < 0.1


def test_units_go_through() -> None:
    values = FALL + 0.1 * noise()
    one, other = trend_of(values), trend_of(1000 * values - 5)
    np.testing.assert_allclose(other.level, 1000 * one.level - 5, rtol=1e-6)
    np.testing.assert_allclose(other.error, 1000 * one.error, rtol=1e-6)
    assert one.reach == other.reach


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_few_values_have_a_finite_trend(count: int) -> None:
    trend = trend_of(np.linspace(2, 1, count))
    assert np.isfinite(trend.level).all()
    assert np.isfinite(trend.error).all()


def test_the_spread_is_a_standard_deviation_that_one_wild_value_does_not_change() -> None:
    values = noise(count=5000)
    assert spread(values) == pytest.approx(1, rel=0.05)
    assert spread(np.append(values, 1e9)) == pytest.approx(spread(values), rel=0.01)
    assert spread(np.zeros(0)) == 0
