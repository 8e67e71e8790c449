from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tts_kernel.models.flow_matching import ConditionalFlowMatching, Conditions, Draws, cosine_times

MEL = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2))
REAL = torch.ones(2, 1, 6)


class Straight(nn.Module):
    """The true velocity towards `mu`, from wherever x is; towards 0 without conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def forward(
        self, x: Tensor, real: Tensor, mu: Tensor, time: Tensor, speaker: Tensor, prompt: Tensor, streaming: bool
    ) -> Tensor:
        self.seen.append({"x": x, "mu": mu, "time": time, "speaker": speaker, "prompt": prompt, "streaming": streaming})
        return (mu - x) / (1.0 - time[:, None, None])


def matching(rate: float = 0.0, sigma: float = 1e-6) -> tuple[ConditionalFlowMatching, Straight]:
    estimator = Straight()
    return (
        ConditionalFlowMatching(estimator, sigma_min=sigma, training_cfg_rate=0.2, inference_cfg_rate=rate),
        estimator,
    )


def conditions() -> Conditions:
    return Conditions(MEL, torch.ones(2, 4), torch.ones(2, 4, 6))


def draws(time: float, chance: float = 1.0) -> Draws:
    noise = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(3))
    return Draws(torch.full((2,), time), noise, torch.full((2,), chance))


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_a_straight_flow_arrives_in_any_number_of_steps(steps: int) -> None:
    flow, _ = matching()
    torch.testing.assert_close(flow.solve(draws(0).noise, REAL, conditions(), steps), MEL, atol=1e-4, rtol=1e-4)


def test_guidance_goes_beyond_the_condition_by_its_rate() -> None:
    flow, _ = matching(rate=0.7)
    made = flow.solve(torch.zeros_like(MEL), REAL, conditions(), steps=1)
    torch.testing.assert_close(made, 1.7 * MEL)


def test_the_unconditional_half_sees_no_condition() -> None:
    flow, estimator = matching()
    flow.solve(draws(0).noise, REAL, conditions(), steps=2, streaming=True)
    assert len(estimator.seen) == 2
    for call in estimator.seen:
        assert call["streaming"]
        assert torch.equal(call["x"][:2], call["x"][2:])
        for name in ("mu", "speaker", "prompt"):
            assert call[name][:2].any()
            assert not call[name][2:].any()


@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_training_starts_at_noise_and_ends_at_the_mel(time: float) -> None:
    flow, estimator = matching(sigma=0.0)
    drawn = draws(time)
    flow(MEL, REAL, conditions(), drawn)
    torch.testing.assert_close(estimator.seen[0]["x"], (1 - time) * drawn.noise + time * MEL)


def test_the_right_velocity_costs_nothing_and_padding_never_counts() -> None:
    flow, _ = matching(sigma=0.0)
    real = REAL.clone()
    real[1, :, 4:] = 0
    said = flow(MEL, real, conditions(), draws(0.5))
    assert said.loss < 1e-9
    assert said.values == 4 * (6 + 4)
    wrong = type(said)(said.target + real + 100.0 * (1 - real), said.target, real)
    torch.testing.assert_close(wrong.loss, torch.tensor(1.0))


@pytest.mark.parametrize(("chance", "kept"), [(0.2, False), (0.21, True)])
def test_conditions_are_dropped_all_together_at_the_training_rate(chance: float, kept: bool) -> None:
    flow, estimator = matching()
    flow(MEL, REAL, conditions(), draws(0.5, chance))
    assert [bool(estimator.seen[0][name].any()) for name in ("mu", "speaker", "prompt")] == [kept] * 3


def test_cosine_times_rise_from_0_to_1_and_start_slowly() -> None:
    times = cosine_times(torch.linspace(0, 1, 11))
    torch.testing.assert_close(times[[0, 5, 10]], torch.tensor([0.0, 1 - 0.5**0.5, 1.0]))
    assert (times.diff().diff() > 0).all()
