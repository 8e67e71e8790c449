from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tts_kernel.data.sampler import BatchPlan, PlannedBatch, Position, padding_waste

ROWS = 103  # neither a multiple of the batch nor of the window


def plan_of(rows: int = ROWS, **changes: object) -> BatchPlan:
    lengths = np.random.default_rng(3).integers(5, 200, rows)
    ids = np.arange(rows) * 2 + 1  # rows of a manifest from which every other one was dropped
    plan = BatchPlan(rows=ids, lengths=lengths, available=rows, batch_size=4, window=24, seed=11)
    return replace(plan, **changes)


def batches(plan: BatchPlan, position: Position | None = None) -> list[list[int]]:
    return [planned.rows.tolist() for planned in plan.epoch(position or Position())]


def seen(planned: list[PlannedBatch]) -> list[int]:
    return [row for batch in planned for row in batch.rows.tolist()]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("rows", "batch_size", "window"), [(103, 4, 24), (7, 16, 4096), (64, 8, 8), (1, 1, 1)])
def test_every_row_comes_exactly_once_an_epoch(rows: int, batch_size: int, window: int, shuffle: bool) -> None:
    plan = plan_of(rows, batch_size=batch_size, window=window, shuffle=shuffle)
    for epoch in range(3):
        found = batches(plan, Position(epoch))
        assert sorted(row for batch in found for row in batch) == plan.rows.tolist()
        assert sum(len(batch) < batch_size for batch in found) == (rows % batch_size > 0), "only one may be short"


def test_no_rows_make_no_batches() -> None:
    assert batches(plan_of(0)) == []
    assert batches(plan_of(available=0)) == []


def test_equal_plans_give_equal_batches() -> None:
    assert batches(plan_of()) == batches(plan_of())


def test_other_seeds_and_other_epochs_give_another_order() -> None:
    orders = [batches(plan_of()), batches(plan_of(seed=12)), batches(plan_of(), Position(1))]
    assert all(one != other for number, one in enumerate(orders) for other in orders[number + 1 :])


def test_rows_of_one_length_meet_others_in_another_epoch() -> None:
    plan = plan_of(lengths=np.full(ROWS, 9))
    first, second = ({frozenset(batch) for batch in batches(plan, Position(epoch))} for epoch in (0, 1))
    assert len(first & second) <= 1


@pytest.mark.parametrize("window", [24, 4096])
@pytest.mark.parametrize("shuffle", [True, False])
def test_going_on_after_any_batch_gives_exactly_the_remaining_ones(window: int, shuffle: bool) -> None:
    plan = plan_of(window=window, shuffle=shuffle)
    for epoch in (0, 2):
        whole = list(plan.epoch(Position(epoch)))
        expected = [planned.rows.tolist() for planned in whole]
        for number, planned in enumerate(whole, start=1):
            stored = Position(**planned.after.to_mapping())  # as a checkpoint keeps it
            assert stored.epoch == epoch
            assert batches(plan, stored) == expected[number:]


def test_a_window_is_drawn_from_everything_available_and_sorted_by_length() -> None:
    plan = plan_of(1000, window=96)
    found = batches(plan)
    first = np.array([row for batch in found[:24] for row in batch])
    assert first.max() - first.min() > 1500, "a window of neighbours would train on one speaker after the other"
    lengths = dict(zip(plan.rows.tolist(), plan.lengths.tolist(), strict=True))
    spans = sorted((min(lengths[row] for row in b), max(lengths[row] for row in b)) for b in found[:24])
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_without_shuffling_windows_are_neighbours_in_their_order() -> None:
    found = batches(plan_of(window=24, shuffle=False))
    for first in range(0, ROWS, 24):
        window = {row for batch in found[first // 4 : first // 4 + 6] for row in batch}
        assert window == set((np.arange(first, min(first + 24, ROWS)) * 2 + 1).tolist())


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("rows", [103, 104, 105, 5])
def test_the_processes_share_every_batch_of_the_one_process_plan(world: int, rows: int) -> None:
    plan = plan_of(rows, world=world)
    shares = [list(replace(plan, rank=rank).epoch(Position())) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1, "a process that ends early would leave the others waiting"
    assert all(len(planned.rows) for share in shares for planned in share), "no process may have an empty batch"
    groups = list(zip(*shares, strict=True))
    together = [sorted(row for planned in group if not planned.idle for row in planned.rows) for group in groups]
    assert all(len({planned.after for planned in group}) == 1 for group in groups)
    assert together == [sorted(batch) for batch in batches(replace(plan, world=1))]


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 5), (0, 0)])
def test_a_rank_outside_its_processes_is_refused(rank: int, world: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} of {world} processes with batch_size 4"):
        plan_of(rank=rank, world=world)


def test_another_batch_size_goes_on_at_the_window_that_was_begun() -> None:
    """What a resume with another batch_size does: the window is begun again, those before it are not."""
    plan = plan_of(window=24)
    whole = list(plan.epoch(Position()))
    stop = whole[8].after  # six batches are the first window
    assert (stop.row, stop.batch) == (24, 3)
    again = list(plan_of(window=24, batch_size=8).epoch(replace(stop, batch=0)))
    assert sorted(seen(whole[:6]) + seen(again)) == plan.rows.tolist()


def test_a_window_is_a_whole_number_of_batches() -> None:
    assert plan_of(batch_size=10, window=24).window == 20
    assert plan_of(batch_size=100, window=24).window == 100


@pytest.mark.parametrize("growth", [[30, 103], [1, 2, 50, 103], [24, 48, 103], [97, 103]])
def test_rows_that_come_later_are_taken_up_at_the_first_one_not_seen(growth: list[int]) -> None:
    position, used = Position(), []
    for available in growth:
        plan = plan_of(available=available)
        first_unseen = len(used)
        assert position.start == position.end == first_unseen
        new = list(plan.epoch(position))
        assert set(seen(new)) == set(plan.rows[first_unseen:available].tolist())
        used += seen(new)
        position = new[-1].after
        assert plan.exhausted(position) == (available < ROWS)
    assert sorted(used) == plan_of().rows.tolist()


@pytest.mark.parametrize("stop", range(1, 9))
def test_growth_in_the_middle_of_a_window_neither_repeats_nor_loses_a_row(stop: int) -> None:
    before = list(plan_of(available=30).epoch(Position()))[:stop]
    after = list(plan_of(available=ROWS).epoch(before[-1].after))
    assert sorted(seen(before) + seen(after)) == plan_of().rows.tolist()


def test_a_plan_is_exhausted_only_where_rows_still_wait() -> None:
    plan = plan_of(available=30)
    assert not plan.exhausted(Position())
    assert not plan.exhausted(Position(0, 24, 30, 0, 1))
    assert plan.exhausted(Position(0, 30, 30))
    assert batches(plan, Position(0, 30, 30)) == []
    assert not plan_of().exhausted(Position(0, ROWS, ROWS))


def test_buckets_waste_less_than_batches_in_random_order() -> None:
    bucketed = plan_of(1000, window=256)
    random = np.random.default_rng(0).permutation(bucketed.lengths)
    groups = np.array_split(random, 1000 // 4)
    unsorted = 1 - random.sum() / sum(group.max() * len(group) for group in groups)
    waste = padding_waste(bucketed)
    assert 0 < waste < unsorted / 3
    assert padding_waste(replace(bucketed, window=1000)) < waste, "a wider window sorts better"


def test_pairs_of_one_clip_lie_in_different_batches_and_cost_little_padding() -> None:
    clips = np.random.default_rng(5).permutation(np.repeat(np.arange(400, dtype=np.uint64), 3))[:1000]
    lengths = np.random.default_rng(6).integers(5, 200, 400)[clips.astype(int)]
    together = plan_of(1000, lengths=lengths, batch_size=8, window=1000)
    apart = replace(together, clips=clips)
    clip_of = dict(zip(apart.rows.tolist(), clips.tolist(), strict=True))

    def different(plan: BatchPlan) -> float:
        return float(np.mean([len({clip_of[row] for row in batch}) / len(batch) for batch in batches(plan)]))

    assert different(together) < 0.6, "nothing to be told apart"
    assert different(apart) == 1.0
    assert sorted(row for batch in batches(apart) for row in batch) == apart.rows.tolist()
    assert padding_waste(apart) < padding_waste(together) + 0.05
    assert batches(apart) == batches(replace(apart, clips=clips * np.uint64(7))), "only equality counts"


def test_clips_of_one_pair_each_change_nothing() -> None:
    assert batches(plan_of(clips=np.arange(ROWS))) == batches(plan_of())


def test_padding_waste_is_the_share_of_padding() -> None:
    plan = plan_of(4, lengths=np.array([1, 3, 10, 10]), batch_size=2, window=4)
    assert padding_waste(plan) == pytest.approx(1 - 24 / 26)
    assert padding_waste(replace(plan, available=0)) == 0.0


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1000])
def test_updates_depend_on_the_effective_batch_alone(rows: int) -> None:
    sixteen = plan_of(rows, batch_size=16).updates_per_epoch(4)
    assert sixteen == plan_of(rows, batch_size=8).updates_per_epoch(8) == -(-rows // 64)


def test_updates_count_rows_that_still_wait() -> None:
    assert plan_of(100, available=10).updates_per_epoch() == plan_of(100).updates_per_epoch() == 25
