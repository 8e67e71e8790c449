from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.models.cosyvoice2.tiny_models import FLOW
from tests.parity import fill
from tts_kernel.models.cosyvoice2.encoder import (
    RelativeAttention,
    UpsamplingEncoder,
    by_position,
    relative_positions,
)
from tts_kernel.models.cosyvoice2.masks import attention_mask, real_positions

AHEAD, CHUNK = 3, FLOW.encoder.static_chunk_size
NOISE = torch.Generator().manual_seed(9)


@pytest.fixture
def encoder() -> UpsamplingEncoder:
    module = UpsamplingEncoder(16, 2, AHEAD, FLOW.encoder).eval()
    fill.fill(module)
    return module


def everything(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool)


def test_every_token_becomes_two_frames(encoder: UpsamplingEncoder) -> None:
    for tokens in (1, 2, 9):
        x = torch.randn(2, tokens, 16, generator=NOISE)
        assert encoder(x, everything(x)).shape == (2, 2 * tokens, 24)


@pytest.mark.parametrize("streaming", [False, True])
def test_padding_of_any_content_never_reaches_a_real_frame(encoder: UpsamplingEncoder, streaming: bool) -> None:
    x, lengths = torch.randn(3, 11, 16, generator=NOISE), torch.tensor([11, 6, 8])
    real = real_positions(lengths, 11)
    made = encoder(x, real, streaming=streaming)
    noisy = encoder(x.masked_fill(~real[..., None], 50.0), real, streaming=streaming)
    for row, length in enumerate(lengths.tolist()):
        alone = x[row : row + 1, :length]
        expected = encoder(alone, everything(alone), streaming=streaming)[0]
        torch.testing.assert_close(made[row, : 2 * length], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(noisy[row, : 2 * length], expected, atol=1e-5, rtol=1e-5)


def test_the_references_padding_leaks_into_the_last_tokens_of_short_rows(encoder: UpsamplingEncoder) -> None:
    x, lengths = torch.randn(2, 11, 16, generator=NOISE), torch.tensor([11, 6])
    clean = encoder(x, real_positions(lengths, 11))
    encoder.reference_padding = True
    leaked = encoder(x, real_positions(lengths, 11))
    torch.testing.assert_close(leaked[0], clean[0])
    assert (leaked - clean)[1, :12].abs().max() > 1e-3


def test_in_streaming_what_was_made_stays_when_more_tokens_come(encoder: UpsamplingEncoder) -> None:
    x = torch.randn(1, 3 * CHUNK, 16, generator=NOISE)
    whole = encoder(x, everything(x), streaming=True)
    for chunks in (1, 2):
        so_far, context = x[:, : chunks * CHUNK], x[:, chunks * CHUNK : chunks * CHUNK + AHEAD]
        made = encoder(so_far, everything(so_far), context, streaming=True)
        torch.testing.assert_close(made, whole[:, : made.shape[1]], atol=1e-5, rtol=1e-5)
    full = encoder(x, everything(x))
    assert (full - whole)[:, : 2 * CHUNK].abs().max() > 1e-3  # without chunks the future counts


def test_a_chunk_that_holds_everything_is_no_restriction(encoder: UpsamplingEncoder) -> None:
    x = torch.randn(2, CHUNK, 16, generator=NOISE)
    torch.testing.assert_close(encoder(x, everything(x), streaming=True), encoder(x, everything(x)))


def test_attention_equals_its_formula_position_by_position() -> None:
    attention = RelativeAttention(24, heads=3, dropout=0.0).eval()
    fill.fill(attention)
    n, x = 5, torch.randn(1, 5, 24, generator=NOISE)
    positions = relative_positions(n, 24)
    q, k, v = (layer(x)[0].view(n, 3, 8) for layer in (attention.linear_q, attention.linear_k, attention.linear_v))
    p = attention.linear_pos(positions)[0].view(2 * n - 1, 3, 8)
    outputs = torch.zeros(n, 3, 8)
    for head in range(3):
        for i in range(n):
            scores = torch.stack(
                [
                    (q[i, head] + attention.pos_bias_u[head]) @ k[j, head]
                    + (q[i, head] + attention.pos_bias_v[head]) @ p[n - 1 - (i - j), head]
                    for j in range(n)
                ]
            )
            outputs[i, head] = (scores / math.sqrt(8)).softmax(0) @ v[:, head]
    torch.testing.assert_close(attention(x, positions, None)[0], attention.linear_out(outputs.flatten(1)))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_columns_by_distance_become_columns_by_position(n: int) -> None:
    distance = torch.arange(n - 1, -n - 1, -1).repeat(n, 1)
    expected = torch.arange(n)[:, None] - torch.arange(n)
    assert torch.equal(by_position(distance), expected)


def test_a_mask_lets_a_chunk_see_itself_and_so_many_before() -> None:
    real = real_positions(torch.tensor([6]), 6)
    mask = attention_mask(real, chunk=2, left_chunks=1)
    assert mask is not None
    seen = [row.nonzero()[:, 0].tolist() for row in mask[0, 0]]
    assert seen == [[0, 1], [0, 1], [0, 1, 2, 3], [0, 1, 2, 3], [2, 3, 4, 5], [2, 3, 4, 5]]
    every = attention_mask(real, chunk=2)
    assert every is not None
    assert every[0, 0, -1].all()
    assert attention_mask(real) is None


def test_no_position_is_left_with_nothing_to_look_at() -> None:
    mask = attention_mask(real_positions(torch.tensor([1, 8]), 8), chunk=2, left_chunks=0)
    assert mask is not None
    assert mask.any(-1).all()
