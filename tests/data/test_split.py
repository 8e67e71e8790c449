from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tts_kernel.data.split import FEWEST, hold_out


def rows_of(clips: int, pairs: int = 3) -> list[str]:
    return [f"clip{number}" for number in range(clips) for _ in range(pairs)]


def held_clips(rows: list[str], share: float, chunks: int = 1) -> set[str]:
    column = pa.chunked_array([pa.array(part, pa.string()) for part in np.array_split(rows, chunks)])
    held = hold_out(column, share)
    assert held.shape == (len(rows),)
    return {clip for clip, out in zip(rows, held, strict=True) if out}


@pytest.mark.parametrize("seed", range(3))
def test_the_same_clips_are_held_out_whatever_the_order_of_the_rows(seed: int) -> None:
    rows = rows_of(200)
    shuffled = np.random.default_rng(seed).permutation(rows).tolist()
    assert held_clips(shuffled, 0.2) == held_clips(rows, 0.2)


def test_the_same_clips_are_held_out_however_the_column_is_stored() -> None:
    rows = rows_of(200)
    assert held_clips(rows, 0.2, chunks=7) == held_clips(rows, 0.2)


def test_all_rows_of_a_clip_are_on_one_side() -> None:
    rows = np.random.default_rng(0).permutation(rows_of(100)).tolist()
    held = hold_out(pa.chunked_array([rows]), 0.3)
    inside = {clip for clip, out in zip(rows, held, strict=True) if out}
    outside = {clip for clip, out in zip(rows, held, strict=True) if not out}
    assert inside
    assert not inside & outside


@pytest.mark.parametrize(
    ("clips", "share", "held"),
    [
        (1000, 0.2, 200),
        (1000, 0.01, FEWEST),  # a share too small to measure anything
        (200, 0.01, 20),  # but never more than a tenth for that
        (5, 0.5, 2),
    ],
)
def test_the_share_says_how_many_clips_but_enough_to_measure_are_held_out(clips: int, share: float, held: int) -> None:
    assert len(held_clips(rows_of(clips), share)) == held


def test_a_larger_share_holds_out_the_same_clips_and_more() -> None:
    rows = rows_of(300)
    assert held_clips(rows, 0.2) < held_clips(rows, 0.4)


def test_more_pairs_of_a_clip_do_not_change_the_choice() -> None:
    assert held_clips(rows_of(100, pairs=1), 0.2) == held_clips(rows_of(100, pairs=5), 0.2)
