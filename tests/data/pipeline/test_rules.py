from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tts_kernel.data.pipeline import Lengths, lengths_of_statistics, rules
from tts_kernel.data.pipeline.processors import Filter, Resample


def lengths(**columns: list[int]) -> Lengths:
    """Rows of 2 s with 10 text tokens, but for these columns."""
    count = len(next(iter(columns.values())))
    plain = lengths_of_statistics(count, 2.0, 0.0, 5.0)
    plain = replace(plain, text_tokens=np.full(count, 10), utterances=np.array([f"u{at}" for at in range(count)]))
    changed: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
    return replace(plain, **changed)


@pytest.mark.parametrize(
    ("setting", "columns", "reason"),
    [
        ({"min_length": 100, "max_length": 300}, {"samples": [24_000, 23_999, 72_000, 72_001]}, "too short"),
        ({"min_length": 100, "max_length": 300}, {"samples": [24_000, 72_001, 72_000, 72_001]}, "too long"),
        ({"token_max_length": 40}, {"text_tokens": [40, 41, 1, 99]}, "too much text"),
        ({"token_min_length": 5}, {"text_tokens": [5, 4, 9, 0]}, "too little text"),
        ({"max_output_input_ratio": 0.05}, {"text_tokens": [10, 11, 9, 50]}, "text/frames ratio too high"),
        ({"min_output_input_ratio": 0.05}, {"text_tokens": [10, 9, 11, 1]}, "text/frames ratio too low"),
        ({}, {"speech_tokens": [50, 0, 1, 0]}, "no speech tokens"),
        ({}, {"reject_tokens": [-1, 0, 4, 0]}, "no rejected speech tokens"),
    ],
)
def test_a_limit_itself_is_kept_and_what_is_beyond_it_dropped(
    setting: dict[str, Any], columns: dict[str, list[int]], reason: str
) -> None:
    kept, drops = rules.filtered(lengths(**columns), Filter(**setting))
    assert kept.tolist() == [True, False, True, False]
    assert reason in [drop.reason for drop in drops]
    assert sum(drop.count for drop in drops) == 2


def test_an_utterance_counts_under_the_first_reason_alone() -> None:
    rows = lengths(samples=[2400, 2400, 48_000], text_tokens=[0, 300, 0], speech_tokens=[0, 0, 0])
    _, drops = rules.filtered(rows, Filter(min_length=100))
    assert {drop.reason: drop.utterances for drop in drops} == {"too short": ("u0", "u1"), "too little text": ("u2",)}


def test_the_value_that_a_drop_names_keeps_what_was_dropped() -> None:
    rows = lengths(samples=[2400, 48_000, 480_000, 96_000], text_tokens=[1, 300, 19, 250])
    limits: dict[str, Any] = {
        "min_length": 100,
        "max_length": 1000,
        "token_max_length": 200,
        "max_output_input_ratio": 0.5,
    }
    for _ in range(len(limits) + 1):
        kept, drops = rules.filtered(rows, Filter(**limits))
        if not drops:
            break
        for drop in drops:
            name, value, *_ = drop.keeps.split()
            limits[name] = type(Filter.__dataclass_fields__[name].default)(float(value))
    assert kept.all()


def test_zero_text_tokens_drop_everything_unless_zero_means_no_limit() -> None:
    rows = lengths(text_tokens=[1, 50, 190, 0])
    kept, drops = rules.filtered(rows, Filter(token_max_length=0, token_min_length=0))
    assert not kept.any()
    assert "zero_is_no_limit" in drops[0].keeps
    kept, _ = rules.filtered(rows, Filter(token_max_length=0, zero_is_no_limit=True))
    assert kept.tolist() == [True, True, True, False]


def test_only_low_rates_that_would_be_resampled_are_dropped() -> None:
    rows = lengths(rates=[24_000, 8_000, 16_000, 44_100, 15_999])
    kept, drops = rules.resampled(rows, Resample())
    assert kept.tolist() == [True, False, True, True, False]
    assert drops[0].reason == "sample rate too low, 8,000, 15,999 Hz"


def test_shuffling_loses_and_repeats_nothing_and_moves_no_row_further_ahead_than_its_window() -> None:
    rows = rules.shuffled(np.arange(103), 20, random.Random(3))
    assert sorted(rows) == list(range(103))
    assert rows.tolist() != list(range(103))
    assert max(row - place for place, row in enumerate(rows)) < 20


@pytest.mark.parametrize("size", [2, 3, 5, 7, 100])
def test_any_window_shuffles_any_number_of_rows(size: int) -> None:
    for count in (0, 1, 6, 7, 8):
        assert sorted(rules.shuffled(np.arange(count), size, random.Random(0))) == list(range(count))


def test_a_run_is_sorted_and_equal_lengths_stay_in_their_order() -> None:
    frames = np.array([5, 3, 5, 1, 9, 2, 2])
    assert rules.in_sorted_runs(np.arange(7), frames, 4).tolist() == [3, 1, 0, 2, 5, 6, 4]


def test_dynamic_batches_stay_within_the_limit_and_a_longer_row_is_alone() -> None:
    frames = np.random.default_rng(0).integers(10, 500, 200)
    frames[0] = 20
    ends = rules.dynamic_ends(frames, 400)
    assert ends[-1] == 200
    for start, end in pairwise([0, *ends]):
        assert frames[start:end].max() * (end - start) <= 400 or end - start == 1
        if end < 200:
            assert frames[start : end + 1].max() * (end + 1 - start) > 400


def test_a_first_row_beyond_the_limit_comes_after_an_empty_batch() -> None:
    assert rules.dynamic_ends(np.array([500, 10]), 400).tolist() == [0, 1, 2]


def test_static_batches_keep_the_last_smaller_one() -> None:
    assert rules.static_ends(5, 2).tolist() == [2, 4, 5]
    assert rules.static_ends(4, 2).tolist() == [2, 4]
    assert rules.static_ends(0, 2).tolist() == rules.dynamic_ends(np.zeros(0, int), 5).tolist() == []


@pytest.mark.parametrize("epoch", [0, 3])
def test_every_shard_is_read_once_by_one_worker_where_there_are_enough(epoch: int) -> None:
    shares = [
        rules.share_of_shards(9, epoch, rank, 2, worker, 3, True, True) for rank in range(2) for worker in range(3)
    ]
    assert sorted(shard for share in shares for shard in share) == list(range(9))
