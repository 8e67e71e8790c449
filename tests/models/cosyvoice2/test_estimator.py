from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.cosyvoice2.tiny_models import FLOW
from tests.parity import fill
from tts_kernel.models.cosyvoice2.estimator import CausalEstimator

CHUNK = FLOW.estimator.static_chunk_size


@pytest.fixture
def estimator() -> CausalEstimator:
    module = CausalEstimator(8, FLOW.estimator).eval()
    fill.fill(module)
    return module


def inputs(frames: int, rows: int = 2) -> list[Tensor]:
    """x, real, mu, time, speaker, prompt."""
    random = torch.Generator().manual_seed(4)
    x, mu, prompt = (torch.randn(rows, 8, frames, generator=random) for _ in range(3))
    return [x, torch.ones(rows, 1, frames), mu, torch.rand(rows), torch.randn(rows, 8, generator=random), prompt]


def cut(given: list[Tensor], frames: int) -> list[Tensor]:
    return [value[..., :frames] if value.dim() == 3 else value for value in given]


@pytest.mark.parametrize("streaming", [False, True])
def test_padding_of_any_content_never_reaches_a_real_frame(estimator: CausalEstimator, streaming: bool) -> None:
    given = inputs(2 * CHUNK)
    given[1][1, :, 11:] = 0
    made = estimator(*given, streaming)
    assert not made[1, :, 11:].any()
    alone = estimator(*(value[1:] for value in cut(given, 11)), streaming)
    torch.testing.assert_close(made[1:, :, :11], alone, atol=1e-5, rtol=1e-5)
    for place in (0, 2, 5):
        given[place][1, :, 11:] = 50.0
    torch.testing.assert_close(estimator(*given, streaming), made, atol=1e-5, rtol=1e-5)


def test_in_streaming_what_was_made_stays_when_more_frames_come(estimator: CausalEstimator) -> None:
    given = inputs(3 * CHUNK)
    whole = estimator(*given, True)
    for chunks in (1, 2):
        made = estimator(*cut(given, chunks * CHUNK), True)
        torch.testing.assert_close(made, whole[..., : chunks * CHUNK], atol=1e-5, rtol=1e-5)
    assert (estimator(*given) - whole)[..., :CHUNK].abs().max() > 1e-3  # without chunks the future counts


@pytest.mark.parametrize("place", [0, 2, 3, 4, 5], ids=["x", "mu", "time", "speaker", "prompt"])
def test_every_input_counts(estimator: CausalEstimator, place: int) -> None:
    given = inputs(9)
    before = estimator(*given)
    given[place] = given[place] + 0.5
    assert (estimator(*given) - before).abs().max() > 1e-3


def test_every_parameter_learns(estimator: CausalEstimator) -> None:
    estimator(*inputs(9)).square().mean().backward()
    without = [name for name, value in estimator.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []
