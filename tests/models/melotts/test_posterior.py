from __future__ import annotations

import torch

from tests.models.melotts.tiny_models import clips, speaker, synthesizer, without_gradient
from tts_kernel.models.melotts.layers import real_positions


def test_padding_changes_no_real_frame_and_stays_zero() -> None:
    encoder, given = synthesizer().enc_q, clips()
    noise = torch.randn(3, 6, 19, generator=torch.Generator().manual_seed(1))
    both = encoder(given.spectrogram, real_positions(given.lengths, 19), speaker(), noise)
    for row, frames in enumerate(given.lengths.tolist()):
        alone = given.alone(row)
        mask = real_positions(alone.lengths, frames)
        its_own = encoder(alone.spectrogram, mask, speaker()[row : row + 1], noise[row : row + 1, :, :frames])
        for value, expected in zip(both, its_own, strict=True):
            torch.testing.assert_close(value[row : row + 1, :, :frames], expected)
            assert not value[row, :, frames:].any()


def test_the_noise_is_scaled_by_the_deviation() -> None:
    encoder, given = synthesizer().enc_q, clips()
    mask = real_positions(given.lengths, 19)
    silent = encoder(given.spectrogram, mask, speaker(), torch.zeros(3, 6, 19))
    assert torch.equal(silent.sample, silent.mean)
    noisy = encoder(given.spectrogram, mask, speaker(), torch.full((3, 6, 19), 2.0))
    expected = (silent.mean + 2.0 * silent.log_deviation.exp()) * mask
    torch.testing.assert_close(noisy.sample, expected)


def test_every_parameter_learns() -> None:
    encoder, given = synthesizer().enc_q, clips()
    said = encoder(given.spectrogram, real_positions(given.lengths, 19), speaker(), torch.ones(3, 6, 19))
    said.sample.square().sum().backward()
    assert without_gradient(encoder) == []
