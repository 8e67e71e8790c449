from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny_voice import CONFIG, random_clips, voice
from tts_kernel.models.indextts2.generation import Generated, Sampling, code_latents, generate
from tts_kernel.models.indextts2.gpt import UnifiedVoice

CLIPS = random_clips()
TEXTS = [CLIPS.alone(row).text[0] for row in range(2)]  # 9 and 4 tokens


@pytest.fixture(scope="module")
def model() -> UnifiedVoice:
    return voice(layers=2)


@pytest.fixture(scope="module")
def conditions(model: UnifiedVoice) -> Tensor:
    latents = model.speaker_latents(CLIPS.features[:2], CLIPS.feature_lengths[:2])
    emotion = model.emotion_vector(CLIPS.features[:2], CLIPS.feature_lengths[:2])
    return model.conditions(latents, emotion).detach()


def equal(one: Generated, other: Generated) -> bool:
    return len(one.codes) == len(other.codes) and all(map(torch.equal, one.codes, other.codes))


@torch.no_grad()
def teacher_forced(model: UnifiedVoice, conditions: Tensor, text: Tensor, codes: Tensor) -> Tensor:
    """(codes + 1, number_mel_codes) logits of one clip, by a single pass as in training."""
    lengths = torch.tensor([len(text)]), torch.tensor([len(codes)])
    return model(conditions, text[None], lengths[0], codes[None], lengths[1]).code_logits


def test_cached_greedy_equals_one_pass_over_its_own_codes(model: UnifiedVoice, conditions: Tensor) -> None:
    for row in range(2):
        one = conditions[row : row + 1]
        made = generate(model, one, [TEXTS[row]], Sampling(max_codes=20))
        assert len(made.codes[0]) >= 5
        logits = teacher_forced(model, one, TEXTS[row], made.codes[0])
        steps = made.step_logits.shape[1]
        torch.testing.assert_close(made.step_logits[0], logits[:steps], atol=1e-4, rtol=1e-4)
        assert torch.equal(logits.argmax(-1)[: len(made.codes[0])], made.codes[0])


def test_each_text_of_a_batch_is_as_it_would_be_alone(model: UnifiedVoice, conditions: Tensor) -> None:
    sampling = Sampling(max_codes=20)
    together = generate(model, conditions, TEXTS, sampling)
    assert not torch.equal(together.codes[0], together.codes[1])
    for row in range(2):
        alone = generate(model, conditions[row : row + 1], [TEXTS[row]], sampling)
        assert torch.equal(together.codes[row], alone.codes[0])
        steps = alone.step_logits.shape[1]
        torch.testing.assert_close(together.step_logits[row, :steps], alone.step_logits[0], atol=1e-4, rtol=1e-4)


def test_a_row_that_stopped_stays_stopped_while_others_go_on(model: UnifiedVoice, conditions: Tensor) -> None:
    free = generate(model, conditions, TEXTS, Sampling(max_codes=12))
    first = int(free.codes[0][2])  # make the code that row 0 says third its stop token
    assert first not in free.codes[0][:2]
    stopping = voice(layers=2)
    with torch.no_grad():
        for table in (stopping.mel_head.weight, stopping.mel_head.bias):
            table[[first, CONFIG.stop_mel_token]] = table[[CONFIG.stop_mel_token, first]].clone()
    made = generate(stopping, conditions, TEXTS, Sampling(max_codes=12))
    assert torch.equal(made.codes[0], free.codes[0][:2])
    assert made.stopped[0]
    assert len(made.codes[1]) == 12 or made.stopped[1]


def test_sampling_is_reproducible_and_varied(model: UnifiedVoice, conditions: Tensor) -> None:
    sampling = Sampling(temperature=1.5, top_k=20, top_p=0.95, repetition_penalty=2.0, max_codes=20)

    def sample(seed: int) -> Generated:
        return generate(model, conditions, TEXTS, sampling, torch.Generator().manual_seed(seed))

    assert equal(sample(1), sample(1))
    assert not equal(sample(1), sample(2))


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_sampling_narrowed_to_one_choice_is_greedy(
    model: UnifiedVoice, conditions: Tensor, narrow: dict[str, Any]
) -> None:
    greedy = generate(model, conditions, TEXTS, Sampling(max_codes=20))
    sampled = generate(model, conditions, TEXTS, Sampling(**{"temperature": 1.0, "max_codes": 20, **narrow}))
    assert equal(greedy, sampled)


def test_repetition_penalty_avoids_what_was_said(model: UnifiedVoice, conditions: Tensor) -> None:
    plain = generate(model, conditions, TEXTS, Sampling(max_codes=20))
    penalised = generate(model, conditions, TEXTS, Sampling(max_codes=20, repetition_penalty=50.0))
    assert len(penalised.codes[0].unique()) > len(plain.codes[0].unique())


def test_skipping_the_first_position_changes_every_step_but_the_first(model: UnifiedVoice, conditions: Tensor) -> None:
    plain = generate(model, conditions[:1], TEXTS[:1], Sampling(max_codes=4)).step_logits
    skipped = generate(model, conditions[:1], TEXTS[:1], Sampling(max_codes=4, skip_first_position=True)).step_logits
    assert torch.equal(plain[:, 0], skipped[:, 0])
    assert (plain[:, 1] - skipped[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize(("skip", "room"), [(False, 32), (True, 31)])
def test_the_position_table_is_the_limit(model: UnifiedVoice, conditions: Tensor, skip: bool, room: int) -> None:
    made = generate(model, conditions[:1], TEXTS[:1], Sampling(max_codes=room, skip_first_position=skip))
    assert len(made.codes[0]) <= room
    with pytest.raises(ValueError, match=f"positions end after {room} codes"):
        generate(model, conditions[:1], TEXTS[:1], Sampling(max_codes=room + 1, skip_first_position=skip))


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"repetition_penalty": 0.0},
        {"max_codes": 0},
        {"top_k": -1},
    ],
)
def test_bad_sampling_values_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)


@torch.no_grad()
def test_latents_are_the_outputs_that_predict_each_code(model: UnifiedVoice, conditions: Tensor) -> None:
    codes = CLIPS.alone(1).codes[0]
    latents = code_latents(model, conditions[:1], TEXTS[0], codes)
    assert latents.shape == (1, len(codes), CONFIG.model_dim)
    logits = teacher_forced(model, conditions[:1], TEXTS[0], codes)
    torch.testing.assert_close(model.mel_head(latents[0].clone()), logits[:-1], atol=1e-5, rtol=1e-5)
