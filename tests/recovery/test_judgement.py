"""The guide's score is the guide's; the robust estimate knows noise from a fall."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tts_kernel.recovery.history import NOTHING, Series
from tts_kernel.recovery.judgement import PRIOR, disagreement, guide_score, robust_estimate

START, TARGET = 1.8, 0.9


def series(values: np.ndarray, every: int = 50) -> Series:
    return Series(np.arange(1, len(values) + 1) * every, np.asarray(values, float), np.full(len(values), np.nan))


def noisy(level: np.ndarray, noise: float = 0.03, seed: int = 0) -> Series:
    return series(level + noise * np.random.default_rng(seed).normal(size=len(level)))


TIME = np.linspace(0, 1, 120)


@pytest.mark.parametrize(
    ("slope", "points"), [(-0.0011, 40), (-0.0009, 20), (-1e-9, 20), (0.0, 0), (0.001, 0)], ids=str
)
def test_the_guides_slope_has_its_two_steps(slope: float, points: int) -> None:
    assert guide_score(1.5 + slope * np.arange(50)).parts["slope"] == points


def test_the_guides_score_looks_at_the_last_fifty_points_only() -> None:
    risen = np.concatenate([np.full(200, 0.5), np.linspace(2, 1.8, 50)])
    assert guide_score(risen).points == 100
    assert guide_score(risen[:-1]).parts["last"] == 0, "the first of its fifty is now the low one"


@pytest.mark.parametrize(
    ("validation", "points"), [([], 30), ([2.0], 30), ([2.0, 3.0, 2.2], 30), ([2.0, 1.0, 2.21], 0), ([2.0, np.nan], 0)]
)
def test_a_validation_may_be_a_tenth_worse_or_absent(validation: list[float], points: int) -> None:
    assert guide_score(np.ones(50), validation).parts["validation"] == points


@pytest.mark.parametrize(
    ("values", "validation", "points", "advice"),
    [
        (np.linspace(2, 1, 50), [], 100, "go on"),
        (np.linspace(2, 1, 50), [1, 2], 70, "go on"),
        (np.append(np.linspace(1, 0.9, 49), 1.01), [1, 2], 40, "go on with care"),
        (np.linspace(1, 2, 50), [], 30, "restart advised"),
        (np.linspace(1, 2, 50), [1, 2], 0, "restart"),
    ],
)
def test_the_guides_bands(values: np.ndarray, validation: list[float], points: int, advice: str) -> None:
    score = guide_score(values, validation)
    assert (score.points, score.advice) == (points, advice)
    assert score.points == sum(score.parts.values())


def test_a_score_of_too_few_or_broken_points_says_so_or_gives_none_for_them() -> None:
    assert not guide_score(np.linspace(2, 1, 49)).enough
    assert guide_score(np.linspace(2, 1, 50)).enough
    assert [guide_score(values).points for values in ([], [1.0])] == [30, 30], "an absent validation is no blame"
    assert guide_score([2.0] * 49 + [float("nan")]).points == 30


def test_the_estimate_tells_what_falls_from_what_stays_rises_or_turns() -> None:
    def chance(level: np.ndarray) -> float:
        return robust_estimate(noisy(level), start=START, target=TARGET).probability

    falls, stays = chance(START - 0.4 * TIME), chance(START + 0 * TIME)
    rises, turns = chance(START + 0.3 * TIME), chance(START - 0.5 * np.sin(np.pi * TIME))
    assert falls > 0.9
    assert max(stays, rises, turns) < 0.2


def test_the_deeper_the_fall_the_likelier_the_recovery() -> None:
    found = [
        robust_estimate(noisy(START - depth * TIME, 0.2), start=START, target=TARGET).probability
        for depth in (0.0, 0.05, 0.1, 0.2, 0.4)
    ]
    assert all(one < two for one, two in pairwise(found)), found


def test_the_interval_holds_the_probability_and_the_slope() -> None:
    for seed in range(20):
        estimate = robust_estimate(noisy(START - 0.1 * TIME, 0.2, seed), start=START)
        assert 0 < estimate.low <= estimate.probability <= estimate.high < 1
        assert estimate.slope_low < estimate.slope < estimate.slope_high


def test_the_slope_is_per_thousand_steps_and_its_interval_holds_the_true_one_nine_times_of_ten() -> None:
    true = -0.4 / (119 * 50) * 1000
    found = [robust_estimate(noisy(START - 0.4 * TIME, 0.1, seed), start=START) for seed in range(100)]
    inside = sum(one.slope_low <= true <= one.slope_high for one in found)
    assert 80 <= inside <= 99


def test_one_outlier_does_not_change_the_estimate() -> None:
    plain = noisy(START - 0.2 * TIME)
    values = plain.values.copy()
    values[-2] += 100
    found = [robust_estimate(one, start=START).slope for one in (plain, Series(plain.steps, values, plain.times))]
    assert found[0] == pytest.approx(found[1], rel=0.1)


def test_a_memory_in_the_noise_makes_the_slope_less_sure() -> None:
    random, drive = np.random.default_rng(0), np.zeros(600)
    for place in range(1, 600):
        drive[place] = 0.9 * drive[place - 1] + 0.03 * np.sqrt(1 - 0.81) * random.normal()
    widths = [
        found.slope_high - found.slope_low
        for found in (robust_estimate(one, start=START) for one in (noisy(np.full(600, START)), series(START + drive)))
    ]
    assert widths[1] > 2 * widths[0]


def test_a_validation_that_rises_lowers_the_probability_and_one_that_falls_does_not() -> None:
    train = noisy(START - 0.4 * TIME)
    alone, fallen, risen = (
        robust_estimate(train, validation=held, start=START)
        for held in (None, noisy(2 - 0.3 * TIME[::10]), noisy(2 + 0.5 * TIME[::10]))
    )
    assert fallen.probability == alone.probability
    assert risen.probability < 0.1
    assert "the validation loss rises" in risen.text


@pytest.mark.parametrize("found", [NOTHING, series(np.array([1.0])), series(np.ones(7))], ids=len)
def test_too_few_points_give_the_guides_estimate_and_say_so(found: Series) -> None:
    estimate = robust_estimate(found, start=START, target=TARGET)
    assert (estimate.probability, estimate.low, estimate.high) == (PRIOR, 0, 1)
    assert "nothing is measured" in estimate.text


def test_a_phase_that_ends_in_nan_has_failed() -> None:
    assert robust_estimate(series(np.append(START - 0.4 * TIME, np.nan)), start=START).probability == 0


def test_a_loss_without_noise_is_judged_too() -> None:
    assert robust_estimate(series(np.full(60, START)), start=START, target=TARGET).probability < 0.1
    assert robust_estimate(series(START - 0.4 * TIME), start=START, target=TARGET).probability > 0.9


def test_the_two_rules_disagree_about_noise_and_the_sentence_says_why() -> None:
    said = []
    for seed in range(30):
        found = noisy(START + 0 * TIME, 0.1, seed)
        score, estimate = guide_score(found.values), robust_estimate(found, start=START, target=TARGET)
        text = disagreement(score, estimate)
        assert bool(text) == ((score.points >= 40) != (estimate.probability >= 0.5))
        said.append(text)
    assert any("a slope that noise explains" in text for text in said)


def test_a_slow_sure_fall_that_the_guide_misses_is_explained() -> None:
    values = START - 0.4 * TIME
    values[-50] -= 5  # the first of the guide's fifty
    found = noisy(values, 0.005)
    score = guide_score(found.values, [1.0, 1.2])
    text = disagreement(score, robust_estimate(found, start=START, target=TARGET))
    assert score.points < 40
    assert "nothing for" in text
    assert "last" in text
