from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tts_kernel.optim.schedules import by_epoch, learning_rate, reversal_ramp, warmup_lr, wsd, wsd_decay_steps

TOTAL, WARMUP = 200, 20


def curve(shape: Any, total: int = TOTAL, warmup: int = WARMUP, floor: float = 0.0, steps: int = 0) -> list[float]:
    factor = learning_rate(shape, warmup=warmup, total=total, floor=floor)
    return [factor(step) for step in range(steps or total + 1)]


def rises(values: list[float]) -> bool:
    return all(later > earlier for earlier, later in itertools.pairwise(values))


def falls(values: list[float]) -> bool:
    return all(later < earlier for earlier, later in itertools.pairwise(values))


@pytest.mark.parametrize("shape", ["wsd", "cosine", "linear", "constant"])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_every_shape_rises_linearly_from_the_floor_to_the_peak(shape: str, floor: float) -> None:
    found = curve(shape, floor=floor)
    assert found[0] == floor
    assert found[WARMUP // 2] == pytest.approx((1 + floor) / 2)
    assert rises(found[: WARMUP + 1])
    assert found[WARMUP] == max(found) == 1.0


@pytest.mark.parametrize("shape", ["wsd", "cosine", "linear"])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_a_falling_shape_ends_at_its_floor_and_stays_there(shape: str, floor: float) -> None:
    found = curve(shape, floor=floor, steps=TOTAL + 50)
    assert min(found) == pytest.approx(floor)
    assert found[TOTAL:] == pytest.approx([floor] * 50)


def test_wsd_is_flat_until_the_last_tenth_and_then_falls() -> None:
    found = curve("wsd")
    decay = wsd_decay_steps(TOTAL, WARMUP)
    assert decay == (TOTAL - WARMUP) // 10
    assert set(found[WARMUP : TOTAL - decay + 1]) == {1.0}
    assert falls(found[TOTAL - decay :])
    assert found[TOTAL - decay // 2] == pytest.approx(0.5)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_cosine_and_linear_fall_from_the_warm_up_on_and_are_half_way_in_the_middle(shape: str) -> None:
    found = curve(shape)
    assert falls(found[WARMUP:])
    assert found[(WARMUP + TOTAL) // 2] == pytest.approx(0.5)


def test_cosine_falls_more_slowly_at_first_than_linear() -> None:
    assert curve("cosine")[WARMUP + 20] > curve("linear")[WARMUP + 20]


def test_constant_stays_at_the_peak() -> None:
    assert set(curve("constant", steps=2 * TOTAL)[WARMUP:]) == {1.0}


@pytest.mark.parametrize("shape", ["wsd", "cosine", "linear"])
@pytest.mark.parametrize("total", [1, WARMUP // 2, WARMUP])
def test_a_run_not_longer_than_its_warm_up_never_decays(shape: str, total: int) -> None:
    assert rises(curve(shape, total=total, steps=total + 1))
    assert curve(shape, total=total, steps=total)[-1] == (total - 1) / WARMUP
    assert wsd_decay_steps(total, WARMUP) == 0


@pytest.mark.parametrize("shape", ["wsd", "cosine", "linear", "constant"])
def test_without_a_warm_up_the_peak_comes_first(shape: str) -> None:
    assert curve(shape, warmup=0)[0] == 1.0


@pytest.mark.parametrize(("total", "warmup"), [(0, 0), (1, 0), (7, 3), (100, 0), (99, 50), (12345, 678)])
def test_warm_up_stable_and_decay_are_the_whole_run(total: int, warmup: int) -> None:
    decay = wsd_decay_steps(total, warmup)
    assert 0 <= decay <= max(total - warmup, 0)
    assert decay == pytest.approx(0.1 * (total - warmup), abs=1)
    assert all(0.0 <= wsd(step, warmup=warmup, decay=decay, total=total) <= 1.0 for step in range(total + 3))


def test_an_unknown_shape_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="schedule is 'cosin', expected 'wsd', 'cosine', 'linear' or 'constant'"):
        learning_rate("cosin", warmup=1, total=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("ramp", ["exponential", "linear"])
@pytest.mark.parametrize("peak", [1.0, 0.3])
def test_a_ramp_rises_from_nothing_to_its_peak(ramp: Any, peak: float) -> None:
    found = [reversal_ramp(step, total=50, peak=peak, ramp=ramp) for step in range(51)]
    assert found[0] == 0.0
    assert rises(found)
    assert found[-1] == pytest.approx(peak, rel=1e-3)


@pytest.mark.parametrize("ramp", ["exponential", "linear", "constant"])
def test_a_ramp_never_leaves_its_peak_behind(ramp: Any) -> None:
    found = [reversal_ramp(step, total=50, peak=0.3, ramp=ramp) for step in range(50, 500)]
    assert all(later >= earlier for earlier, later in itertools.pairwise(found))
    assert max(found) <= 0.3
    assert min(found) > 0.2997


def test_the_exponential_ramp_is_steepest_at_the_start() -> None:
    found = [reversal_ramp(step, total=50) for step in range(51)]
    assert falls([later - earlier for earlier, later in itertools.pairwise(found)])
    assert found[10] == pytest.approx(0.7616, abs=1e-4)  # 2 / (1 + exp(-2)) - 1


def test_a_constant_ramp_has_its_peak_at_once() -> None:
    assert {reversal_ramp(step, total=50, peak=0.3, ramp="constant") for step in range(60)} == {0.3}


def test_a_ramp_over_no_steps_does_not_divide_by_zero() -> None:
    assert reversal_ramp(0, total=0) == 0.0
    assert reversal_ramp(1, total=0, ramp="linear") == 1.0


def test_an_unknown_ramp_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="ramp is 'exp', expected 'exponential', 'linear' or 'constant'"):
        reversal_ramp(0, total=5, ramp="exp")  # type: ignore[arg-type]


def test_warmup_lr_rises_linearly_to_the_peak_and_falls_with_the_root_of_the_steps() -> None:
    found = [warmup_lr(step, warmup=WARMUP) for step in range(1000)]
    assert found[0] == 1 / WARMUP
    assert rises(found[:WARMUP])
    assert found[WARMUP - 1] == max(found) == 1.0
    assert falls(found[WARMUP - 1 :])
    assert found[4 * WARMUP - 1] == pytest.approx(0.5)


def test_warmup_lr_without_a_warm_up_falls_from_the_peak() -> None:
    assert [warmup_lr(step, warmup=0) for step in (0, 3, 99)] == pytest.approx([1.0, 0.5, 0.1])


def test_a_rate_by_epoch_falls_where_an_epoch_ends_and_as_torchs_does() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=3e-4)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
    found = [by_epoch(step, updates=4, decay=0.9) for step in range(12)]
    for epoch in range(3):
        of_epoch = [3e-4 * factor for factor in found[4 * epoch : 4 * epoch + 4]]
        assert of_epoch == pytest.approx([schedule.get_last_lr()[0]] * 4, rel=1e-12)
        optimizer.step()
        schedule.step()
    assert rises(found[::-4])
