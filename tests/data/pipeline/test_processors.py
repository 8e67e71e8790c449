from __future__ import annotations

from typing import Any

import pytest

from tests.data.pipeline.written import pipeline
from tts_kernel.data.pipeline import PipelineError, build
from tts_kernel.data.pipeline.processors import MEL, Batching, ComputeFbank, Filter, Padding, Shuffle

BATCH: tuple[str, dict[str, Any]] = ("batch", {"batch_type": "dynamic"})


def test_what_is_not_named_is_filled_in_where_it_belongs() -> None:
    made = build([("filter", {}), ("sort", {}), BATCH])
    before, behind = ["parquet_opener", "tokenize"], ["resample", "compute_fbank", "parse_embedding"]
    assert str(made).split(" -> ") == [*before, "filter", *behind, "sort", "batch", "padding"]
    assert made.filled_in == (*before, *behind, "padding")


def test_the_order_of_the_source_is_kept() -> None:
    made = build([("shuffle", {}), ("sort", {}), ("filter", {}), BATCH])
    assert str(made).endswith("shuffle -> sort -> filter -> batch -> padding")


def test_every_problem_is_in_one_error() -> None:
    layout: list[tuple[str, dict[str, Any]]] = [
        ("filtr", {}),
        ("filter", {"token_max_lenght": 400, "min_length": -1}),
        ("sort", {"sort_size": "many"}),
        ("shuffle", {"_size": 3}),
        BATCH,
    ]
    with pytest.raises(PipelineError) as caught:
        build(layout, "conf.yaml")
    said = str(caught.value)
    assert said.startswith("conf.yaml: 5 problems:")
    for expected in (
        "processor 'filtr': unknown; did you mean filter?",
        "processor filter: token_max_lenght: not a parameter; did you mean token_max_length?",
        "processor filter: min_length: found -1",
        "processor sort: sort_size: found 'many'",
        "processor shuffle: _size: no setting; known are shuffle_size",
    ):
        assert expected in said


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ([("filter", {})], "processor batch: missing"),
        ([("filter", {}), ("tokenize", {}), BATCH], "filter: stands before tokenize"),
        ([BATCH, ("sort", {})], "sort: stands behind batch"),
        ([("padding", {}), BATCH], "padding: stands before batch"),
        ([BATCH, BATCH], "batch: named twice"),
        ([("filter", {}), ("parquet_opener", {}), BATCH], "parquet_opener: expected first"),
        ([("filter", {"min_length": 10, "max_length": 5}), BATCH], "min_length and max_length: found 10 and 5"),
        ([("shuffle", {"shuffle_size": 1}), BATCH], "shuffle_size: found 1"),
        ([("filter", ["max_length"]), BATCH], "expected settings by name"),
        ([("resample", {"resample_rate": 22050}), BATCH], "resample_rate: found 22050"),
    ],
)
def test_an_order_or_value_that_cannot_work_is_refused(layout: list[tuple[str, Any]], reason: str) -> None:
    with pytest.raises(PipelineError, match=reason):
        build(layout)


def test_another_mel_than_the_models_is_refused() -> None:
    assert build([("compute_fbank", {"feat_extractor": MEL}), BATCH]).of(ComputeFbank)
    with pytest.raises(PipelineError, match=r"hop_size 256 \(the model's is 480\)"):
        build([("compute_fbank", {"feat_extractor": MEL | {"hop_size": 256}}), BATCH])


def test_one_setting_is_changed_and_the_others_stay() -> None:
    made = pipeline(token_max_length=50)
    changed = made.changed(Batching, max_frames_in_batch=1000)
    assert changed.batching.max_frames_in_batch == 1000
    assert changed.of(Filter) == made.of(Filter)
    without = build([BATCH])
    assert without.of(Shuffle) is None
    assert str(without.changed(Shuffle, shuffle_size=7)).endswith("shuffle -> batch -> padding")


def test_an_option_that_has_no_effect_here_is_refused() -> None:
    assert build([BATCH, ("padding", {"use_spk_embedding": True})]).of(Padding) == Padding(use_spk_embedding=True)
    with pytest.raises(PipelineError, match="dpo"):
        build([BATCH, ("padding", {"dpo": True})])
