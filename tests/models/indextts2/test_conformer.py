from __future__ import annotations

import pytest
import torch

from tests.parity import fill
from tests.tiny_voice import CONFIG, random_clips
from tts_kernel.models.indextts2.conformer import MAX_FRAMES, ConformerEncoder, SinusoidalTable


@pytest.fixture
def encoder() -> ConformerEncoder:
    module = ConformerEncoder(20, CONFIG.condition_module).eval()
    fill.fill(module)
    return module


@pytest.mark.parametrize("frames", [3, 4, 5, 24])
def test_time_is_halved_without_padding(encoder: ConformerEncoder, frames: int) -> None:
    hidden, mask = encoder(torch.randn(1, frames, 20), torch.tensor([frames]))
    assert hidden.shape == (1, (frames - 1) // 2, 16)
    assert mask.all()
    assert hidden.isfinite().all()


def test_padding_of_any_content_never_reaches_a_real_frame(encoder: ConformerEncoder) -> None:
    clips = random_clips()
    lengths = torch.tensor([11, 23, 15])  # odd: no frame of the padding enters the last convolution window
    hidden, mask = encoder(clips.features, lengths)
    noise = clips.features.clone()
    for row, length in enumerate(lengths.tolist()):
        noise[row, length:] = 100.0
    assert torch.equal(mask.sum(1), (lengths - 1) // 2)
    torch.testing.assert_close(encoder(noise, lengths)[0][mask], hidden[mask])
    for row, length in enumerate(lengths.tolist()):
        alone, _ = encoder(clips.features[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(hidden[row : row + 1, : alone.shape[1]], alone, atol=1e-5, rtol=1e-5)


def test_reference_padding_leaks_into_the_last_real_frames(encoder: ConformerEncoder) -> None:
    clips = random_clips()
    hidden, _ = encoder(clips.features, clips.feature_lengths)
    encoder.reference_padding = True
    leaked, _ = encoder(clips.features, clips.feature_lengths)
    assert (leaked - hidden)[0, :5].abs().max() > 1e-3  # a short clip
    torch.testing.assert_close(leaked[1], hidden[1])  # the longest has no padding


def test_order_of_frames_matters(encoder: ConformerEncoder) -> None:
    x = torch.randn(1, 40, 20)
    lengths = torch.tensor([40])
    assert (encoder(x, lengths)[0].mean(1) - encoder(x.flip(1), lengths)[0].mean(1)).abs().max() > 1e-3


def test_other_widths_and_too_long_clips_are_refused(encoder: ConformerEncoder) -> None:
    with pytest.raises(ValueError, match="features have 64 bins, expected 20"):
        encoder(torch.zeros(1, 9, 64), torch.tensor([9]))
    long = 2 * MAX_FRAMES + 3
    with pytest.raises(ValueError, match="10003 input frames"):
        encoder(torch.zeros(1, long, 20), torch.tensor([long]))


def test_position_table_interleaves_sines_and_cosines() -> None:
    table = SinusoidalTable(16).pe[0]
    positions = torch.arange(MAX_FRAMES, dtype=torch.float32)
    torch.testing.assert_close(table[:, 0], positions.sin(), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(table[:, 3], (positions * 10000 ** (-2 / 16)).cos(), atol=2e-3, rtol=0.0)
