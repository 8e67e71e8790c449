from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.cosyvoice2.tiny_models import CODES, FLOW, Utterances, flow, utterances
from tts_kernel.models.cosyvoice2.flow import MAX_FRAMES, TokenToMel, TrainingDraws, draw
from tts_kernel.models.flow_matching import Draws, Estimate

CHUNK, AHEAD = FLOW.encoder.static_chunk_size, FLOW.pre_lookahead_len


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def estimate(model: TokenToMel, batch: Utterances, draws: TrainingDraws) -> Estimate:
    tokens = (batch.speech, batch.speech_lengths)
    return model(*tokens, batch.mel, batch.mel_lengths, batch.speaker, draws)


def of_row(draws: TrainingDraws, row: int, frames: int) -> TrainingDraws:
    pick, given = slice(row, row + 1), draws.flow
    flow_draws = Draws(given.time[pick], given.noise[pick, :, :frames], given.chance[pick])
    return TrainingDraws(draws.streaming, draws.prefix[pick], flow_draws)


@pytest.mark.parametrize("streaming", [False, True])
def test_padding_does_not_change_real_frames(streaming: bool) -> None:
    model, batch = flow(), utterances()
    draws = draw(batch.mel, batch.mel_lengths, seeded(), streaming)
    together = estimate(model, batch, draws)
    errors = 0.0
    for row, frames in enumerate(batch.mel_lengths.tolist()):
        alone = estimate(model, batch.alone(row), of_row(draws, row, frames))
        torch.testing.assert_close(together.velocity[row, :, :frames], alone.velocity[0], atol=1e-4, rtol=1e-4)
        errors += float(alone.squared_error.detach())
    assert float(together.squared_error.detach()) == pytest.approx(errors, rel=1e-4)


def test_every_parameter_learns() -> None:
    model, batch = flow().train(), utterances()
    for streaming in (False, True):
        draws = draw(batch.mel, batch.mel_lengths, seeded(), streaming)
        everyone = replace(draws, flow=replace(draws.flow, chance=torch.ones(3)))
        estimate(model, batch, everyone).loss.backward()
    found = {name: value.grad for name, value in model.named_parameters()}
    silent = [name for name, value in found.items() if value is None or not value.any()]
    assert [name for name in silent if not name.endswith("linear_k.bias")] == []  # it moves all scores of a row alike


def test_training_gives_the_prefix_of_the_target_as_prompt_and_no_more() -> None:
    model, batch = flow(), utterances()
    draws = draw(batch.mel, batch.mel_lengths, seeded(), streaming=False)
    draws = replace(draws, prefix=torch.tensor([5, 0, 3]), flow=replace(draws.flow, chance=torch.ones(3)))
    prompts: list[Tensor] = []
    model.decoder.estimator.register_forward_pre_hook(lambda module, inputs: prompts.append(inputs[5]))
    estimate(model, batch, draws)
    for row, frames in enumerate(draws.prefix.tolist()):
        assert torch.equal(prompts[0][row, :, :frames].T, batch.mel[row, :frames])
        assert not prompts[0][row, :, frames:].any()


def test_frames_that_are_not_twice_the_tokens_are_named() -> None:
    batch = utterances()
    batch.mel_lengths[1] += 1
    with pytest.raises(ValueError, match=r"1 utterances have other than 2 frames per token \(utterance 1: 27 frames"):
        estimate(flow(), batch, draw(batch.mel, batch.mel_lengths, seeded()))


def test_draws_repeat_with_their_seed_and_give_prompts_of_up_to_a_third() -> None:
    mel, lengths = torch.zeros(4000, 20, 8), torch.tensor([20, 10] * 2000)
    draws, again = draw(mel, lengths, seeded()), draw(mel, lengths, seeded())
    assert torch.equal(draws.flow.noise, again.flow.noise)
    assert torch.equal(draws.prefix, again.prefix)
    assert draws.prefix.view(-1, 2).amax(0).tolist() == [6, 3]
    none = 0.5 + 0.5 * (1 / 7 + 1 / 4) / 2  # half of them, and those who drew 0 of up to 6 or 3 frames
    assert float((draws.prefix == 0).float().mean()) == pytest.approx(none, abs=0.03)
    assert {draw(mel[:1], lengths[:1], seeded(seed)).streaming for seed in range(9)} == {True, False}


def given(tokens: int) -> dict[str, Tensor]:
    random = seeded(6)
    return {
        "tokens": torch.randint(0, CODES, (1, tokens), generator=random),
        "prompt_tokens": torch.randint(0, CODES, (1, CHUNK), generator=random),
        "prompt_mel": torch.randn(1, 2 * CHUNK, 8, generator=random),
        "speaker_embedding": torch.randn(1, 6, generator=random),
    }


def test_every_new_token_becomes_two_frames_and_the_prompt_none() -> None:
    model = flow()
    assert model.infer(**given(7)).shape == (1, 8, 14)
    assert model.infer(**given(7), more_to_come=True).shape == (1, 8, 2 * (7 - AHEAD))
    without = given(7) | {"prompt_tokens": torch.zeros(1, 0, dtype=torch.long), "prompt_mel": torch.zeros(1, 0, 8)}
    assert model.infer(**without).shape == (1, 8, 14)


def test_in_streaming_what_was_made_stays_when_more_tokens_come() -> None:
    model, all_tokens = flow(), given(3 * CHUNK)
    whole = model.infer(**all_tokens, streaming=True)
    for chunks in (1, 2):
        so_far = all_tokens | {"tokens": all_tokens["tokens"][:, : chunks * CHUNK + AHEAD]}
        made = model.infer(**so_far, streaming=True, more_to_come=True)
        assert made.shape[2] == 2 * chunks * CHUNK
        torch.testing.assert_close(made, whole[:, :, : made.shape[2]], atol=1e-4, rtol=1e-4)


def test_the_same_call_gives_the_same_mel_and_leaves_the_global_seed_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    model = TokenToMel(FLOW).eval()
    after_building = torch.random.get_rng_state()
    made = model.infer(**given(5))
    assert torch.equal(torch.random.get_rng_state(), after_building)
    assert not torch.equal(before, after_building), "building draws weights; the start noise has its own generator"
    torch.testing.assert_close(model.infer(**given(5)), made, rtol=0, atol=0)
    assert torch.equal(TokenToMel(FLOW).start_noise, model.start_noise)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_only_the_direction_of_a_speaker_embedding_counts(scale: float) -> None:
    model, embedding = flow(), torch.randn(2, 6, generator=seeded())
    torch.testing.assert_close(model.speaker(scale * embedding), model.speaker(embedding))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"tokens": torch.zeros(1, MAX_FRAMES // 2, dtype=torch.long)}, {}, "expected 1 to 15000 frames"),
        (
            {"tokens": torch.zeros(1, 2, dtype=torch.long)},
            {"more_to_come": True},
            "6 tokens make 6 frames of which 8 are the prompt's",
        ),
    ],
)
def test_too_many_and_too_few_tokens_are_refused(
    change: dict[str, Tensor], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        flow().infer(**(given(4) | change), **options)
