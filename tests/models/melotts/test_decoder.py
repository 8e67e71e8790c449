from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models.melotts.tiny_models import CONFIG, speaker, synthesizer, without_gradient
from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.models.melotts.layers import fold_weight_norm


def latents(frames: int) -> Tensor:
    return torch.randn(3, 6, frames, generator=torch.Generator().manual_seed(2))


def test_the_public_sizes_make_a_hop_of_each_frame() -> None:
    assert SynthesizerConfig().samples_per_frame == 512


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_every_frame_becomes_its_samples_within_full_scale(frames: int) -> None:
    assert CONFIG.samples_per_frame == 8
    wave = synthesizer().dec(latents(frames), speaker())
    assert wave.shape == (3, 1, 8 * frames)
    assert 1e-3 < wave.abs().max() <= 1.0


def test_folded_weights_make_the_same_sound() -> None:
    decoder = synthesizer().dec
    before = decoder(latents(5), speaker())
    fold_weight_norm(decoder)
    torch.testing.assert_close(decoder(latents(5), speaker()), before)
    assert not [name for name in decoder.state_dict() if name.endswith(("weight_g", "weight_v"))]


def test_the_speaker_is_heard_and_every_parameter_learns() -> None:
    decoder = synthesizer().dec
    wave = decoder(latents(5), speaker())
    assert not torch.allclose(wave, decoder(latents(5), speaker().flip(0)))
    wave.square().mean().backward()
    assert without_gradient(decoder) == []
