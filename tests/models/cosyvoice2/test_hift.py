from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.cosyvoice2.tiny_models import HIFT, vocoder
from tts_kernel.models.cosyvoice2.hift import LOUDEST, HiftGenerator, Snake


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mel(frames: int = 6, rows: int = 1) -> Tensor:
    return torch.randn(rows, 8, frames, generator=seeded(2))


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_every_frame_becomes_480_samples(frames: int) -> None:
    assert HIFT.samples_per_frame == 480
    wave, f0 = vocoder()(mel(frames, rows=2), seeded())
    assert wave.shape == (2, 480 * frames)
    assert f0.shape == (2, frames)


@torch.no_grad()
def test_a_wave_stays_within_its_limit_and_is_not_silent() -> None:
    model = vocoder()
    wave, _ = model(mel(), seeded())
    assert 1e-3 < wave.abs().max() < HIFT.audio_limit
    model.conv_post.parametrizations.weight.original0 *= 1000.0  # type: ignore[union-attr]
    loud, _ = model(mel(), seeded())
    assert loud.abs().max() == pytest.approx(HIFT.audio_limit)
    assert loud.isfinite().all()


def test_the_same_seed_gives_the_same_wave() -> None:
    model = vocoder()
    first, again, other = (model(mel(), seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_pitch_of_a_wave_is_that_of_its_mel() -> None:
    model = vocoder()
    _, f0 = model(mel(), seeded())
    torch.testing.assert_close(f0, model.f0_predictor(mel()))


def test_every_parameter_learns() -> None:
    model = vocoder().train()
    wave, f0 = model(mel(), seeded())
    (wave.square().mean() + f0.mean()).backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_an_inverse_stft_undoes_the_stft() -> None:
    model = HiftGenerator(HIFT)
    wave = 0.3 * torch.sin(torch.arange(480.0) / 7)[None]
    real, imaginary = model._stft(wave).chunk(2, dim=1)
    spectrum = torch.complex(real, imaginary)
    torch.testing.assert_close(model.inverse_stft(spectrum.abs(), spectrum.angle()), wave, atol=1e-5, rtol=0)


def test_magnitudes_are_clipped_before_they_become_a_wave() -> None:
    model, phase = HiftGenerator(HIFT), torch.zeros(1, 9, 13)
    limit = model.inverse_stft(torch.full_like(phase, LOUDEST), phase)
    torch.testing.assert_close(model.inverse_stft(torch.full_like(phase, 1e30), phase), limit)


def test_a_snake_adds_a_squared_sine() -> None:
    snake = Snake(2)
    with torch.no_grad():
        snake.alpha.copy_(torch.tensor([1.0, 0.5]))
    x = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    expected = torch.tensor([[[0.0, 1 + torch.tensor(1.0).sin() ** 2], [0.0, 1 + 2 * torch.tensor(0.5).sin() ** 2]]])
    torch.testing.assert_close(snake(x), expected)
