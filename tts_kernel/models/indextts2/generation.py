"""Semantic codes one after the other: greedy or sampled, with a key/value cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tts_kernel.models.indextts2.gpt import UnifiedVoice

_PLACEHOLDER = 1  # the id that the reference's prompt carries at every position


@dataclass(frozen=True)
class Sampling:
    """How the next code is chosen. The defaults are greedy; the published inference samples with temperature 0.8,
    top_k 30, top_p 0.8, repetition_penalty 10 (and three beams, which are not offered here)."""

    temperature: float = 0.0  # 0 is greedy
    top_k: int = 0  # 0 keeps all
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_codes: int = 1500
    skip_first_position: bool = False
    """The reference's cached inference embeds the first code at position 2, although training puts it at 1.
    False is what a public checkpoint was trained with, True is what its published inference does."""
    penalize_placeholders: bool = False
    """The reference also penalises code 1 and the start token from the first step on, since its prompt's placeholder
    ids are 1. True reproduces it."""

    def __post_init__(self) -> None:
        problems = []
        if not self.temperature >= 0:  # so that NaN is refused too
            problems.append(f"temperature is {self.temperature}, expected at least 0")
        if not 0 < self.top_p <= 1:
            problems.append(f"top_p is {self.top_p}, expected above 0 and at most 1")
        if not self.repetition_penalty > 0:
            problems.append(f"repetition_penalty is {self.repetition_penalty}, expected above 0")
        if self.max_codes < 1 or self.top_k < 0:
            problems.append(f"max_codes {self.max_codes} and top_k {self.top_k}: expected at least 1 and at least 0")
        if problems:
            raise ValueError("; ".join(problems))

    def processors(self) -> LogitsProcessorList:
        chosen = LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            chosen.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature > 0:
            chosen.append(TemperatureLogitsWarper(self.temperature))
            if self.top_k:
                chosen.append(TopKLogitsWarper(self.top_k))
            if self.top_p < 1.0:
                chosen.append(TopPLogitsWarper(self.top_p))
        return chosen


@dataclass(frozen=True)
class Generated:
    codes: list[Tensor]  # per row, (n,) without the stop token
    stopped: list[bool]  # whether the row ended by itself, not at max_codes
    step_logits: Tensor  # (batch, steps, number_mel_codes), raw


@torch.inference_mode()
def generate(
    model: UnifiedVoice,
    conditions: Tensor,
    texts: list[Tensor],
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
) -> Generated:
    """conditions (batch, n, model_dim) from `UnifiedVoice.conditions`, one 1-d tensor of text tokens per row.
    Raises ValueError if max_codes does not fit the model's position table."""
    sampling = sampling or Sampling()
    config = model.config
    first = 2 if sampling.skip_first_position else 1
    room = config.max_mel_tokens + 3 - first
    if sampling.max_codes > room:
        raise ValueError(f"max_codes is {sampling.max_codes}, but the model's positions end after {room} codes")
    processors = sampling.processors()
    positions = model.mel_pos_embedding.emb.weight
    embeddings, mask = model.prompt(conditions, texts)
    batch = len(embeddings)
    start = (model.mel_embedding.weight[config.start_mel_token] + positions[0]).expand(batch, 1, -1)
    embeddings = torch.cat([embeddings, start], dim=1)
    mask = torch.cat([mask, mask.new_ones(batch, 1)], dim=1)
    history = torch.empty(batch, 0, dtype=torch.long, device=embeddings.device)
    seen = (
        history.new_tensor([_PLACEHOLDER, config.start_mel_token]).expand(batch, -1)
        if sampling.penalize_placeholders
        else history
    )
    cache = DynamicCache(config=model.gpt.config)
    running = torch.ones(batch, dtype=torch.bool, device=embeddings.device)
    logits_of_steps: list[Tensor] = []
    for step in range(sampling.max_codes):
        output = model.gpt(
            inputs_embeds=embeddings,
            attention_mask=None if bool(mask.all()) else mask.long(),
            past_key_values=cache,
            use_cache=True,
        )
        logits = model.mel_head(model.final_norm(output.last_hidden_state[:, -1]))
        logits_of_steps.append(logits)
        scores = processors(torch.cat([seen, history], dim=1).long(), logits.float())  # type: ignore[arg-type]
        if sampling.temperature > 0:
            code = torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
        else:
            code = scores.argmax(-1)
        code = torch.where(running, code, config.stop_mel_token)
        history = torch.cat([history, code[:, None]], dim=1)
        running = running & (code != config.stop_mel_token)
        if not running.any():
            break
        embeddings = (model.mel_embedding(code) + positions[step + first])[:, None]
        mask = torch.cat([mask, mask.new_ones(batch, 1)], dim=1)
    codes = [row[row != config.stop_mel_token] for row in history]
    return Generated(codes, [not bool(alive) for alive in running], torch.stack(logits_of_steps, dim=1))


@torch.inference_mode()
def code_latents(model: UnifiedVoice, conditions: Tensor, text: Tensor, codes: Tensor) -> Tensor:
    """One clip's latents, what the decoder reads: the output that predicts each code, from a second, teacher-forced
    pass. conditions (1, n, model_dim), text (tokens,), codes (frames,) -> (1, frames, model_dim)."""
    text_lengths, code_lengths = text.new_tensor([len(text)]), codes.new_tensor([len(codes)])
    layout = model.layout(text_lengths.long(), code_lengths.long(), conditions.shape[1])
    hidden = model.hidden(
        conditions, model.embed_text(text[None], text_lengths), model.embed_codes(codes[None], code_lengths), layout
    )
    return hidden.flatten(0, 1)[layout.codes[:-1]][None]
