from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.melotts.tiny_models import duration_discriminator, speaker, without_gradient
from tests.parity import fill
from tts_kernel.models.melotts.discriminators import (
    PERIODS,
    MultiPeriodDiscriminator,
    PeriodDiscriminator,
    halves,
)
from tts_kernel.models.melotts.layers import real_positions
from tts_kernel.models.melotts.losses import discriminator_loss


@pytest.fixture(scope="module")
def of_waves() -> MultiPeriodDiscriminator:
    model = MultiPeriodDiscriminator().eval()
    fill.fill(model)
    return model


def wave(rows: int, samples: int) -> Tensor:
    return torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(samples))


def test_recordings_and_synthetic_voices_may_share_a_batch(of_waves: MultiPeriodDiscriminator) -> None:
    with torch.no_grad():
        real, synthetic = wave(1, 500), wave(1, 500).flip(-1)
        together = halves(of_waves(torch.cat([real, synthetic])))
        for half, expected in zip(together, (of_waves(real), of_waves(synthetic)), strict=True):
            for said, alone in zip(half, expected, strict=True):
                torch.testing.assert_close(said.logits, alone.logits)
                for one, other in zip(said.maps, alone.maps, strict=True):
                    torch.testing.assert_close(one, other)


def test_every_parameter_learns() -> None:
    model = MultiPeriodDiscriminator()
    total, _, _ = discriminator_loss(*halves(model(wave(2, 400))))
    total.backward()
    assert without_gradient(model) == []


@pytest.mark.parametrize("period", PERIODS[:2])
def test_a_period_hears_only_its_own_samples(period: int) -> None:
    """Before the columns' logits are joined no column knows of another."""
    x = wave(1, 60).requires_grad_()
    said = PeriodDiscriminator(period)(x)
    said.maps[-1][..., 0].sum().backward()
    assert x.grad is not None
    heard = x.grad[0, 0].nonzero()[:, 0] % period
    assert set(heard.tolist()) == {0}


@pytest.mark.parametrize("samples", [59, 60])
def test_any_number_of_samples_is_judged(samples: int) -> None:
    assert PeriodDiscriminator(5)(wave(2, samples)).logits.shape[0] == 2


def durations() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden, mask, recorded and predicted log durations."""
    random = torch.Generator().manual_seed(5)
    hidden, recorded, predicted = (torch.randn(3, size, 7, generator=random) for size in (8, 1, 1))
    return hidden, real_positions(torch.tensor([7, 4, 6]), 7), recorded, predicted


def test_padding_changes_no_judgement_of_a_real_token() -> None:
    model, given = duration_discriminator(), durations()
    both = model(*given, speaker())
    alone = model(*(value[1:2, :, :4] for value in given), speaker()[1:2])
    for said, expected in zip(both, alone, strict=True):
        torch.testing.assert_close(said[1:2, :4], expected)


def test_only_durations_and_the_discriminator_learn() -> None:
    model = duration_discriminator()
    hidden, mask, recorded, predicted = durations()
    voice = speaker()
    for value in (hidden, recorded, predicted, voice):
        value.requires_grad_()
    of_recorded, of_predicted = model(hidden, mask, recorded, predicted, voice)
    assert ((of_recorded > 0) & (of_recorded < 1)).all()
    (of_recorded.sum() + of_predicted.square().sum()).backward()
    assert hidden.grad is None
    assert voice.grad is None
    assert recorded.grad is not None
    assert predicted.grad is not None
    assert without_gradient(model) == []


def test_equal_durations_get_equal_judgements_and_the_speaker_matters() -> None:
    model = duration_discriminator()
    hidden, mask, recorded, _ = durations()
    first, second = model(hidden, mask, recorded, recorded, speaker())
    assert torch.equal(first, second)
    assert not torch.allclose(first, model(hidden, mask, recorded, recorded)[0])
