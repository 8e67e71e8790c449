from __future__ import annotations

import pytest

from tests.data.pipeline.written import pipeline
from tts_kernel.data.pipeline import count, lengths_of_statistics
from tts_kernel.data.pipeline.memory import memory_of
from tts_kernel.data.pipeline.processors import Filter

LENGTHS = lengths_of_statistics(266, 5.9, 0.4, 6.0)


def test_larger_batches_need_more_and_half_precision_half() -> None:
    small, large = (memory_of(count(pipeline(frames), LENGTHS), "float32") for frames in (400, 2000))
    assert large.llm > 1.5 * small.llm
    assert large.flow > 1.5 * small.flow
    assert large.llm_weights == small.llm_weights
    half = memory_of(count(pipeline(2000), LENGTHS), "bfloat16")
    assert half.largest == pytest.approx(large.largest / 2)


def test_the_guides_batches_fit_a_card_of_16_gb() -> None:
    assert memory_of(count(pipeline(400), LENGTHS), "float32").largest < 8


def test_no_batch_needs_nothing_but_the_weights() -> None:
    nothing = memory_of(count(pipeline().changed(Filter, token_max_length=0), LENGTHS), "float32")
    assert (nothing.llm, nothing.flow) == (0.0, 0.0)
    assert nothing.largest == nothing.llm_weights
