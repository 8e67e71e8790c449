"""Speech tokens one after the other with a key/value cache: greedy, or by repetition-aware sampling.

Source of the sampling: VALL-E 2 (arXiv 2406.05370), section 3.2, with top-p and top-k; parity case llm_small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel


@dataclass(frozen=True)
class Sampling:
    """How the next speech token is chosen; the defaults are the published ones."""

    top_p: float = 0.8  # candidates are taken, best first, until they reach this probability
    top_k: int = 25  # or this number; 1 is greedy
    window: int = 10  # tokens back in which a repetition is sought
    repetitions: float = 0.1  # share of the window from which on a token counts as repeated
    min_token_text_ratio: float = 2.0  # speech tokens per text token before the end may be said
    max_token_text_ratio: float = 20.0  # and after which it is cut
    # What ends an utterance: the end alone, or "any" stop token, as in the reference, where those beside the end may be
    # said at any length. But the text is all there: to wish for more of it is a slip.
    ends: Literal["end", "any"] = "end"

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.top_p <= 1:
            problems.append(f"top_p is {self.top_p}, expected above 0 and at most 1")
        if self.top_k < 1 or self.window < 0:
            problems.append(f"top_k {self.top_k} and window {self.window}: expected at least 1 and at least 0")
        if not self.repetitions > 0:
            problems.append(f"repetitions is {self.repetitions}, expected above 0")
        if self.max_token_text_ratio < 1 or not 0 <= self.min_token_text_ratio <= self.max_token_text_ratio:
            problems.append(
                f"min_token_text_ratio {self.min_token_text_ratio} and max_token_text_ratio "
                f"{self.max_token_text_ratio}: expected 0 <= min <= max and 1 <= max"
            )
        if self.ends not in ("end", "any"):
            problems.append(f"ends is {self.ends!r}, expected 'end' or 'any'")
        if problems:
            raise ValueError("; ".join(problems))


GREEDY = Sampling(top_k=1, window=0)


def candidates(scores: Tensor, top_p: float, top_k: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities (tokens,) -> probabilities and ids of what may be drawn, best first, (n,) each: as many as it
    takes to reach `top_p`, at most `top_k`. Not normalised."""
    probabilities, ids = scores.softmax(-1).sort(descending=True, stable=True)
    before = pad(probabilities.cumsum(0)[:-1], (1, 0))
    size = min(int((before < top_p).sum()), top_k)
    return probabilities[:size], ids[:size]


def is_repeated(token: int, history: Sequence[int], sampling: Sampling) -> bool:
    """Whether `token` fills its share of the last `window` tokens."""
    if sampling.window == 0:
        return False
    return history[-sampling.window :].count(token) >= sampling.window * sampling.repetitions


def repetition_aware(
    scores: Tensor, history: Sequence[int], sampling: Sampling, generator: torch.Generator | None = None
) -> int:
    """The next token from log-probabilities (tokens,): drawn from the `candidates`; if that one is repeated, drawn
    anew from all other tokens."""
    probabilities, ids = candidates(scores, sampling.top_p, sampling.top_k)
    token = int(ids[_draw(probabilities, generator)])
    if is_repeated(token, history, sampling):
        token = _draw(without(scores, token), generator)
    return token


def without(scores: Tensor, token: int) -> Tensor:
    """Log-probabilities (tokens,) -> probabilities of all tokens but one."""
    scores = scores.clone()
    scores[token] = -torch.inf
    return scores.softmax(-1)


def _draw(probabilities: Tensor, generator: torch.Generator | None) -> int:
    return int(torch.multinomial(probabilities, 1, generator=generator))


@dataclass(frozen=True)
class Generated:
    tokens: Tensor  # (n,) speech tokens without the stop token
    stopped: bool  # whether the model ended by itself, not at the limit
    step_logits: Tensor  # (steps, speech_token_size + 3), raw


def generate(
    model: SpeechLanguageModel,
    text: Tensor,
    prompt_text: Tensor | None = None,
    prompt_speech: Tensor | None = None,
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
) -> Generated:
    """All of `speech_tokens` at once."""
    steps = list(speech_tokens(model, text, prompt_text, prompt_speech, sampling, generator))
    tokens = [token for token, _ in steps]
    stopped = tokens[-1] in model.stop_tokens
    said = torch.tensor(tokens[:-1] if stopped else tokens, dtype=torch.long, device=text.device)
    return Generated(said, stopped, torch.stack([logits for _, logits in steps]))


@torch.inference_mode()
def speech_tokens(
    model: SpeechLanguageModel,
    text: Tensor,
    prompt_text: Tensor | None = None,
    prompt_speech: Tensor | None = None,
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Text tokens (n,), with the transcript and the speech tokens of a prompt whose voice is to go on -> each speech
    token and the logits (speech_token_size + 3,) it was drawn from, as they come; a stop token comes last, unless the
    limit, which counts `text` alone, was met. The same `generator` state gives the same tokens.
    Raises ValueError for empty text, for a sequence beyond the backbone's positions, and for logits that are not
    finite."""
    sampling = sampling or Sampling()
    if not len(text):
        raise ValueError("no text tokens; the text is empty after normalisation")
    prompt_text = text[:0] if prompt_text is None else prompt_text
    prompt_speech = text[:0] if prompt_speech is None else prompt_speech
    embedded = model.prompt(torch.cat([prompt_text, text]), prompt_speech)
    at_least = int(len(text) * sampling.min_token_text_ratio)
    at_most = int(len(text) * sampling.max_token_text_ratio)
    room = model.config.qwen2.max_position_embeddings
    if embedded.shape[1] + at_most > room:
        raise ValueError(
            f"{embedded.shape[1]} positions of prompt and text and up to {at_most} to come, the model has {room}; "
            "split the text or shorten the prompt"
        )
    cache = DynamicCache(config=model.llm.model.config)
    end = model.config.speech_token_size
    history: list[int] = []
    for step in range(at_most):
        output = model.llm.model.model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
        logits = model.llm_decoder(output.last_hidden_state[0, -1]).float()
        if not logits.isfinite().all():
            raise ValueError("the language model says NaN or infinity; were its weights damaged, or LoRA merged twice?")
        scores = logits.log_softmax(-1)
        if sampling.ends == "end":
            scores[end + 1 :] = -torch.inf
        if step < at_least:
            scores[end] = -torch.inf
        token = repetition_aware(scores, history, sampling, generator)
        yield token, logits
        if token in model.stop_tokens:
            return
        history.append(token)
        embedded = model.speech_embedding(text.new_tensor([[token]]))
