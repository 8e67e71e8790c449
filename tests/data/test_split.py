from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import write_rows
from tts_kernel.data.manifest import Manifest, ManifestError, read_manifest
from tts_kernel.data.split import FEWEST, HoldOutBy, held_units, hold_out, leaks

BY: tuple[HoldOutBy, ...] = ("clip", "recording", "speaker")


class Corpus:
    """Clips of Emilia's naming, 4 a recording, 5 recordings a speaker, paired with the next ones of its speaker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, clips: int, pairs: int = 3) -> list[dict[str, Any]]:
        names = [f"S{n // 20:03d}_R{n // 4:03d}_W{n:04d}" for n in range(clips)]
        rows = []
        for number, target in enumerate(names):
            own = [name for name in names if name[:4] == target[:4]]
            for step in range(1, pairs + 1):
                prompt = own[(number % 20 + step) % len(own)]
                paths = {"target_text_ids_path": f"text_ids/{target}.npy", "target_codes_path": f"codes/{target}.npy"}
                ids = {"id": f"{target}__{prompt}_{step}", "target_id": target, "prompt_id": prompt}
                rows.append(ids | {"speaker": target[:4], "target_text_len": 3, "target_code_len": 4} | paths)
        return rows

    def manifest(self, rows: list[dict[str, Any]]) -> Manifest:
        write_rows(self.folder / "pairs.jsonl", rows)
        return read_manifest(self.folder / "pairs.jsonl")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def held_clips(manifest: Manifest, share: float, by: HoldOutBy = "clip") -> set[str]:
    return set(manifest.take(np.flatnonzero(hold_out(manifest, share, by).validation)).strings("target_id").to_pylist())


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("seed", range(3))
def test_the_same_clips_are_held_out_whatever_the_order_of_the_rows(corpus: Corpus, seed: int, by: HoldOutBy) -> None:
    rows = corpus.rows(200)
    expected = held_clips(corpus.manifest(rows), 0.2, by)
    np.random.default_rng(seed).shuffle(rows)
    assert held_clips(corpus.manifest(rows), 0.2, by) == expected


@pytest.mark.parametrize("by", BY)
def test_nothing_held_out_is_trained_on_and_every_row_is_accounted_for(corpus: Corpus, by: HoldOutBy) -> None:
    manifest = corpus.manifest(corpus.rows(200))
    split = hold_out(manifest, 0.3, by)
    assert split.validation.any()
    assert split.train.any()
    np.testing.assert_array_equal(split.train * 1 + split.validation + split.between, 1)
    train, validation = (manifest.take(np.flatnonzero(side)) for side in (split.train, split.validation))
    assert leaks(train, validation, by) == {}
    width = {"clip": None, "recording": 9, "speaker": 4}[by]
    held = {name[:width] for name in validation.strings("target_id").to_pylist()}
    for role in ("target_id", "prompt_id"):
        assert not held & {name[:width] for name in train.strings(role).to_pylist()}
    assert split.between.any() == (by != "speaker"), "a prompt has its target's speaker"


@pytest.mark.parametrize("role", ["target_id", "prompt_id"])
def test_a_leak_is_named_by_what_it_is(corpus: Corpus, role: str) -> None:
    manifest = corpus.manifest(corpus.rows(200))
    split = hold_out(manifest, 0.3, "speaker")
    validation = manifest.take(np.flatnonzero(split.validation))
    clip = validation.strings("target_id")[0].as_py()
    rows = corpus.rows(200)
    speakers = set(validation.strings("speaker").to_pylist())
    kept = [row for row in rows if row["speaker"] not in speakers]
    kept[0] |= {role: clip}
    train = corpus.manifest(kept)
    assert leaks(train, validation, "clip") == {"clip": [clip]}
    assert leaks(train, validation, "recording") == {"clip": [clip], "recording": [clip[:9]]}
    kept[1] |= {"speaker": "S000" if "S000" in speakers else sorted(speakers)[0]}
    found = leaks(corpus.manifest(kept), validation, "speaker")
    assert found["speaker"] == [kept[1]["speaker"]]


def test_a_field_recording_says_which_clips_belong_together(corpus: Corpus) -> None:
    rows = corpus.rows(200)
    for row in rows:
        number = int(row["target_id"][-4:])
        row |= {"recording": f"tape {number % 7}"}
    manifest = corpus.manifest(rows)
    split = hold_out(manifest, 0.3, "recording")
    held = {int(name[-4:]) % 7 for name in held_clips(manifest, 0.3, "recording")}
    assert 1 <= len(held) <= 2
    train = manifest.take(np.flatnonzero(split.train))
    for role in ("target_id", "prompt_id"):
        assert not held & {int(name[-4:]) % 7 for name in train.strings(role).to_pylist()}


def test_clips_that_do_not_tell_their_recording_cannot_be_split_by_it(corpus: Corpus) -> None:
    rows = corpus.rows(200)
    rows[7] |= {"target_id": "clip7"}
    with pytest.raises(ManifestError, match=r"pairs\.jsonl:8: target_id 'clip7' does not tell its recording; give"):
        hold_out(corpus.manifest(rows), 0.2, "recording")


def test_one_speaker_cannot_be_held_out_from_itself(corpus: Corpus) -> None:
    with pytest.raises(ManifestError, match="1 speakers, too few to hold out 10% by speaker"):
        hold_out(corpus.manifest(corpus.rows(20)), 0.1, "speaker")


@pytest.mark.parametrize(
    ("clips", "share", "held"),
    [
        (1000, 0.2, 200),
        (1000, 0.01, FEWEST),  # a share too small to measure anything
        (200, 0.01, 20),  # but never more than a tenth for that
        (5, 0.5, 2),
    ],
)
def test_the_share_says_how_many_clips_but_enough_to_measure_are_held_out(
    corpus: Corpus, clips: int, share: float, held: int
) -> None:
    assert len(held_clips(corpus.manifest(corpus.rows(clips, pairs=1)), share)) == held


def test_a_larger_share_holds_out_the_same_clips_and_more(corpus: Corpus) -> None:
    manifest = corpus.manifest(corpus.rows(300))
    assert held_clips(manifest, 0.2) < held_clips(manifest, 0.4)


def test_more_pairs_of_a_clip_do_not_change_the_choice(corpus: Corpus) -> None:
    few = held_clips(corpus.manifest(corpus.rows(100, pairs=1)), 0.2)
    assert few == held_clips(corpus.manifest(corpus.rows(100, pairs=5)), 0.2)


def test_a_prompt_that_is_no_target_is_held_out_with_its_recording(corpus: Corpus) -> None:
    """A cap on pairs leaves clips that are prompts only."""
    rows = corpus.rows(200)
    for row in rows:
        row |= {"recording": row["target_id"][:9], "prompt_recording": row["prompt_id"][:9]}
    only_prompts = {row["prompt_id"] for row in rows if int(row["prompt_id"][-4:]) % 4 == 0}
    kept = [row for row in rows if row["target_id"] not in only_prompts]
    bare = [{name: value for name, value in row.items() if name != "prompt_recording"} for row in kept]
    for given in (kept, bare):  # told by the field, or by the name
        manifest = corpus.manifest(given)
        split = hold_out(manifest, 0.3, "recording")
        held = {row["recording"] for row, out in zip(given, split.validation, strict=True) if out}
        trained = [row for row, there in zip(given, split.train, strict=True) if there]
        assert held
        assert not held & {row["prompt_id"][:9] for row in trained}
    odd = [row | {"recording": "tape " + row["recording"]} for row in bare]
    with pytest.raises(ManifestError, match=r"prompt_id '.*' is no target, so nothing tells its recording"):
        hold_out(corpus.manifest(odd), 0.3, "recording")


def test_a_unit_much_larger_than_the_share_is_not_held_out() -> None:
    units = np.repeat(np.arange(11, dtype=np.uint64), [900, *[10] * 10])
    for shift in range(20):  # whatever its key
        held = held_units((units + np.uint64(shift)) % np.uint64(23), 0.1)
        assert 1 <= np.isin((units + np.uint64(shift)) % np.uint64(23), held).sum() <= 150
    assert len(held_units(np.zeros(10, np.uint64), 0.1)) == 0
