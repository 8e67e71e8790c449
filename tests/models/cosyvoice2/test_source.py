from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.models.cosyvoice2.tiny_models import HIFT
from tests.parity import fill
from tts_kernel.models.cosyvoice2.source import F0Predictor, HarmonicSource, sines

RATE = 24_000


@pytest.fixture
def source() -> HarmonicSource:
    module = HarmonicSource(HIFT)
    fill.fill(module)
    return module


@pytest.mark.parametrize("f0", [100.0, 220.0])
def test_a_steady_pitch_is_a_sine_of_that_frequency_and_its_harmonics(f0: float) -> None:
    made = sines(torch.full((1, 50), f0), 480, harmonics=3, sample_rate=RATE)[0]
    spectrum = torch.fft.rfft(made[2400:21600] * torch.hann_window(19200)[:, None], dim=0).abs()
    loudest = spectrum.argmax(0) * RATE / 19200
    torch.testing.assert_close(loudest, f0 * torch.tensor([1.0, 2.0, 3.0]), atol=RATE / 19200, rtol=0)
    assert made.abs().max() <= 1.0


def test_a_change_of_pitch_is_no_jump() -> None:
    f0 = torch.tensor([[100.0, 200.0, 100.0, 180.0]])
    made = sines(f0, 480, harmonics=1, sample_rate=RATE)[0, :, 0]
    assert made.diff().abs().max() < 1.5 * 2 * math.pi * 200 / RATE


def test_unvoiced_frames_are_noise_and_voiced_ones_sines(source: HarmonicSource) -> None:
    f0 = torch.tensor([[0.0, 10.0, 10.1, 150.0]])
    silent = torch.zeros_like(source.noise_like(f0))
    made, voiced = source(f0, silent)
    per_frame = voiced[0, 0].view(4, 480)
    assert per_frame.amin(1).tolist() == per_frame.amax(1).tolist() == [0.0, 0.0, 1.0, 1.0]
    constant = torch.tanh(source.l_linear.bias).detach()
    torch.testing.assert_close(made[0, 0, :960], constant.expand(960))
    assert made[0, 0, 1440:].std() > 1e-3
    noisy = source(f0, source.noise_like(f0, torch.Generator().manual_seed(1)))[0]
    difference = (noisy - made)[0, 0].view(4, 480).std(1)
    assert difference[:2].min() > 5 * difference[2:].max()  # a third of a sine's amplitude against a deviation of 0.003


def test_noise_repeats_with_its_seed(source: HarmonicSource) -> None:
    f0 = torch.ones(2, 3)
    first, again = (source.noise_like(f0, torch.Generator().manual_seed(7)) for _ in range(2))
    assert first.shape == (2, 3 * HIFT.samples_per_frame, HIFT.nb_harmonics + 1)
    assert torch.equal(first, again)


def test_the_sine_amplitude_is_the_configured_one() -> None:
    module = HarmonicSource(replace(HIFT, nb_harmonics=1, nsf_alpha=0.2))
    with torch.no_grad():
        module.l_linear.weight.copy_(torch.tensor([[1.0, 0.0]]))
        module.l_linear.bias.zero_()
    f0 = torch.full((1, 20), 150.0)
    made, _ = module(f0, torch.zeros_like(module.noise_like(f0)))
    assert float(made.detach().abs().max()) == pytest.approx(math.tanh(0.2), rel=1e-3)


def test_a_predicted_pitch_is_never_negative() -> None:
    predictor = F0Predictor(8, 8)
    fill.fill(predictor)
    made = predictor(torch.randn(2, 8, 11))
    assert made.shape == (2, 11)
    assert (made >= 0).all()
