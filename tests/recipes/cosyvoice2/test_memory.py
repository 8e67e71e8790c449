from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from weakref import WeakSet

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from tests.data.pipeline.written import pipeline
from tests.models.cosyvoice2.tiny_models import FLOW, LLM
from tts_kernel.data.pipeline import PipelinePlan
from tts_kernel.data.pipeline.batches import VoiceBatch
from tts_kernel.data.pipeline.lengths import TOKEN_SAMPLES, lengths_of_statistics
from tts_kernel.lora import Adapted
from tts_kernel.models.cosyvoice2.config import FlowConfig, LLMConfig
from tts_kernel.optim.optimizers import OptimizerName, build, parameter_groups, training_mode
from tts_kernel.recipes.cosyvoice2.memory import ALLOWANCE, MOMENTS, RESERVE, estimate, kept_by_step, largest_batches
from tts_kernel.recipes.cosyvoice2.model import Sizes, fresh, lora_of
from tts_kernel.recipes.cosyvoice2.objective import TokenObjective, VelocityObjective
from tts_kernel.recipes.cosyvoice2.settings import ModelName, Settings

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


# Utterances, speech tokens, DoRA.
STEPS = [("llm", 6, 60, False), ("llm", 1, 160, True), ("flow", 4, 50, True), ("flow", 1, 200, False)]


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


def taking(name: ModelName, model: nn.Module) -> TokenObjective | VelocityObjective:
    return TokenObjective(model, 1) if name == "llm" else VelocityObjective(model, 1)


@pytest.mark.parametrize(("name", "rows", "tokens", "dora"), STEPS)
def test_what_a_step_keeps_for_its_backward_pass_is_counted_to_the_percent(
    name: ModelName, rows: int, tokens: int, dora: bool
) -> None:
    lora = lora_of(replace(SETTINGS, train_heads=True, dora=dora), name)
    with torch.device("meta"):
        net = fresh(name, MIDDLING)
        counted = sum(kept_by_step(Adapted(net, lora).train(), net, rows, tokens + 22 if name == "llm" else 2 * tokens))
    model = Adapted(fresh(name, MIDDLING), lora).train()
    with sdpa_kernel(SDPBackend.MATH):
        assert counted == pytest.approx(kept_bytes(model, taking(name, model), batch(rows, tokens)), rel=0.01)
    fused = kept_bytes(model, taking(name, model), batch(rows, tokens))
    assert 0.8 * counted < fused < counted  # what really runs keeps less


def kept_bytes(model: nn.Module, objective: nn.Module, given: VoiceBatch) -> int:
    """Of what autograd still keeps after a forward pass, beside the weights."""
    kept: WeakSet[Kept] = WeakSet()

    def keep(tensor: Tensor) -> Kept:
        kept.add(found := Kept(tensor))
        return found

    with saved_tensors_hooks(keep, lambda found: found.tensor):
        loss = objective(given)["loss"]
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages = [found.tensor.untyped_storage() for found in kept]
    assert loss.requires_grad
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(size for place, size in sizes.items() if place not in weights)


class Kept:
    """Goes with the part of the graph that keeps it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("optimizer", MOMENTS)
@pytest.mark.parametrize("name", ["llm", "flow"])
def test_weights_gradients_and_moments_are_those_of_a_real_step(
    name: ModelName, optimizer: OptimizerName, method: str
) -> None:
    lora = lora_of(SETTINGS, name) if method == "lora" else None
    sizes = Sizes(LLM, replace(FLOW, output_size=80))
    needed = estimate(name, sizes, lora, 2, 20, optimizer=optimizer)
    net = fresh(name, sizes)
    model = Adapted(net, lora) if lora else net
    using = build(optimizer, parameter_groups([model], 1.0, 0.0))
    training_mode(using)
    taking(name, model)(batch(2, 8))["loss"].backward()
    using.step()
    gradients = sum(found.grad.nbytes for found in model.parameters() if found.grad is not None)
    moments = sum(
        value.nbytes
        for state in using.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.dim()  # a count of steps is a number
    )
    assert sum(found.nbytes for found in model.parameters()) == pytest.approx(needed.weights * 1e9)
    # Prodigy keeps the start of a weight only where that is not all zeros, as half of an adapter is.
    spared = 0.25 if optimizer == "prodigy" and lora else 0.02
    assert (1 - spared) * needed.trained < (gradients + moments) / 1e9 <= 1.0001 * needed.trained


def plan_of(frames: list[int], text: list[int], limit: int) -> PipelinePlan:
    """Utterances of so many frames and text tokens."""
    tokens = np.array(frames) // 2
    lengths = replace(
        lengths_of_statistics(len(frames), 4.0, 0.0, 1.0),
        samples=tokens * TOKEN_SAMPLES,
        speech_tokens=tokens.astype(np.int32),
        text_tokens=np.array(text, dtype=np.int32),
    )
    return PipelinePlan(pipeline(limit), lengths)


def test_the_largest_batch_is_sought_among_many_rows_and_among_long_ones() -> None:
    plan = plan_of([50] * 8 + [380] * 3, [5] * 8 + [38] * 3, 400)
    assert largest_batches(plan, "flow") == {(1, 380)}  # nearly as many frames
    assert largest_batches(plan, "llm") == {(8, 32), (1, 230)}
    assert largest_batches(plan_of([900, 60], [1, 1], 400), "flow") == {(1, 900)}  # longer than max_frames_in_batch


def test_a_batch_that_only_a_later_epoch_has_is_found() -> None:
    random = np.random.default_rng(0)
    plan = plan_of(random.integers(40, 200, 700).tolist(), random.integers(1, 60, 700).tolist(), 400)
    positions = plan.lengths.text_tokens + plan.lengths.speech_tokens + 2
    most = []
    for epoch in range(5):
        counted = plan.counted(epoch)
        longest = np.maximum.reduceat(positions[counted.order], counted.starts)
        most.append(int((counted.sizes() * longest**2).max()))
    assert max(most) > most[0], "the first epoch has the largest batch, nothing is shown"
    assert max(rows * length**2 for rows, length in largest_batches(plan, "llm")) == max(most)


def test_long_rows_need_more_than_many_short_ones() -> None:
    lora = lora_of(SETTINGS, "flow")
    assert estimate("flow", MIDDLING, lora, 1, 400).batch > estimate("flow", MIDDLING, lora, 8, 50).batch


def most_bytes(step: Callable[[], object]) -> int:
    """Of the tensors that live at the same time during `step`, beside those from before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        step()
    assert seen.profiler is not None
    events = seen.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate(size for _, size in changes))


@pytest.mark.parametrize(("name", "rows", "tokens", "dora"), STEPS)
def test_the_estimate_is_above_what_a_step_takes_and_near_it(
    name: ModelName, rows: int, tokens: int, dora: bool
) -> None:
    lora = lora_of(replace(SETTINGS, dora=dora), name)
    needed = estimate(name, MIDDLING, lora, rows, tokens + 22 if name == "llm" else 2 * tokens)
    objective = taking(name, Adapted(fresh(name, MIDDLING), lora))
    objective(batch(1, 8))["loss"].backward()  # gradients are there
    with sdpa_kernel(SDPBackend.MATH):
        plain = most_bytes(lambda: objective(batch(rows, tokens))["loss"].backward()) / 1e9
    fused = most_bytes(lambda: objective(batch(rows, tokens))["loss"].backward()) / 1e9
    assert 0.98 * plain < needed.batch / ALLOWANCE < 1.1 * plain
    assert fused < needed.batch / ALLOWANCE < 1.3 * fused


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
