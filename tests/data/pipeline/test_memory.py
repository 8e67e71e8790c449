from __future__ import annotations

import numpy as np
import pytest

from tests.data.pipeline.written import pipeline
from tts_kernel.data.pipeline import count, lengths_of_statistics
from tts_kernel.data.pipeline.memory import (
    ALLOWANCE,
    FLOW_WEIGHTS,
    GB,
    LLM_WEIGHTS,
    RESERVE,
    flow_bytes,
    llm_bytes,
    memory_of,
)
from tts_kernel.data.pipeline.processors import Filter

LENGTHS = lengths_of_statistics(266, 5.9, 0.4, 6.0)


def test_larger_batches_need_more_and_half_precision_less_beside_a_second_copy_of_the_weights() -> None:
    small, large = (memory_of(count(pipeline(frames), LENGTHS), "float32") for frames in (400, 4000))
    assert large.llm > 1.5 * small.llm
    assert large.flow > 1.5 * small.flow
    assert large.llm_weights == small.llm_weights
    half = memory_of(count(pipeline(4000), LENGTHS), "bfloat16")
    assert 0.5 * large.llm < half.llm < 0.75 * large.llm
    assert half.llm_weights == 1.5 * large.llm_weights
    assert half.largest < large.largest


def test_the_guides_batches_fit_a_card_of_16_gb() -> None:
    assert 4 < memory_of(count(pipeline(400), LENGTHS), "float32").largest < 16


def test_no_batch_needs_nothing_but_the_weights() -> None:
    nothing = memory_of(count(pipeline().changed(Filter, token_max_length=0), LENGTHS), "float32")
    assert (nothing.llm, nothing.flow) == (0.0, 0.0)
    assert nothing.largest == nothing.llm_weights + RESERVE


@pytest.mark.slow
def test_it_is_what_the_recipe_counts_on_the_published_sizes() -> None:
    from tts_kernel.models.cosyvoice2.config import FlowConfig, LLMConfig
    from tts_kernel.recipes.cosyvoice2 import memory
    from tts_kernel.recipes.cosyvoice2.model import Sizes, lora_of
    from tts_kernel.recipes.cosyvoice2.settings import Settings

    assert (ALLOWANCE, RESERVE) == (memory.ALLOWANCE, memory.RESERVE)
    settings, sizes = Settings(), Sizes(LLMConfig(), FlowConfig())
    llm = memory.estimate("llm", sizes, lora_of(settings, "llm"), 2, 600)
    flow = memory.estimate("flow", sizes, lora_of(settings, "flow"), 2, 600)
    batch = np.array(2), np.array(600)
    assert float(llm_bytes(*batch)) / GB == pytest.approx(llm.batch, rel=0.05)
    assert float(flow_bytes(*batch)) / GB == pytest.approx(flow.batch, rel=0.05)
    assert llm.weights + llm.trained == pytest.approx(LLM_WEIGHTS, rel=0.02)
    assert flow.weights + flow.trained == pytest.approx(FLOW_WEIGHTS, rel=0.02)
