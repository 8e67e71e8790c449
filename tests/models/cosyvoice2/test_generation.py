from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.cosyvoice2.tiny_models import CODES, llm
from tts_kernel.models.cosyvoice2.generation import (
    GREEDY,
    Sampling,
    candidates,
    generate,
    is_repeated,
    repetition_aware,
    speech_tokens,
)
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel

TEXT, PROMPT_TEXT, PROMPT_SPEECH = torch.tensor([3, 9, 27]), torch.tensor([5, 6]), torch.tensor([1, 2, 3, 4])


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wishing_for(stop: int) -> SpeechLanguageModel:
    """A model that hardly wants to say anything but one of its stop tokens."""
    model = llm()
    with torch.no_grad():
        model.llm_decoder.bias[CODES + stop] = 1e3
    return model


@pytest.mark.parametrize("prompt", [(), (PROMPT_TEXT, PROMPT_SPEECH)])
def test_cached_steps_say_what_one_pass_over_all_says(prompt: tuple[Tensor, ...]) -> None:
    model = llm()
    made = generate(model, TEXT, *prompt, sampling=replace(GREEDY, min_token_text_ratio=8.0))
    text, speech = (torch.cat([PROMPT_TEXT, TEXT]), PROMPT_SPEECH) if prompt else (TEXT, TEXT[:0])
    with torch.no_grad():
        hidden = model.hidden(model.prompt(text, torch.cat([speech, made.tokens])))
        logits = model.llm_decoder(hidden[0, len(text) + 1 + len(speech) :])
    steps = len(made.step_logits)
    assert steps > 10
    torch.testing.assert_close(made.step_logits, logits[:steps], atol=1e-4, rtol=1e-4)


def test_the_same_seed_gives_the_same_tokens_and_another_gives_others() -> None:
    model = llm()
    first, again, other = (generate(model, TEXT, generator=seeded(seed)).tokens.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_seed_is_all_that_counts() -> None:
    model = llm()
    torch.manual_seed(1)
    first = generate(model, TEXT, generator=seeded())
    torch.manual_seed(2)
    assert generate(model, TEXT, generator=seeded()).tokens.tolist() == first.tokens.tolist()


def test_tokens_come_one_by_one_and_are_the_same_as_all_at_once() -> None:
    model = llm()
    one_by_one = [token for token, _ in speech_tokens(model, TEXT, generator=seeded())]
    made = generate(model, TEXT, generator=seeded())
    assert one_by_one[: len(made.tokens)] == made.tokens.tolist()
    assert made.stopped == (len(one_by_one) > len(made.tokens))


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_any_stop_token_ends_as_in_the_reference_and_is_not_returned(stop: int) -> None:
    made = generate(wishing_for(stop), TEXT, sampling=replace(GREEDY, min_token_text_ratio=0.0, ends="any"))
    assert made.stopped
    assert len(made.tokens) == 0
    assert len(made.step_logits) == 1


@pytest.mark.parametrize("stop", [1, 2])
def test_a_wish_for_more_text_does_not_end_a_text_that_is_all_there(stop: int) -> None:
    model = wishing_for(stop)
    made = generate(model, TEXT, sampling=Sampling(max_token_text_ratio=8.0), generator=seeded())
    assert int(made.tokens.max()) < CODES
    assert len(made.tokens) >= 2 * len(TEXT)
    as_before = generate(model, TEXT, sampling=Sampling(ends="any"), generator=seeded())
    assert (as_before.stopped, len(as_before.tokens)) == (True, 0)


def test_the_end_is_not_said_before_the_shortest_length_nor_after_the_longest() -> None:
    model = wishing_for(0)
    short = generate(model, TEXT, sampling=Sampling(min_token_text_ratio=2.5), generator=seeded())
    assert short.stopped
    assert len(short.tokens) == int(2.5 * len(TEXT))
    with torch.no_grad():
        model.llm_decoder.bias[CODES:] = -1e3
    long = generate(model, TEXT, PROMPT_TEXT, PROMPT_SPEECH, Sampling(max_token_text_ratio=4.0), seeded())
    assert not long.stopped
    assert len(long.tokens) == 4 * len(TEXT)  # the prompt does not count


def test_candidates_reach_top_p_and_no_more() -> None:
    scores = torch.tensor([0.1, 0.5, 0.25, 0.15]).log()
    probabilities, ids = candidates(scores, top_p=0.7, top_k=25)
    assert ids.tolist() == [1, 2]
    torch.testing.assert_close(probabilities, torch.tensor([0.5, 0.25]))
    assert candidates(scores, top_p=1.0, top_k=3)[1].tolist() == [1, 2, 3]
    assert candidates(scores, top_p=0.1, top_k=3)[1].tolist() == [1]


def test_a_repeated_token_is_never_drawn_again() -> None:
    sure = torch.tensor([0.97, 0.01, 0.01, 0.01]).log()
    sampling, generator = Sampling(window=3, repetitions=0.3), seeded()
    drawn = {repetition_aware(sure, [0, 1, 2], sampling, generator) for _ in range(50)}
    assert drawn == {1, 2, 3}
    assert {repetition_aware(sure, [0, 1, 2, 1], sampling, generator) for _ in range(50)} == {0}  # out of the window


def test_what_was_said_before_counts_as_history() -> None:
    model = llm()
    with torch.no_grad():
        model.llm_decoder.bias[5] = 1e3
    tokens = generate(model, TEXT, generator=seeded()).tokens.tolist()
    assert tokens[0] == 5
    assert all(5 not in tokens[place + 1 : place + 11] for place, token in enumerate(tokens) if token == 5)


def test_a_repetition_is_a_share_of_the_window() -> None:
    assert is_repeated(7, [7, 1, 1], Sampling(window=10, repetitions=0.1))
    assert not is_repeated(7, [7, 1, 1], Sampling(window=10, repetitions=0.2))
    assert not is_repeated(7, [7, *range(10, 20)], Sampling(window=10))
    assert not is_repeated(7, [7], GREEDY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": float("nan")}, "top_p is nan"),
        ({"top_k": 0}, "top_k 0"),
        ({"repetitions": 0.0}, "repetitions is 0.0"),
        ({"min_token_text_ratio": 30.0}, "expected 0 <= min <= max"),
        ({"ends": "fill"}, "ends is 'fill', expected 'end' or 'any'"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**change)


def test_no_text_and_too_much_of_it_are_refused() -> None:
    with pytest.raises(ValueError, match="no text tokens"):
        generate(llm(), TEXT[:0])
    with pytest.raises(ValueError, match="the model has 256; split the text"):
        generate(llm(), torch.ones(20, dtype=torch.long))


def test_a_damaged_model_is_named_not_drawn_from() -> None:
    model = llm()
    with torch.no_grad():
        model.llm_decoder.weight[3] = torch.nan
    with pytest.raises(ValueError, match=r"says NaN or infinity; .* LoRA merged twice"):
        generate(model, TEXT)
