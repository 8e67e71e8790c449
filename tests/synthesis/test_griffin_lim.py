from __future__ import annotations

import numpy as np
import pytest
import torch

from tts_kernel.audio.spectrogram import cosyvoice2_mel
from tts_kernel.synthesis.griffin_lim import LIMIT, GriffinLim


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vowel(seconds: float = 0.6) -> torch.Tensor:
    """(1, samples): ten harmonics of a gliding pitch in a little noise."""
    time = torch.arange(int(seconds * 24_000)) / 24_000
    phase = 2 * torch.pi * (150 * time + 40 * time**2)
    waves = torch.stack([torch.sin(number * phase) for number in range(1, 11)]).sum(0)
    return (0.05 * waves + 0.005 * torch.randn(len(time), generator=seeded(7)))[None]


def test_the_mel_of_what_it_makes_is_the_mel_it_was_given() -> None:
    mel, of = cosyvoice2_mel()(vowel()), cosyvoice2_mel()
    made = GriffinLim()(mel, seeded())
    assert len(made) == mel.shape[2] * 480
    inside = slice(4, -4)

    def error(wav: torch.Tensor) -> float:
        return float((of(wav[None]) - mel)[0, :, inside].abs().mean())

    assert error(made) < 0.2  # nats
    assert error(made) < 0.5 * error(GriffinLim(iterations=1)(mel, seeded()))


def test_the_same_seed_gives_the_same_wave() -> None:
    mel, model = cosyvoice2_mel()(vowel()), GriffinLim(iterations=3)
    first, again, other = (model(mel, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("frames", [2, 3])
def test_loud_and_short_mels_stay_finite_and_within_the_limit(frames: int) -> None:
    made = GriffinLim()(torch.full((1, 80, frames), 4.0), seeded())
    assert len(made) == 480 * frames
    assert np.isfinite(made.numpy()).all()
    assert float(made.abs().max()) == pytest.approx(LIMIT)
