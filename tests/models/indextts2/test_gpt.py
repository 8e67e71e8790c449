from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.tiny_voice import CONFIG, Clips, random_clips, voice
from tts_kernel.models.indextts2.gpt import Prediction, UnifiedVoice

CLIPS = random_clips()


def say(model: UnifiedVoice, clips: Clips, emotion: torch.Tensor | None = None) -> Prediction:
    latents = model.speaker_latents(clips.features, clips.feature_lengths)
    emotion = model.emotion_vector(clips.features, clips.feature_lengths) if emotion is None else emotion
    conditions = model.conditions(latents, emotion)
    return model(conditions, clips.text, clips.text_lengths, clips.codes, clips.code_lengths)


def losses(said: Prediction, clips: Clips) -> list[tuple[float, float]]:
    """(text, code) of each clip, summed over its targets."""
    text = cross_entropy(said.text_logits, said.text_targets, reduction="none")
    codes = cross_entropy(said.code_logits, said.code_targets, reduction="none")
    return [
        (float(a.sum()), float(b.sum()))
        for a, b in zip(
            text.split((clips.text_lengths + 1).tolist()), codes.split((clips.code_lengths + 1).tolist()), strict=True
        )
    ]


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_neighbours() -> None:
    model = voice()
    together = losses(say(model, CLIPS), CLIPS)
    vectors = model.emotion_vector(CLIPS.features, CLIPS.feature_lengths)
    for row in range(3):
        alone = CLIPS.alone(row)
        assert together[row] == pytest.approx(losses(say(model, alone), alone)[0], rel=1e-5)
        torch.testing.assert_close(
            vectors[row : row + 1], model.emotion_vector(alone.features, alone.feature_lengths), atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
def test_reference_padding_lets_neighbours_in() -> None:
    model = voice(reference_padding=True)
    together, vectors = say(model, CLIPS), model.emotion_vector(CLIPS.features, CLIPS.feature_lengths)
    alone = CLIPS.alone(0)  # the shortest sound
    assert (vectors[:1] - model.emotion_vector(alone.features, alone.feature_lengths)).abs().max() > 1e-3
    fixed = torch.zeros(3, 32)  # the same emotion for both: what is left is the text's padding
    short = CLIPS.alone(1)
    padded = losses(say(model, CLIPS, fixed), CLIPS)[1][1]
    assert abs(padded - losses(say(model, short, fixed[1:2]), short)[0][1]) > 1e-3
    assert len(together.code_targets) == int(CLIPS.code_lengths.sum()) + 3


@torch.no_grad()
def test_packed_logits_equal_those_of_one_clip_at_a_time() -> None:
    model = voice()
    packed = say(model, CLIPS)
    single = [say(model, CLIPS.alone(row)) for row in range(3)]
    for name in ("text_logits", "text_targets", "code_logits", "code_targets"):
        expected = torch.cat([getattr(said, name) for said in single])
        torch.testing.assert_close(getattr(packed, name), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_targets_are_the_clips_own_tokens_and_a_stop() -> None:
    said = say(voice(), CLIPS)
    assert said.text_targets.tolist() == [
        token for row in range(3) for token in [*CLIPS.alone(row).text[0].tolist(), CONFIG.stop_text_token]
    ]
    assert said.code_targets.tolist() == [
        code for row in range(3) for code in [*CLIPS.alone(row).codes[0].tolist(), CONFIG.stop_mel_token]
    ]


@torch.no_grad()
def test_what_is_predicted_is_not_yet_visible() -> None:
    model, alone = voice(), CLIPS.alone(1)
    before = say(model, alone)
    other = replace(alone, codes=alone.codes.clone())
    other.codes[0, 7] = (other.codes[0, 7] + 1) % 30
    after = say(model, other)
    assert torch.equal(before.text_logits, after.text_logits)
    torch.testing.assert_close(before.code_logits[:8], after.code_logits[:8])  # row 7 predicts code 7
    assert (before.code_logits[8] - after.code_logits[8]).abs().max() > 1e-3


def test_dropout_is_active_in_training_alone() -> None:
    model = voice(dropout=0.1)
    once, again = say(model, CLIPS), say(model, CLIPS)
    assert torch.equal(once.code_logits, again.code_logits)
    model.train()
    torch.manual_seed(0)
    once, again = say(model, CLIPS), say(model, CLIPS)
    assert not torch.equal(once.code_logits, again.code_logits)
    emotion = [model.emotion_vector(CLIPS.features, CLIPS.feature_lengths) for _ in range(2)]
    assert torch.equal(*emotion), "the conditioners have no dropout"


def test_duration_by_length_needs_lengths_and_uses_them() -> None:
    model = voice()
    latents, emotion = torch.randn(3, 4, 32), torch.randn(3, 32)
    with pytest.raises(ValueError, match="needs code_lengths"):
        model.conditions(latents, emotion, mode="length")
    binary = model.conditions(latents, emotion, CLIPS.code_lengths)
    by_length = model.conditions(latents, emotion, CLIPS.code_lengths, mode="length")
    assert torch.equal(binary[:, :4], by_length[:, :4])
    assert torch.equal(by_length[:, 4], model.mel_pos_embedding.emb(CLIPS.code_lengths + 1))
    assert torch.equal(binary[0, 4], binary[1, 4])
    assert not torch.equal(by_length[0, 4], by_length[1, 4])
    too_long = model.conditions(latents, emotion, torch.tensor([30, 31, 99]), mode="length")
    assert torch.equal(too_long[1, 4], too_long[2, 4])  # beyond the table


def test_a_model_without_an_adversary_says_so() -> None:
    with pytest.raises(ValueError, match="num_speakers"):
        voice().speaker_logits(torch.zeros(1, 32))


@torch.no_grad()
def test_perceiver_mask_is_what_keeps_padding_out_of_the_emotion_vector() -> None:
    model = voice()
    masked = model.emotion_vector(CLIPS.features, CLIPS.feature_lengths)
    unmasked = model.emotion_vector(CLIPS.features, CLIPS.feature_lengths, mask_perceiver=False)
    assert (masked - unmasked)[0].abs().max() > 1e-4
    torch.testing.assert_close(masked[1], unmasked[1])


def test_text_beyond_the_position_table_is_refused_in_words() -> None:
    model = voice()
    tokens = torch.full((1, CONFIG.max_text_tokens + 1), 5)
    with pytest.raises(ValueError, match="at most"):
        model.embed_text(tokens, torch.tensor([tokens.shape[1]]))
