from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tests.models.melotts.tiny_models import clips, draws, duration_discriminator, step, synthesizer
from tts_kernel.models.melotts.discriminators import Judgement
from tts_kernel.models.melotts.layers import real_positions
from tts_kernel.models.melotts.losses import (
    discriminator_loss,
    duration_discriminator_loss,
    duration_generator_loss,
    feature_loss,
    generator_loss,
    judge_durations,
    kl_loss,
    mel_loss,
)

MASK = real_positions(torch.tensor([5, 2]), 5)


def judgements(*logits: float) -> list[Judgement]:
    said = [float(value) for value in logits]
    return [Judgement(torch.full((2, 3), value), [torch.full((2, 4, 3), value)]) for value in said]


def test_perfect_judgements_cost_the_discriminators_nothing_and_the_generator_all() -> None:
    total, of_real, of_synthetic = discriminator_loss(judgements(1, 1), judgements(0, 0))
    assert total == 0
    assert [float(value) for value in of_real + of_synthetic] == [0, 0, 0, 0]
    assert generator_loss(judgements(0, 0))[0] == 2
    total, of_real, of_synthetic = discriminator_loss(judgements(0.5), judgements(3))
    assert (float(total), float(of_real[0]), float(of_synthetic[0])) == (9.25, 0.25, 9)


def test_features_are_matched_layer_by_layer_and_the_recordings_learn_nothing() -> None:
    real, synthetic = judgements(1, 2), judgements(1, 5)
    for said in real + synthetic:
        said.maps[0].requires_grad_()
    loss = feature_loss(real, synthetic)
    assert loss == 6
    loss.backward()
    assert real[1].maps[0].grad is None
    assert synthetic[1].maps[0].grad is not None


def test_mels_are_compared_by_their_mean_distance_in_single_precision() -> None:
    loss = mel_loss(torch.zeros(2, 3, 4, dtype=torch.bfloat16), torch.full((2, 3, 4), -2.0, dtype=torch.bfloat16))
    assert loss == 2
    assert loss.dtype == torch.float32


def test_the_kl_loss_estimates_the_divergence_per_real_frame() -> None:
    random = torch.Generator().manual_seed(1)
    m_q, logs_q, m_p, logs_p = (0.5 * torch.randn(2, 3, 5, generator=random) for _ in range(4))
    exact = (kl_divergence(Normal(m_q, logs_q.exp()), Normal(m_p, logs_p.exp())) * MASK).sum() / MASK.sum()
    samples = 4000
    noise = torch.randn(samples, 2, 3, 5, generator=random)
    every = [value.repeat(samples, 1, 1) for value in (logs_q, m_p, logs_p, MASK)]
    estimate = kl_loss((m_q + noise * logs_q.exp()).flatten(0, 1), *every)
    torch.testing.assert_close(estimate, exact, rtol=0.05, atol=0)


def test_padding_counts_in_no_loss() -> None:
    random = torch.Generator().manual_seed(1)
    latents = [torch.randn(2, 3, 5, generator=random) for _ in range(4)]
    said = [torch.rand(2, 5, 1, generator=random) for _ in range(2)]
    before = kl_loss(*latents, MASK), *duration_losses(*said)
    for value in latents:
        value[1, :, 2:] = 3.0
    for value in said:
        value[1, 2:] = 0.9
    after = kl_loss(*latents, MASK), *duration_losses(*said)
    torch.testing.assert_close(after, before)
    assert duration_losses(*said, reference=True) != duration_losses(*[value.clamp(max=0.5) for value in said])


def duration_losses(recorded: Tensor, predicted: Tensor, reference: bool = False) -> tuple[Tensor, Tensor]:
    total, _, _ = duration_discriminator_loss(recorded, predicted, MASK, reference)
    return total, duration_generator_loss(predicted, MASK, reference)


def test_the_reference_counts_padding_and_adds_rows_up() -> None:
    recorded, predicted = torch.ones(2, 5, 1), torch.zeros(2, 5, 1)
    recorded[1, 2:] = 0.0  # what is said about padding
    total, of_recorded, of_predicted = duration_discriminator_loss(recorded, predicted, MASK)
    assert (float(total), of_recorded.tolist(), of_predicted.tolist()) == (0, [0, 0], [0, 0])
    total, of_recorded, _ = duration_discriminator_loss(recorded, predicted, MASK, reference=True)
    assert float(total) == pytest.approx(0.6)
    assert of_recorded.tolist() == pytest.approx([0, 0.6])
    assert duration_generator_loss(predicted, MASK) == 1
    assert duration_generator_loss(predicted, MASK, reference=True) == 2


@pytest.mark.parametrize("reference", [False, True])
def test_the_duration_predictor_learns_from_its_discriminator_but_not_as_the_reference_calls_it(
    reference: bool,
) -> None:
    model, given, discriminator = synthesizer(), clips(), duration_discriminator()
    said = step(model, given, draws(model, given))
    _, predicted = judge_durations(discriminator, said, for_generator=True, reference=reference)
    duration_generator_loss(predicted, said.prior.mask, reference).backward()
    learned = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert learned == (set() if reference else {f"dp.{name}" for name, _ in model.dp.named_parameters()})


def test_the_discriminators_step_leaves_the_predictor_alone() -> None:
    model, given, discriminator = synthesizer(), clips(), duration_discriminator()
    said = step(model, given, draws(model, given))
    total, _, _ = duration_discriminator_loss(
        *judge_durations(discriminator, said, for_generator=False), said.prior.mask
    )
    total.backward()
    assert all(value.grad is None for value in model.parameters())
    assert all(value.grad is not None for value in discriminator.parameters())


def test_the_reference_swaps_recorded_and_predicted_durations() -> None:
    model, given, discriminator = synthesizer(), clips(), duration_discriminator()
    said = step(model, given, draws(model, given))
    with torch.no_grad():
        discriminator.cond.weight.zero_()
        discriminator.cond.bias.zero_()
    ours = judge_durations(discriminator, said, for_generator=False)
    theirs = judge_durations(discriminator, said, for_generator=False, reference=True)
    torch.testing.assert_close(ours, theirs[::-1])
