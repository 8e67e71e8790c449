from __future__ import annotations

import ctypes
import gc
from dataclasses import replace

import pytest
import torch

from tests.models.cosyvoice2.tiny_models import FLOW, LLM
from tts_kernel.data.pipeline.batches import VoiceBatch
from tts_kernel.lora import Adapted
from tts_kernel.models.cosyvoice2.config import FlowConfig, LLMConfig
from tts_kernel.recipes.cosyvoice2.memory import RESERVE, estimate
from tts_kernel.recipes.cosyvoice2.model import Sizes, fresh, lora_of
from tts_kernel.recipes.cosyvoice2.objective import TokenObjective, VelocityObjective
from tts_kernel.recipes.cosyvoice2.settings import ModelName, Settings
from tts_kernel.training.memory import Peak

SETTINGS = Settings(rank=8)
MIDDLING = Sizes(
    replace(
        LLM,
        speech_token_size=500,
        qwen2=replace(LLM.qwen2, hidden_size=128, intermediate_size=512, num_hidden_layers=6, vocab_size=100),
    ),
    replace(
        FLOW,
        output_size=80,
        input_size=64,
        encoder=replace(FLOW.encoder, output_size=72, linear_units=256),
        estimator=replace(FLOW.estimator, channels=(96,), num_mid_blocks=6, attention_head_dim=32),
    ),
)


def batch(rows: int, tokens: int) -> VoiceBatch:
    random = torch.Generator().manual_seed(1)
    lengths = torch.full((rows,), tokens)
    return VoiceBatch(
        ids=[f"u{number}" for number in range(rows)],
        speakers=["s"] * rows,
        text_tokens=torch.randint(1, 50, (rows, 20), generator=random),
        text_lengths=torch.full((rows,), 20),
        speech_tokens=torch.randint(0, 30, (rows, tokens), generator=random),
        speech_lengths=lengths,
        mel=torch.randn(rows, 2 * tokens, 80, generator=random),
        mel_lengths=2 * lengths,
        embedding=torch.randn(rows, FLOW.spk_embed_dim, generator=random),
    )


def give_back_memory() -> None:
    """What tests before this one have freed and the allocator has kept would hide what this one takes."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pytest.skip("the allocator of this system cannot be asked to give memory back")


@pytest.mark.parametrize("name", ["llm", "flow"])
def test_the_estimate_is_near_what_a_step_takes(name: ModelName) -> None:
    lora = lora_of(SETTINGS, name)
    rows, tokens = (20, 230) if name == "llm" else (8, 100)
    length = tokens + 22 if name == "llm" else 2 * tokens
    needed = estimate(name, MIDDLING, lora, rows, length)
    model = Adapted(fresh(name, MIDDLING), lora)
    objective = TokenObjective(model, 1) if name == "llm" else VelocityObjective(model, 1)
    small, given = batch(1, 8), batch(rows, tokens)
    objective(small)["loss"].backward()  # what is made once is there
    give_back_memory()
    peak = Peak(torch.device("cpu"))
    before = peak.gigabytes()
    objective(given)["loss"].backward()
    after = peak.gigabytes()
    if before is None or after is None:
        pytest.skip("this system does not tell how much memory a process took")
    taken = after - before
    assert taken > 0.1, "too small to be measured"
    assert 0.8 * taken < needed.batch < 1.4 * taken


def test_both_adapters_fit_a_card_of_16_gb_at_the_published_sizes() -> None:
    published = Sizes(LLMConfig(), FlowConfig())
    positions, frames = 3 * (200 + 60 + 2), 400  # the guide's batch of 400 frames
    llm = estimate("llm", published, lora_of(SETTINGS, "llm"), 3, positions // 3)
    flow = estimate("flow", published, lora_of(SETTINGS, "flow"), 1, frames)
    assert llm.weights == pytest.approx(4 * 505.8e6 / 1e9, rel=0.02)
    assert flow.weights == pytest.approx(4 * 112.5e6 / 1e9, rel=0.02)
    assert 3.0 < llm.total < 16.0
    assert 1.5 < flow.total < 16.0


def test_an_adapter_needs_less_than_training_whole_and_more_rows_need_more() -> None:
    adapter = estimate("llm", MIDDLING, lora_of(SETTINGS, "llm"), 2, 50)
    whole = estimate("llm", MIDDLING, None, 2, 50)
    assert adapter.trained < 0.5 * whole.trained
    assert whole.trained == pytest.approx(3 * whole.weights)
    more = estimate("llm", MIDDLING, lora_of(SETTINGS, "llm"), 4, 50)
    assert more.batch == pytest.approx(2 * adapter.batch, rel=0.1)
    assert adapter.total == pytest.approx(adapter.weights + adapter.trained + adapter.batch + RESERVE)
    assert f"{adapter.total:.1f} GB" in str(adapter)
