from __future__ import annotations

import torch
from torch import Tensor

from tests.models.melotts.tiny_models import CONFIG, speaker, synthesizer, without_gradient
from tts_kernel.models.melotts.durations import StochasticDurationPredictor
from tts_kernel.models.melotts.layers import real_positions

TOKENS = torch.tensor([7, 4, 6])


def given() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden, mask, whole durations, noise."""
    random = torch.Generator().manual_seed(9)
    mask = real_positions(TOKENS, 7)
    hidden = torch.randn(3, 8, 7, generator=random) * mask
    durations = torch.randint(1, 9, (3, 1, 7), generator=random).float() * mask
    return hidden, mask, durations, torch.randn(3, 2, 7, generator=random)


def test_padding_changes_neither_loss_nor_prediction() -> None:
    model = synthesizer()
    hidden, mask, durations, noise = given()
    loss = model.sdp(hidden, mask, durations, speaker(), noise)
    sampled, plain = model.sdp.sample(hidden, mask, speaker(), noise), model.dp(hidden, mask, speaker())
    for row, tokens in enumerate(TOKENS.tolist()):
        pick = slice(row, row + 1)
        alone = (hidden[pick, :, :tokens], mask[pick, :, :tokens])
        its_noise, its_speaker = noise[pick, :, :tokens], speaker()[pick]
        its_loss = model.sdp(*alone, durations[pick, :, :tokens], its_speaker, its_noise)
        torch.testing.assert_close(loss[pick], its_loss, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(
            sampled[pick, :, :tokens], model.sdp.sample(*alone, its_speaker, its_noise), rtol=1e-3, atol=1e-4
        )
        torch.testing.assert_close(plain[pick, :, :tokens], model.dp(*alone, its_speaker))
        assert not plain[row, :, tokens:].any()
        assert not sampled[row, :, tokens:].any()


def test_the_text_encoder_and_the_speaker_learn_nothing_from_durations() -> None:
    model = synthesizer()
    hidden, mask, durations, noise = given()
    hidden.requires_grad_()
    voice = speaker().requires_grad_()
    loss = model.sdp(hidden, mask, durations, voice, noise).sum() + model.dp(hidden, mask, voice).sum()
    loss.backward()
    assert hidden.grad is None
    assert voice.grad is None
    assert without_gradient(model.sdp) + without_gradient(model.dp) == []


def test_training_makes_the_given_durations_likelier() -> None:
    torch.manual_seed(1)
    model = StochasticDurationPredictor(CONFIG).eval()
    hidden, mask, durations, noise = given()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        loss = model(hidden, mask, durations, speaker(), noise).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


def test_the_same_noise_gives_the_same_durations_and_less_noise_less_spread() -> None:
    model = synthesizer().sdp
    hidden, mask, _, noise = given()
    first, again = (model.sample(hidden, mask, speaker(), noise) for _ in range(2))
    assert torch.equal(first, again)
    silent = model.sample(hidden, mask, speaker(), 0 * noise)
    faint = model.sample(hidden, mask, speaker(), 0.01 * noise)
    assert (faint - silent).abs().mean() < (first - silent).abs().mean()
