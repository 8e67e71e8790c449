from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.pipeline.written import WORDS, lengths_of, pipeline, row, rows, write_shards
from tts_kernel.data.loader import BatchLoader, LoaderSettings
from tts_kernel.data.pipeline import (
    PipelinePlan,
    build,
    check,
    count,
    lengths_of_statistics,
    read_lengths,
    remarks,
)
from tts_kernel.data.pipeline.batches import PipelineDataset
from tts_kernel.data.pipeline.processors import Batching, Filter
from tts_kernel.data.sampler import Position


def plan_of(count: int = 40, **options: int) -> PipelinePlan:
    return PipelinePlan(pipeline(), lengths_of_statistics(count, 3.0, 0.4, 5.0), **options)


def test_the_real_iteration_has_the_counted_batches(tmp_path: Path) -> None:
    lengths = lengths_of(tmp_path, rows(9), [row("v0", 2.0, 44_100), row("v1", 1.5, 16_000), *rows(0)])
    plan, data = PipelinePlan(pipeline(), lengths), PipelineDataset(pipeline(), lengths, WORDS)
    for epoch in (0, 1):
        counted = plan.counted(epoch)
        batches = [data[planned] for planned in plan.epoch(Position(epoch=epoch))]
        assert [batch.mel.shape[0] * batch.mel.shape[1] for batch in batches] == counted.padded_frames().tolist()
        for number, batch in enumerate(batches):
            expected = counted.batch(number)
            assert sorted(batch.ids) == sorted(lengths.utterances[expected])
            assert batch.mel_lengths.tolist() == (2 * batch.speech_lengths).tolist()
            assert batch.mel_lengths.tolist() == sorted(lengths.frames[expected].tolist(), reverse=True)
        assert sum(len(batch.ids) for batch in batches) == counted.accounts.kept == 11


def test_a_loader_takes_the_plan_from_any_position(tmp_path: Path) -> None:
    lengths = lengths_of(tmp_path, rows(12))
    plan, data = PipelinePlan(pipeline(), lengths), PipelineDataset(pipeline(), lengths, WORDS)
    loader = BatchLoader(data, plan, LoaderSettings())
    whole = list(loader.batches(Position()))
    position = whole[1].position
    assert position is not None
    assert [batch.facts() for batch in loader.batches(position)] == [batch.facts() for batch in whole[2:]]
    assert whole[-1].position is not None
    assert list(loader.batches(whole[-1].position)) == []


def test_an_epoch_has_every_kept_utterance_once_and_another_epoch_another_order() -> None:
    plan = plan_of()
    orders = [np.concatenate([batch.rows for batch in plan.epoch(Position(epoch=epoch))]) for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == plan.rows.tolist()
    assert orders[0].tolist() != orders[1].tolist()
    again = [batch.rows.tolist() for batch in plan.epoch(Position(epoch=1))]
    assert again == [batch.rows.tolist() for batch in plan_of().epoch(Position(epoch=1))]


def test_processes_deal_an_epoch_among_them_in_equally_many_steps() -> None:
    alone = [batch.rows.tolist() for batch in plan_of().epoch(Position())]
    dealt = [list(plan_of(rank=rank, world=3).epoch(Position())) for rank in range(3)]
    assert len({len(batches) for batches in dealt}) == 1
    taken = [batch.rows.tolist() for step in zip(*dealt, strict=True) for batch in step if not batch.idle]
    assert taken == alone
    assert plan_of().share(2, 3).updates_per_epoch() == len(dealt[0])
    assert [batch.rows.tolist() for batch in plan_of().share(1, 3).epoch(Position())] == [
        batch.rows.tolist() for batch in dealt[1]
    ]
    with pytest.raises(ValueError, match="rank 3 of 3 processes"):
        plan_of().share(3, 3)


def test_steps_count_what_is_left_over_at_the_end_of_an_epoch() -> None:
    counted = count(pipeline(), lengths_of_statistics(266, 5.9, 0.4, 6.0, 1986))
    assert 235 <= len(counted) <= 245  # the guide's case
    assert counted.optimiser_steps(8) == -(-len(counted) // 8)
    assert PipelinePlan(counted.pipeline, counted.lengths).updates_per_epoch(8) == counted.optimiser_steps(8)


def test_padding_is_what_the_batches_hold_beyond_their_rows() -> None:
    counted = count(pipeline(2000), lengths_of_statistics(200, 5.0, 0.5, 6.0))
    longest = [int(counted.lengths.frames[counted.batch(number)].max()) for number in range(len(counted))]
    held = sum(longest * counted.sizes())
    assert counted.padding_waste() == pytest.approx(1 - counted.lengths.frames.sum() / held)
    same = count(pipeline(2000), lengths_of_statistics(50, 2.0, 0.0, 6.0))
    assert same.padding_waste() == 0.0


def test_a_first_utterance_beyond_the_limit_is_a_batch_of_its_own_and_is_said(tmp_path: Path) -> None:
    """The reference begins with an empty batch there, on which its padding fails."""
    lengths = lengths_of(tmp_path, rows(4))
    made = pipeline(40)
    counted = count(made, lengths)
    check(counted)
    assert counted.empty_first
    assert counted.sizes().tolist() == [1, 1, 1, 1]
    said = "\n".join(remarks(counted))
    first = lengths.utterances[counted.order[0]]
    assert f"the first utterance, {first}, exceeds max_frames_in_batch" in said
    assert "longer than max_frames_in_batch 40, each a batch of its own: 4 of 4 utterances" in said
    data = PipelineDataset(made, lengths, WORDS)
    assert all(data[planned].ids for planned in PipelinePlan(made, lengths).epoch(Position()))


def test_utterances_that_are_trimmed_are_named(tmp_path: Path) -> None:
    lengths = lengths_of(tmp_path, [row("off", 2.0, speech_token=[1] * 48), row("even", 2.0)])
    (said,) = remarks(count(pipeline(), lengths))
    assert said.startswith("trimmed to 2 mel frames per speech token: 1 of 2 utterances")
    assert "by 2 tokens at most: off" in said


def test_shards_that_a_list_names_twice_are_said(tmp_path: Path) -> None:
    path = write_shards(tmp_path, rows(3), [row("once")])
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n", encoding="utf-8")
    counted = count(pipeline(), read_lengths(path, WORDS))
    assert counted.accounts.kept == 7
    assert any("names shards twice, 1 times in all" in line for line in remarks(counted))


def test_without_a_filter_what_has_no_frames_is_dropped_and_counted(tmp_path: Path) -> None:
    made = build([("batch", {"batch_type": "dynamic"})])
    lengths = lengths_of(tmp_path, [row("a"), row("silent", speech_token=[])])
    counted = count(made, lengths)
    assert [(name, drop.reason) for name, drop in counted.accounts.drops()] == [("compute_fbank", "no mel frames")]
    data = PipelineDataset(made, lengths, WORDS)
    assert [data[planned].ids for planned in PipelinePlan(made, lengths).epoch(Position())] == [["a"]]


def test_an_empty_pipeline_has_no_batches_and_no_waste() -> None:
    counted = count(pipeline().changed(Filter, token_max_length=0), lengths_of_statistics(5, 5.0, 0.4, 6.0))
    assert len(counted) == counted.optimiser_steps(8) == 0
    assert counted.padding_waste() == 0.0
    assert counted.padded_frames().tolist() == []


def test_static_batches_have_no_limit_to_exceed() -> None:
    made = pipeline().changed(Batching, batch_type="static", batch_size=3)
    counted = count(made, lengths_of_statistics(7, 5.0, 0.4, 6.0))
    assert counted.sizes().tolist() == [3, 3, 1]
    assert len(counted.oversize()) == 0


def test_the_guides_case_is_counted_in_a_tenth_of_a_second() -> None:
    lengths = lengths_of_statistics(266, 5.9, 0.4, 6.0)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        count(pipeline(), lengths)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1
