from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.models.melotts.tiny_models import (
    CONFIG,
    clips,
    drawn_for,
    draws,
    step,
    synthesizer,
    without_gradient,
)
from tts_kernel.models.melotts.losses import kl_loss
from tts_kernel.models.melotts.synthesizer import MOST_FRAMES, Speech, SpeechDraws, Synthesizer, segments, whole_frames

SILENT = {"noise_scale": 0.0, "noise_scale_w": 0.0}


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def speak(model: Synthesizer, seed: int = 1, **how: float) -> Speech:
    given = clips()
    return model.infer(given.text, given.speakers, generator=seeded(seed), **how)  # type: ignore[arg-type]


def test_a_row_is_the_same_in_every_batch() -> None:
    model, given = synthesizer(), clips()
    drawn = draws(model, given)
    both = step(model, given, drawn)
    for row, (tokens, frames) in enumerate(zip(given.text.lengths.tolist(), given.lengths.tolist(), strict=True)):
        alone = step(model, given.alone(row), drawn_for(row, given, drawn))
        pick = slice(row, row + 1)
        assert both.durations[row, :tokens].tolist() == alone.durations[0].tolist()
        assert int(both.durations[row].sum()) == frames
        for name, size in (("z_p", frames), ("m_p", frames), ("logs_p", frames), ("log_durations", tokens)):
            torch.testing.assert_close(getattr(both, name)[pick, :, :size], getattr(alone, name))
            assert not getattr(both, name)[row, :, size:].any()
        torch.testing.assert_close(both.audio[pick], alone.audio)
        share = given.text.lengths[row] / given.text.lengths.sum()  # losses are divided by the batch's tokens
        torch.testing.assert_close(both.duration_loss[pick], alone.duration_loss * share, rtol=1e-4, atol=1e-4)


def test_every_parameter_learns() -> None:
    model, given = synthesizer(), clips()
    said = step(model, given, draws(model, given))
    kl = kl_loss(said.z_p, said.posterior.log_deviation, said.m_p, said.logs_p, said.frame_mask)
    (said.audio.square().mean() + kl + said.duration_loss.sum()).backward()
    assert [name for name in without_gradient(model) if not name.endswith("conv_k.bias")] == []


def test_a_step_in_half_precision_stays_near() -> None:
    model, given = synthesizer(), clips()
    drawn = draws(model, given)
    exact = step(model, given, drawn)
    with torch.autocast("cpu", torch.bfloat16):
        said = step(model, given, drawn)
    assert said.audio.dtype == torch.bfloat16
    torch.testing.assert_close(said.audio.float(), exact.audio, rtol=0, atol=0.05)
    torch.testing.assert_close(said.duration_loss, exact.duration_loss, rtol=0.2, atol=0)
    assert said.durations.sum(dim=1).tolist() == given.lengths.tolist()
    assert said.log_durations.dtype == torch.float32


def test_a_step_is_what_was_drawn() -> None:
    model, given = synthesizer(), clips()
    first, again, other = (step(model, given, draws(model, given, seed)) for seed in (1, 1, 2))
    torch.testing.assert_close((first.audio, first.duration_loss), (again.audio, again.duration_loss), rtol=0, atol=0)
    assert not torch.allclose(first.z_p, other.z_p)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        unseeded = model(given.text, given.spectrogram, given.lengths, given.speakers, alignment_noise=0.0)
    torch.testing.assert_close(unseeded.z_p, first.z_p)


def test_segments_lie_within_their_recordings() -> None:
    model, lengths = synthesizer(), clips().lengths
    first = model.segment_starts(lengths, torch.zeros(3))
    last = model.segment_starts(lengths, torch.full((3,), 0.999999))
    assert first.tolist() == [0, 0, 0]
    assert (last + CONFIG.segment_size).tolist() == lengths.tolist()


def test_segments_are_cut_from_anything_with_frames_or_samples() -> None:
    x = torch.arange(20.0).view(2, 1, 10)
    assert segments(x, torch.tensor([3, 0]), 4).tolist() == [[[3, 4, 5, 6]], [[10, 11, 12, 13]]]


def test_every_clip_shorter_than_a_segment_is_named() -> None:
    model = synthesizer(segment_size=13)
    with pytest.raises(ValueError, match="row 1 has 12, row 2 has 8 frames, expected at least segment_size 13"):
        model.segment_starts(clips().lengths, torch.zeros(3))


def test_noise_changes_the_alignment_and_padding_does_not_scale_it() -> None:
    model, given = synthesizer(), clips()
    drawn = draws(model, given)
    quiet, loud = (step(model, given, drawn, alignment_noise=scale).durations for scale in (0.0, 3.0))
    assert not torch.equal(quiet, loud)
    assert loud.sum(dim=1).tolist() == given.lengths.tolist()
    louder_padding = replace(given, spectrogram=given.spectrogram.clone())
    louder_padding.spectrogram[2, :, 8:] = 1e3
    assert torch.equal(step(model, louder_padding, drawn, alignment_noise=3.0).durations, loud)


def test_the_same_seed_says_the_same() -> None:
    model = synthesizer()
    first, again, other = (speak(model, seed) for seed in (1, 1, 2))
    assert torch.equal(first.audio, again.audio)
    assert not torch.equal(first.audio[:, :64], other.audio[:, :64])


def test_a_sentence_sounds_the_same_beside_longer_ones_unless_the_reference_pads_it() -> None:
    model, given = synthesizer(), clips()
    together = speak(model, **SILENT)
    padded = speak(synthesizer(reference_padding=True), **SILENT)
    differing = 0
    for row in range(3):
        alone = model.infer(given.alone(row).text, given.speakers[row : row + 1], **SILENT)
        samples = int(together.lengths[row])
        assert alone.audio.shape[1] == samples == 8 * int(together.durations[row].sum())
        torch.testing.assert_close(together.audio[row, :samples], alone.audio[0])
        assert not together.audio[row, samples:].any()
        differing += not torch.allclose(padded.audio[row, :samples], alone.audio[0], atol=1e-5)
    assert differing == 2  # all but the longest


def test_settings_do_what_they_say() -> None:
    model = synthesizer()
    plain = speak(model, sdp_ratio=0.0, **SILENT)
    assert torch.equal(speak(model, seed=2, sdp_ratio=0.0, noise_scale=0.0).durations, plain.durations)
    assert not torch.equal(speak(model, sdp_ratio=1.0, **SILENT).durations, plain.durations)
    slower = speak(model, sdp_ratio=0.0, length_scale=2.0, **SILENT)
    assert (slower.durations >= plain.durations).all()
    assert slower.lengths.sum() > 1.4 * plain.lengths.sum()
    assert torch.equal(speak(model, noise_scale=0.0).z_p, speak(model, noise_scale=0.0).z_p)
    noisy = speak(model, noise_scale=1.0, noise_scale_w=0.0)
    assert not torch.allclose(noisy.z_p, speak(model, noise_scale=0.5, noise_scale_w=0.0).z_p)


def test_draws_take_the_place_of_the_seed() -> None:
    model, given = synthesizer(), clips()
    random = seeded(4)
    first = model.infer(given.text, given.speakers, generator=random)
    again = seeded(4)
    drawn = SpeechDraws(torch.randn(3, 2, 7, generator=again), torch.randn(first.z.shape, generator=again))
    assert torch.equal(model.infer(given.text, given.speakers, draws=drawn).audio, first.audio)


def test_another_speaker_sounds_otherwise() -> None:
    model, given = synthesizer(), clips()
    one, other = (model.infer(given.text, torch.full((3,), voice), **SILENT).audio[:, :8] for voice in (0, 1))
    assert not torch.allclose(one, other)


def test_durations_are_rounded_up_and_every_sentence_lasts() -> None:
    given = torch.tensor([[[0.1, 2.0, 0.0]], [[0.0, 0.0, 0.0]]])
    assert whole_frames(given).tolist() == [[1, 2, 0], [1, 0, 0]]


@pytest.mark.parametrize("endless", [MOST_FRAMES + 1.0, float("inf"), float("nan")])
def test_sentences_without_end_are_named(endless: float) -> None:
    with pytest.raises(ValueError, match="row 1 would last"):
        whole_frames(torch.tensor([[[3.0]], [[endless]]]))
