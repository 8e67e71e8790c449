from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tts_kernel.data.pairs import PairError, PairLimits, make_pairs

SIZES = {"a": 1, "b": 2, "c": 3, "d": 9, "e": 40}  # clips of each speaker


def clips(seed: int = 0, **changes: list) -> pa.Table:
    speakers = [name for name, count in SIZES.items() for _ in range(count)]
    np.random.default_rng(seed).shuffle(speakers)
    columns = {
        "id": [f"clip{n}" for n in range(len(speakers))],
        "speaker": speakers,
        "text_len": [10] * len(speakers),
        "code_len": [100] * len(speakers),
    }
    return pa.table(columns | changes)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("wanted", [1, 2, 3, 8])
def test_every_clip_gets_as_many_different_prompts_of_its_speaker_as_there_are(wanted: int, seed: int) -> None:
    table = clips(seed)
    pairs = make_pairs(table, PairLimits(pairs_per_target=wanted, seed=seed))
    speakers = table.column("speaker").to_pylist()
    assert (pairs.target != pairs.prompt).all(), "never a clip with itself"
    assert all(speakers[t] == speakers[p] for t, p in zip(pairs.target, pairs.prompt, strict=True))
    assert len(set(zip(pairs.target, pairs.prompt, strict=True))) == len(pairs), "a pair occurs twice"
    counts = np.bincount(pairs.target, minlength=len(table)).tolist()
    assert counts == [min(wanted, SIZES[speaker] - 1) for speaker in speakers]
    assert pairs.dropped == {"only clip of its speaker": 1}


def test_every_other_clip_is_equally_likely_a_prompt() -> None:
    table = pa.table({"id": list("abcde"), "speaker": ["s"] * 5, "text_len": [5] * 5, "code_len": [50] * 5})
    counts = np.zeros((5, 5))
    for seed in range(2000):
        pairs = make_pairs(table, PairLimits(pairs_per_target=2, seed=seed))
        np.add.at(counts, (pairs.target, pairs.prompt), 1)
    expected = np.where(np.eye(5), 0, 1000)
    np.testing.assert_allclose(counts, expected, atol=130)  # four standard deviations of 22, and room


def test_the_seed_alone_decides() -> None:
    first, same, other = (make_pairs(clips(), PairLimits(seed=seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.prompt, same.prompt)
    assert (first.prompt != other.prompt).any()


def test_pairs_of_a_target_are_neighbours_in_the_order_of_the_clips() -> None:
    assert (np.diff(make_pairs(clips()).target) >= 0).all()


def test_short_clips_take_no_part_and_are_counted() -> None:
    count = sum(SIZES.values())
    text, codes = [10] * count, [100] * count
    text[:5], codes[4:7] = [2] * 5, [11] * 3
    pairs = make_pairs(clips(text_len=text, code_len=codes), PairLimits(min_text=3, min_codes=12))
    assert not set(range(7)) & (set(pairs.target) | set(pairs.prompt))
    assert pairs.dropped["fewer than 3 text tokens"] == 5
    assert pairs.dropped["fewer than 12 codes"] == 2, "a clip is counted under its first reason"
    assert len(set(pairs.target)) + sum(pairs.dropped.values()) == count


def test_clips_without_a_speaker_or_length_are_counted() -> None:
    speakers = clips().column("speaker").to_pylist()
    speakers[:3] = [None] * 3
    lengths = [100] * len(speakers)
    lengths[3] = None
    dropped = make_pairs(clips(speaker=speakers, code_len=lengths)).dropped
    assert (dropped["no speaker"], dropped["fewer than 12 codes"]) == (3, 1)


@pytest.mark.parametrize("cap", [1, 2, 50, 1000])
def test_a_cap_takes_whole_targets_at_random(cap: int) -> None:
    pairs, every = make_pairs(clips(), PairLimits(max_pairs=cap)), make_pairs(clips())
    assert len(pairs) == min(cap, len(every))
    kept, whole = (np.bincount(found.target, minlength=55) for found in (pairs, every))
    assert (kept[kept > 0] < whole[kept > 0]).sum() <= 1, "only the last target may lack a prompt"
    assert pairs.dropped.get("beyond max_pairs", 0) == len(set(every.target)) - len(set(pairs.target))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (clips().drop_columns(["speaker"]), "clips have no column 'speaker'; expected id, speaker"),
        (clips(id=["x"] * 55), "ids that occur twice"),
        (clips(code_len=[1] * 55), r"no pairs from 55 clips; left out: {'fewer than 12 codes': 55}"),
        (clips().slice(0, 0), "no pairs from 0 clips; left out: nothing"),
    ],
)
def test_clips_that_make_no_pairs_are_refused_with_the_reason(table: pa.Table, message: str) -> None:
    with pytest.raises(PairError, match=message):
        make_pairs(table)


@pytest.mark.parametrize("name", ["pairs_per_target", "min_text", "min_codes", "max_pairs", "seed"])
def test_limits_out_of_range_are_named(name: str) -> None:
    with pytest.raises(PairError, match=f"{name} is -1, expected at least [01]"):
        PairLimits(**{name: -1})
