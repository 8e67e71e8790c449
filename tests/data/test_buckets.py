"""MeloTTS's own batches; their numbers are compared in parity case training_facts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tts_kernel.data.buckets import BOUNDARIES, BucketPlan, buckets_of, discards
from tts_kernel.data.sampler import Position

LENGTHS = np.random.default_rng(5).integers(10, 1200, 150)


def plan_of(lengths: np.ndarray = LENGTHS, batch_size: int = 6) -> BucketPlan:
    return BucketPlan(np.arange(len(lengths)) * 2 + 1, lengths, batch_size)


def test_every_clip_is_in_a_bucket_or_counted_with_its_reason() -> None:
    lengths = np.array([0, 32, 33, 300, 301, 1000, 1001, 5000])
    assert discards(lengths) == {"32 frames or fewer": 2, "more than 1,000 frames": 2}
    assert [bucket.rows.tolist() for bucket in buckets_of(lengths)] == [[2, 3], [4], [5]]
    assert sum(discards(LENGTHS).values()) + sum(len(b.rows) for b in buckets_of(LENGTHS)) == len(LENGTHS)
    assert discards(np.array([33, 1000])) == {}


def test_an_epoch_has_every_clip_that_a_bucket_holds_and_no_other() -> None:
    plan = plan_of()
    held = plan.rows[(LENGTHS > 32) & (LENGTHS <= 1000)]
    for epoch in range(3):
        rows = [row for planned in plan.epoch(Position(epoch)) for row in planned.rows.tolist()]
        assert sorted(set(rows)) == held.tolist()
        assert len(rows) == len(held) + plan.repeated


def test_all_batches_are_full_and_of_one_bucket() -> None:
    plan = plan_of()
    found = list(plan.epoch(Position()))
    assert len(found) == plan.updates_per_epoch()
    for planned in found:
        assert len(planned.rows) == 6
        assert len(set(np.searchsorted(BOUNDARIES, LENGTHS[planned.rows // 2]))) == 1


def test_a_bucket_smaller_than_a_batch_repeats_its_clips() -> None:
    plan = plan_of(np.array([50, 60, 350]), batch_size=4)
    assert sorted(sorted(planned.rows.tolist()) for planned in plan.epoch(Position())) == [[1, 1, 3, 3], [5, 5, 5, 5]]
    assert plan.repeated == 5


def test_processes_share_every_batch() -> None:
    plan = plan_of()
    parts = [[planned.rows for planned in plan.share(rank, 2).epoch(Position(3))] for rank in range(2)]
    for planned, one, other in zip(plan.epoch(Position(3)), *parts, strict=True):
        np.testing.assert_array_equal(planned.rows[0::2], one)
        np.testing.assert_array_equal(planned.rows[1::2], other)


def test_going_on_after_any_batch_gives_exactly_the_remaining_ones() -> None:
    plan = plan_of()
    whole = list(plan.epoch(Position(2)))
    for number, planned in enumerate(whole, start=1):
        rest = list(plan.epoch(Position(**planned.after.to_mapping())))
        assert [one.rows.tolist() for one in rest] == [one.rows.tolist() for one in whole[number:]]
        assert not plan.exhausted(planned.after)


def test_another_epoch_has_another_order() -> None:
    first, second = ([planned.rows.tolist() for planned in plan_of().epoch(Position(epoch))] for epoch in (0, 1))
    assert first != second


def test_a_plan_says_what_it_discards_and_repeats() -> None:
    told = str(plan_of(np.array([20, 50, 60, 350, 2000]), batch_size=2))
    assert "3 of 5 clips, 1 of them" in told
    assert "1 clips discarded: 32 frames or fewer" in told
    assert "1 clips discarded: more than 1,000 frames" in told


def test_padding_is_counted_against_the_longest_of_each_batch() -> None:
    assert plan_of(np.array([100, 200]), batch_size=2).padding_waste() == pytest.approx(0.25)
    assert plan_of(np.array([100, 100]), batch_size=2).padding_waste() == 0.0


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least two that rise"):
        buckets_of(LENGTHS, (32, 32))
    with pytest.raises(ValueError, match=r"no bucket holds any of 2 clips \(\{'32 frames or fewer': 2\}\)"):
        list(plan_of(np.array([5, 6])).epoch(Position()))
    with pytest.raises(ValueError, match="share evenly"):
        replace(plan_of(), world=4)
