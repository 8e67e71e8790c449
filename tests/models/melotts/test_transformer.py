from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.models.melotts.tiny_models import speaker, without_gradient
from tests.parity import fill
from tts_kernel.models.melotts.layers import real_positions
from tts_kernel.models.melotts.transformer import WINDOW, RelativeAttention, RelativeTransformer, neighbours


def transformer() -> RelativeTransformer:
    model = RelativeTransformer(8, 12, 2, 3, 3, 0.1, 5).eval()
    fill.fill(model)
    return model


def frames(rows: int, n: int) -> Tensor:
    return torch.randn(rows, 8, n, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("n", [1, 2, WINDOW, WINDOW + 1, 13])
def test_neighbours_beyond_an_edge_are_not_there(n: int) -> None:
    places, real = neighbours(n, torch.device("cpu"))
    for here in range(n):
        around = [there for there in range(here - WINDOW, here + WINDOW + 1) if 0 <= there < n]
        assert places[here][real[here]].tolist() == around
        assert real[here].nonzero()[:, 0].tolist() == [there - here + WINDOW for there in around]
    assert places.min() >= 0
    assert places.max() < n


def test_attention_adds_a_vector_for_each_distance_to_keys_and_values() -> None:
    attention = RelativeAttention(8, 2, 0.1).eval()
    fill.fill(attention)
    n = 7
    x = frames(1, n)
    query, key, value = (conv(x)[0].view(2, 4, n) for conv in (attention.conv_q, attention.conv_k, attention.conv_v))
    output = torch.zeros(2, 4, n)
    for head in range(2):
        for here in range(n):
            near = [there - here + WINDOW if abs(there - here) <= WINDOW else None for there in range(n)]
            keys = [key[head, :, j] + (0 if d is None else attention.emb_rel_k[0, d]) for j, d in enumerate(near)]
            values = [value[head, :, j] + (0 if d is None else attention.emb_rel_v[0, d]) for j, d in enumerate(near)]
            weights = torch.stack([query[head, :, here] @ k / math.sqrt(4) for k in keys]).softmax(0)
            output[head, :, here] = sum(w * v for w, v in zip(weights, values, strict=True))
    mask = torch.ones(1, 1, n, dtype=torch.bool)
    torch.testing.assert_close(attention(x, mask), attention.conv_o(output.view(1, 8, n)), rtol=1e-4, atol=1e-5)


def test_padding_changes_no_real_position_and_stays_zero() -> None:
    model, x = transformer(), frames(2, 11)
    mask = real_positions(torch.tensor([11, 6]), 11)
    both = model(x, mask, speaker(2))
    torch.testing.assert_close(both[1:, :, :6], model(x[1:, :, :6], mask[1:, :, :6], speaker(2)[1:]))
    assert not both[1, :, 6:].any()
    x[1, :, 6:] = 1e3
    torch.testing.assert_close(model(x, mask, speaker(2)), both)


def test_the_speaker_is_heard_and_every_parameter_learns() -> None:
    model, x, mask = transformer(), frames(2, 9), torch.ones(2, 1, 9, dtype=torch.bool)
    said = model(x, mask, speaker(2))
    assert not torch.allclose(said, model(x, mask, speaker(2).flip(0)))
    (said * torch.randn(said.shape)).sum().backward()
    assert [name for name in without_gradient(model) if not name.endswith("conv_k.bias")] == []
