"""Dropout attention against its definition, and that fused kernels are really taken, by what the profiler saw."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from tests.tiny_voice import CONFIG, LATENTS, random_clips, voice
from tts_kernel.models.attention import BLOCK, attend, causal_dropout_attention

MATH, FUSED = "aten::_scaled_dot_product_attention_math", "aten::_scaled_dot_product_flash_attention_for_cpu"
BLOCKS = "_Blocks"


def inputs(tokens: int, size: int = 8, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    random = torch.Generator().manual_seed(4)
    shape = (2, 3, tokens, size)
    return [torch.randn(shape, generator=random, dtype=dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("tokens", [1, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 30])
def test_with_nothing_dropped_it_is_causal_attention(tokens: int) -> None:
    ours, theirs = inputs(tokens), inputs(tokens)
    output = causal_dropout_attention(*ours, dropout=0.0, scale=0.3)
    expected = scaled_dot_product_attention(*theirs, is_causal=True, scale=0.3)
    torch.testing.assert_close(output, expected)
    (output * torch.arange(8)).sum().backward()
    (expected * torch.arange(8)).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=2e-5, rtol=1e-4)


def test_weights_are_dropped_at_their_rate_and_the_others_scaled_up() -> None:
    tokens, dropout = 150, 0.25
    query, key, _ = inputs(tokens)
    value = torch.eye(tokens).expand(2, 3, tokens, tokens)  # the output is the weights
    torch.manual_seed(0)
    weights = causal_dropout_attention(query, key, value, dropout, 0.3)
    full = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3) / (1 - dropout)
    past = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    kept = weights != 0
    assert not kept[..., ~past].any()
    torch.testing.assert_close(weights[kept], full[kept])
    share = 1 - kept[..., past].double().mean().item()
    deviation = math.sqrt(dropout * (1 - dropout) / kept[..., past].numel())
    assert abs(share - dropout) < 5 * deviation


def test_the_gradient_is_that_of_what_was_dropped() -> None:
    def seeded(*tensors: Tensor) -> Tensor:
        torch.manual_seed(0)
        return causal_dropout_attention(*tensors, dropout=0.3, scale=0.5)

    assert torch.autograd.gradcheck(seeded, inputs(BLOCK + 3, size=2, dtype=torch.float64), fast_mode=True)


def test_bfloat16_stays_bfloat16_under_autocast() -> None:
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in inputs(70)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = causal_dropout_attention(*half, dropout=0.0, scale=0.3)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    expected = scaled_dot_product_attention(*inputs(70), is_causal=True, scale=0.3)
    torch.testing.assert_close(output.float(), expected, atol=0.05, rtol=0.05)
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in half)


def ran(call: Callable[[], object]) -> set[str]:
    """Names of the operations."""
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        call()
    return {event.key for event in watched.key_averages()}


@pytest.mark.parametrize(
    ("dropout", "masked", "eager", "expected"),
    [
        (0.1, False, False, BLOCKS),
        (0.0, False, False, FUSED),
        (0.0, True, False, FUSED),
        (0.1, True, False, MATH),
        (0.1, False, True, MATH),
        (0.0, False, True, MATH),
    ],
)
def test_which_kernel_is_taken(dropout: float, masked: bool, eager: bool, expected: str) -> None:
    query, key, value = inputs(20)
    mask = torch.ones(2, 1, 20, 20, dtype=torch.bool).tril() if masked else None

    def call() -> None:
        attend(nn.Module(), query, key, value, mask, dropout=dropout)

    if eager:
        with sdpa_kernel(SDPBackend.MATH):
            seen = ran(call)
    else:
        seen = ran(call)
    assert expected in seen
    assert not {MATH, FUSED, BLOCKS} - {expected} & seen


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("eager", [False, True])
def test_no_attention_of_a_training_step_is_computed_the_slow_way_unless_asked(dropout: float, eager: bool) -> None:
    model, clips = voice(dropout=dropout, emo_mel_input_size=20).train(), random_clips()

    def step() -> None:
        emotion = model.emotion_vector(clips.features, clips.feature_lengths)
        latents = model.speaker_latents(clips.features, clips.feature_lengths)
        assert latents.shape[1:] == LATENTS
        said = model(
            model.conditions(latents, emotion), clips.text, clips.text_lengths, clips.codes, clips.code_lengths
        )
        said.code_logits.sum().backward()

    if not eager:
        seen = ran(step)
        assert MATH not in seen
        assert FUSED in seen  # the conditioners', which have no dropout
        assert (BLOCKS in seen) == (dropout > 0)
        return
    with sdpa_kernel(SDPBackend.MATH):
        seen = ran(step)
    assert MATH in seen
    assert not {FUSED, BLOCKS} & seen


def test_fused_and_eager_attention_say_the_same() -> None:
    model, clips = voice(), random_clips()
    assert CONFIG.condition_module.num_blocks

    def latents() -> Tensor:
        return model.speaker_latents(clips.features, clips.feature_lengths)

    with sdpa_kernel(SDPBackend.MATH):
        plain = latents()
    torch.testing.assert_close(latents(), plain, atol=1e-5, rtol=1e-5)
