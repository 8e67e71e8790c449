"""Which rises of a known level count, and which of them last."""

from __future__ import annotations

import numpy as np
import pytest

from tts_kernel.recovery.rises import Rise, explained, find_rises, lasts
from tts_kernel.recovery.trend import Trend

ERROR = 0.02  # of every bin: 4.5 times that, of two bins, is about 0.13
FALLEN = np.linspace(3, 1, 60)


def trend(*parts: np.ndarray, error: float = ERROR) -> Trend:
    level = np.concatenate(parts)
    return Trend(level, np.ones(len(level)), error, 1.0, 8)


def stay(level: float, bins: int) -> np.ndarray:
    return np.full(bins, level)


def rises(*parts: np.ndarray, error: float = ERROR) -> list[Rise]:
    return find_rises(trend(*parts, error=error))


def last_one_lasts(*parts: np.ndarray, error: float = ERROR, size: int = 1) -> bool:
    found = trend(*parts, error=error)
    return lasts(found, find_rises(found), size)


def test_a_level_that_falls_or_stays_has_no_rise() -> None:
    assert rises(FALLEN, stay(1.0, 40)) == []


def test_a_rise_has_its_low_its_opening_its_peak_and_where_it_was_recovered_from() -> None:
    (found,) = rises(FALLEN, np.linspace(1, 2, 11)[1:], np.linspace(2, 1, 11)[1:], stay(1.0, 20))
    assert (found.low, found.peak) == (59, 69)
    assert found.left < found.opened < found.peak
    assert found.height == pytest.approx(1.0)
    assert found.closed is not None
    assert 70 < found.closed < 80


def test_what_is_still_up_at_the_end_is_open() -> None:
    (found,) = rises(FALLEN, stay(2.0, 30))
    assert (found.closed, found.opened) == (None, 60)


def test_noise_explains_a_rise_of_a_few_standard_errors() -> None:
    up = (FALLEN, stay(1.2, 30))
    assert len(rises(*up, error=0.02)) == 1
    assert rises(*up, error=0.04) == []
    level = np.concatenate(up)
    assert explained(level, np.full(90, 0.04), 0, 59, 70) == pytest.approx(4.5 * 0.04 * np.sqrt(2))


def test_a_rise_of_less_than_a_few_hundredths_of_what_was_learned_matters_to_nobody() -> None:
    assert rises(FALLEN, stay(1.02, 30), error=1e-6) == []
    assert len(rises(FALLEN, stay(1.05, 30), error=1e-6)) == 1


def test_what_came_before_the_first_bin_does_not_count() -> None:
    parts = (stay(0.1, 10), FALLEN, stay(1.0, 20))
    assert len(find_rises(trend(*parts))) == 1, "from 0.1 it all is a rise"
    assert find_rises(trend(*parts), first=10) == []


def test_a_rise_that_came_back_does_not_last_and_one_that_stays_does() -> None:
    up, down = np.linspace(1, 2, 11)[1:], np.linspace(2, 1, 11)[1:]
    assert not last_one_lasts(FALLEN, stay(1.0, 40))
    assert not last_one_lasts(FALLEN, up, down, stay(1.0, 20))
    assert last_one_lasts(FALLEN, up, stay(2.0, 20))


def test_a_rise_of_a_few_points_may_be_a_spike() -> None:
    assert not last_one_lasts(FALLEN, stay(2.0, 4))
    assert last_one_lasts(FALLEN, stay(2.0, 4), size=10), "of bins of ten points"
    assert last_one_lasts(FALLEN, stay(2.0, 5))


def test_a_rise_that_is_nearly_back_does_not_last_unless_its_fall_is_too_slow() -> None:
    assert not last_one_lasts(FALLEN, stay(2.0, 5), np.linspace(2, 1.4, 20))
    assert last_one_lasts(FALLEN, stay(2.0, 5), np.linspace(2, 1.3, 20), stay(1.3, 60))
    slowly = np.linspace(1.6, 1.4, 100)
    assert last_one_lasts(FALLEN, stay(2.0, 5), np.linspace(2, 1.6, 10), slowly)


def test_what_came_back_to_within_a_fifth_of_its_height_is_over_however_long_it_stays_there() -> None:
    up = np.linspace(1, 2, 11)[1:]
    near, far = ((FALLEN, up, np.linspace(2, level, 10), stay(level, 60)) for level in (1.15, 1.3))
    assert rises(*near)[0].closed is not None
    assert not last_one_lasts(*near)
    assert rises(*far)[0].closed is None
    assert last_one_lasts(*far)


def test_the_next_tooth_of_a_saw_has_time_to_fall() -> None:
    """As warm restarts of a rate make them: up, back just before the next."""
    tooth = np.append(np.linspace(1, 2, 6)[1:], np.linspace(2, 1, 36)[1:])
    begun = np.linspace(1, 2, 6)[1:]
    teeth = [FALLEN, tooth, tooth, tooth]
    assert not last_one_lasts(*teeth, begun, stay(2.0, 6))
    assert last_one_lasts(FALLEN, begun, stay(2.0, 6))
    assert last_one_lasts(*teeth, begun, stay(2.0, 200)), "that is no tooth any more"
