"""Onset, best, spikes, plateau and jumps of curves whose truth is known, and what must not depend on units or luck."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from tts_kernel.recovery.course import Course, read_course
from tts_kernel.recovery.history import NOTHING, Series

EVERY = 100  # steps between two points
COUNT = 1200
TIME = np.arange(COUNT) / COUNT
FALL = 1 + 2 / (1 + 20 * TIME)
NOISE = 0.08


def series(values: np.ndarray) -> Series:
    values = np.asarray(values, float)
    return Series(np.arange(1, len(values) + 1) * EVERY, values, np.full(len(values), np.nan))


def noisy(level: np.ndarray, seed: int = 0, noise: float = NOISE) -> Series:
    return series(level + noise * np.random.default_rng(seed).normal(size=len(level)))


def since(begin: float) -> np.ndarray:
    return np.clip(TIME - begin, 0, None)


def place(step: int) -> float:
    """Of a step, as a share of the run."""
    return step / (EVERY * COUNT)


RISES = {
    "jump": FALL + 0.8 * (TIME > 0.7),
    "ramp": FALL + 3 * since(0.7),
    "levels off": FALL + 1 - np.exp(-since(0.7) / 0.05),
    "parabola": np.where(TIME < 0.7, FALL, FALL[int(0.7 * COUNT)]) + 20 * since(0.7) ** 2,
}
HEALTHY = {
    "falls": FALL,
    "stays": np.full(COUNT, 1.5),
    "falls, then stays": 1 + 2 * np.exp(-TIME / 0.05),
    "decays late": FALL - 0.3 * np.clip((TIME - 0.8) / 0.01, 0, 1),
    "spike": FALL + 4 * np.exp(-np.abs(TIME - 0.6) / 0.01),
    "warm-up bump": FALL + 0.6 * np.clip(1 - np.abs(TIME - 0.05) / 0.04, 0, 1),
    "warm restarts": FALL + 0.3 * (0.5 + 0.5 * np.cos(np.pi * (TIME % 0.2) / 0.2)) * (TIME > 0.2),
}


@pytest.mark.parametrize("level", RISES.values(), ids=RISES)
@pytest.mark.parametrize("seed", range(3))
def test_the_onset_of_a_rise_that_lasts_is_found(level: np.ndarray, seed: int) -> None:
    course = read_course(noisy(level, seed))
    assert course.shape == "diverged"
    assert course.onset is not None
    assert abs(place(course.onset.step) - 0.7) < 0.06
    assert course.onset.first <= course.onset.step <= course.onset.last
    assert course.best is not None
    assert course.best.step <= course.onset.step
    assert 0 < course.onset.confidence <= 1


@pytest.mark.parametrize("level", HEALTHY.values(), ids=HEALTHY)
@pytest.mark.parametrize("seed", range(3))
def test_what_healthy_runs_do_is_no_divergence(level: np.ndarray, seed: int) -> None:
    course = read_course(noisy(level, seed))
    assert course.onset is None
    assert course.shape in ("falling", "flat", "recovered")


def test_a_slow_drift_counts_and_a_plateau_that_noise_explains_does_not() -> None:
    assert read_course(noisy(FALL + 0.6 * since(0.4))).onset is not None
    assert read_course(noisy(np.where(TIME < 0.5, 1.0, 1.004))).onset is None


@pytest.mark.parametrize(("shift", "factor"), [(100.0, 1.0), (-5.0, 1.0), (0.0, 1e-6), (3.0, 1e4)])
@pytest.mark.parametrize("kind", ["jump", "ramp", "parabola"])
def test_the_units_of_the_loss_do_not_move_what_is_found(kind: str, shift: float, factor: float) -> None:
    plain = noisy(RISES[kind])
    one, two = read_course(plain), read_course(replace(plain, values=shift + factor * plain.values))
    assert one.onset is not None
    assert two.onset is not None
    assert abs(one.onset.step - two.onset.step) <= EVERY
    assert one.best is not None
    assert two.best is not None
    assert one.best.step == two.best.step
    assert two.noise == pytest.approx(factor * one.noise, rel=1e-3)


def test_the_numbering_of_steps_does_not_move_the_point_that_is_found() -> None:
    plain = noisy(RISES["ramp"])
    one, two = read_course(plain), read_course(replace(plain, steps=7 + 3 * plain.steps))
    assert one.onset is not None
    assert two.onset is not None
    assert abs(7 + 3 * one.onset.step - two.onset.step) <= 3 * EVERY


def test_a_fall_read_backwards_is_a_rise_from_its_start() -> None:
    assert read_course(noisy(1 + TIME)).onset is not None
    assert read_course(noisy(1 + TIME[::-1])).onset is None


@pytest.mark.parametrize("at", [50, 500, 830, 845, 1000, 1199])
@pytest.mark.parametrize("height", [-50.0, 50.0])
def test_one_outlier_moves_the_onset_by_no_more_than_its_interval(at: int, height: float) -> None:
    plain = noisy(RISES["ramp"])
    values = plain.values.copy()
    values[at] += height
    one, two = read_course(plain), read_course(replace(plain, values=values))
    assert one.onset is not None
    assert two.onset is not None
    assert one.onset.first - EVERY <= two.onset.step <= one.onset.last + EVERY


def test_the_best_is_a_stretch_and_not_the_luckiest_point() -> None:
    plain = noisy(FALL + 2 * since(0.6))
    values = plain.values.copy()
    values[100] = -1.0
    best = read_course(replace(plain, values=values)).best
    assert best is not None
    assert (best.luckiest_step, best.luckiest) == (101 * EVERY, -1.0)
    assert best.first <= best.step <= best.last
    assert abs(place(best.step) - 0.6) < 0.12
    assert best.value == pytest.approx(FALL[720], abs=0.05)


def test_spikes_that_were_recovered_from_are_listed_with_their_place_and_height() -> None:
    level = FALL + 3 * ((TIME > 0.3) & (TIME < 0.31)) + 2 * ((TIME > 0.6) & (TIME < 0.7))
    course = read_course(noisy(level))
    assert course.onset is None
    assert [round(place(spike.first), 1) for spike in course.spikes] == [0.3, 0.6]
    assert course.spikes[0].height == pytest.approx(3, abs=0.5)
    assert course.spikes[1].height == pytest.approx(2, abs=0.5)


def test_of_two_divergences_the_one_that_was_not_recovered_from_counts() -> None:
    level = FALL + 2 * ((TIME > 0.25) & (TIME < 0.4)) + 6 * since(0.75)
    course = read_course(noisy(level))
    assert course.onset is not None
    assert abs(place(course.onset.step) - 0.75) < 0.03
    assert course.best is not None
    assert 0.4 < place(course.best.step) <= place(course.onset.step), "the lowest before it"
    assert len(course.spikes) == 1


def test_a_plateau_is_dated_and_a_fall_has_none() -> None:
    level = 1 + 2 * np.clip(0.4 - TIME, 0, None)
    course = read_course(noisy(level, noise=0.02))
    assert course.plateau_from is not None
    assert abs(place(course.plateau_from) - 0.4) < 0.08
    assert read_course(noisy(3 - 2 * TIME)).plateau_from is None


@pytest.mark.parametrize(("resume", "at_resume"), [(60_000, True), (30_000, False)])
def test_a_jump_says_whether_the_run_was_resumed_there(resume: int, at_resume: bool) -> None:
    level = 3 - TIME + 0.6 * (np.arange(COUNT) >= 600)  # the first at the new level is step 60,100
    course = read_course(noisy(level), resumes=[resume])
    assert [(jump.step, jump.at_resume) for jump in course.jumps] == [(60_100, at_resume)]
    assert course.jumps[0].height == pytest.approx(0.6, abs=0.15)


def test_steps_of_the_warm_up_are_neither_best_nor_onset() -> None:
    level = 2 - 0.3 * TIME + 1.0 * np.clip(TIME / 0.1, 0, 1)  # tuned from a model that knew better
    cold, warm = read_course(noisy(level)), read_course(noisy(level), warmup=int(0.12 * COUNT * EVERY))
    assert cold.onset is not None
    assert warm.onset is None
    assert warm.best is not None
    assert place(warm.best.step) > 0.8


def test_a_loss_that_ends_in_nan_has_diverged_where_it_began_to_rise() -> None:
    values = noisy(FALL + 10 * since(0.8)).values
    values[1100:] = np.nan
    course = read_course(series(values))
    assert (course.shape, course.lost) == ("diverged", 100)
    assert course.onset is not None
    assert abs(place(course.onset.step) - 0.8) < 0.03
    values = noisy(FALL).values
    values[1100:] = np.inf
    course = read_course(series(values))
    assert course.onset is not None
    assert (course.onset.first, course.onset.step) == (1100 * EVERY, 1101 * EVERY)


def test_values_that_are_not_finite_in_between_are_counted_and_harmless() -> None:
    plain = noisy(FALL)
    plain.values[200:260] = np.nan
    course = read_course(plain)
    assert (course.lost, course.onset) == (60, None)
    assert len(course.series) == len(course.trend) == len(course.low) == COUNT - 60


def same(one: Course, two: Course) -> bool:
    return (one.onset, one.best, one.spikes, one.shape) == (two.onset, two.best, two.spikes, two.shape)


def test_steps_in_any_order_are_sorted_and_the_last_logged_of_a_step_counts() -> None:
    plain = noisy(RISES["ramp"])
    order = np.random.default_rng(1).permutation(COUNT)
    shuffled = Series(plain.steps[order], plain.values[order], plain.times[order])
    assert same(read_course(plain), read_course(shuffled))
    twice = Series(*(np.concatenate([column, column]) for column in (plain.steps, plain.values, plain.times)))
    twice.values[:COUNT] = 99.0
    assert same(read_course(plain), read_course(twice))


@pytest.mark.parametrize(
    "values", [[], [1.0], [3.0, 2.0, 4.0, 1.0, 5.0], [np.nan] * 30, [1.0] * 11], ids=["0", "1", "5", "nan", "11"]
)
def test_from_a_few_points_nothing_is_made_up(values: list[float]) -> None:
    course = read_course(series(np.array(values)))
    assert course.shape == "unknown"
    assert (course.best, course.onset, course.plateau_from, course.spikes, course.jumps) == (None, None, None, (), ())
    assert len(course.trend) == len(course.series)
    assert course.lost == (30 if len(values) == 30 else 0)


def test_an_empty_series_has_no_level() -> None:
    assert np.isnan(read_course(NOTHING).at(5)).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -3e8])
def test_a_constant_loss_is_flat(value: float) -> None:
    course = read_course(series(np.full(300, value)))
    assert (course.shape, course.onset, course.spikes, course.jumps) == ("flat", None, (), ())


def test_a_loss_without_noise_is_read_too() -> None:
    assert read_course(series(FALL)).onset is None
    onset = read_course(series(RISES["ramp"])).onset
    assert onset is not None
    assert abs(place(onset.step) - 0.7) < 0.02


def test_the_trend_lies_in_its_band_about_the_true_level() -> None:
    course = read_course(noisy(FALL))
    inside = (course.low <= FALL) & (course.high >= FALL)
    assert inside.mean() > 0.85
    level, error = course.at(60_000)
    assert level == pytest.approx(FALL[600], abs=4 * error)
    assert error < NOISE
    assert course.at(10**9)[0] == course.trend[-1]
    assert course.noise == pytest.approx(NOISE, rel=0.1)


def test_half_a_million_points_are_read_in_under_a_second() -> None:
    level = np.interp(np.linspace(0, 1, 500_000), TIME, RISES["ramp"])
    found = noisy(level)
    begun = time.process_time()
    course = read_course(found)
    assert time.process_time() - begun < 1
    assert course.onset is not None
    assert abs(course.onset.step / (EVERY * 500_000) - 0.7) < 0.02
