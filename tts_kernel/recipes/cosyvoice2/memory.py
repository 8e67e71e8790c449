"""Memory that training takes, estimated before it starts: the step is taken on meta tensors, which have shapes and no
values, and what it would keep for the backward pass is added up.

In float32, which is what a T4 computes in. Attention counts as torch's plain path keeps it; fused kernels keep less, so
the estimate is high for long utterances. Gradient checkpointing, which keeps less, is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tts_kernel.data.pipeline import PipelinePlan
from tts_kernel.lora import Adapted, Lora
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.models.flow_matching import Conditions, Draws
from tts_kernel.recipes.cosyvoice2.model import Sizes, fresh
from tts_kernel.recipes.cosyvoice2.settings import ModelName

GB = 1e9
RESERVE = 1.0  # GB that CUDA and its kernels take
ALLOWANCE = 1.3  # for what passes and for gaps between tensors; steps of small models took 1.2 to 1.35 times the count
_MOMENTS = 2  # values that Adam keeps of each one that is trained
_PASSING = 3  # of the largest tensors have a gradient at the same time


@dataclass(frozen=True)
class Needed:
    """GB of one model's training."""

    weights: float
    trained: float  # gradients and the optimiser's moments
    batch: float  # what a step with the largest batch takes beside them

    @property
    def total(self) -> float:
        return self.weights + self.trained + self.batch + RESERVE

    def __str__(self) -> str:
        return (
            f"{self.total:.1f} GB: weights {self.weights:.2f}, gradients and moments {self.trained:.2f}, the largest "
            f"batch {self.batch:.2f}, CUDA {RESERVE:.1f}"
        )


def largest_batch(plan: PipelinePlan, name: ModelName) -> tuple[int, int]:
    """Rows and length (positions of the LLM, frames of the flow) of the first epoch's largest batch."""
    counted, lengths = plan.first, plan.lengths
    size = lengths.frames
    if name == "llm":
        size = lengths.text_tokens + lengths.speech_tokens + 2
    longest = np.maximum.reduceat(size[counted.order], counted.starts)
    worst = int(np.argmax(longest * counted.sizes()))
    return int(counted.sizes()[worst]), int(longest[worst])


def estimate(name: ModelName, sizes: Sizes, lora: Lora | None, rows: int, length: int) -> Needed:
    """For `rows` utterances of `length` positions or frames, with an adapter or, without `lora`, trained whole."""
    with torch.device("meta"):
        net: Any = fresh(name, sizes)
        model: nn.Module = Adapted(net, lora) if lora else net
        model.train()
        kept = _Kept(model.parameters())
        with saved_tensors_hooks(kept.add, lambda tensor: tensor):
            step: Callable[[Any, int, int], Tensor] = _llm_loss if name == "llm" else _flow_loss
            step(net, rows, length)
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    return Needed(
        weights=sum(parameter.nbytes for parameter in model.parameters()) / GB,
        trained=(1 + _MOMENTS) * trained / GB,
        batch=ALLOWANCE * (sum(kept.sizes.values()) + sum(sorted(kept.sizes.values())[-_PASSING:])) / GB,
    )


class _Kept:
    """What autograd keeps beside the parameters; tensors that share memory count once."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.sizes: dict[int, int] = {}
        self._held: list[Tensor] = []  # else a number could be given to another one
        self._weights = {parameter.untyped_storage()._cdata for parameter in parameters}

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            self.sizes[storage._cdata] = storage.nbytes()
            self._held.append(tensor)
        return tensor


def _llm_loss(model: SpeechLanguageModel, rows: int, length: int) -> Tensor:
    """Every position with a target."""
    tokens = torch.zeros(rows, length, dtype=torch.long)
    embedded = model.speech_embedding(tokens)
    # The mask that transformers would find, from values that there are not.
    found = model.llm.model.model(inputs_embeds=embedded, attention_mask={"full_attention": None}, use_cache=False)
    logits = model.llm_decoder(found.last_hidden_state)
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens.flatten())


def _flow_loss(model: TokenToMel, rows: int, frames: int) -> Tensor:
    """In chunks, whose masks do not depend on values."""
    config = model.config
    tokens = torch.zeros(rows, frames // config.token_mel_ratio, dtype=torch.long)
    real = torch.ones(tokens.shape, dtype=torch.bool)
    mu = model.encoder_proj(model.encoder(model.embed(tokens, real), real, streaming=True)).transpose(1, 2)
    mel = torch.zeros_like(mu)
    conditions = Conditions(mu, model.speaker(torch.zeros(rows, config.spk_embed_dim)), mel)
    draws = Draws(torch.zeros(rows), torch.zeros_like(mel), torch.zeros(rows))
    return model.decoder(mel, torch.ones_like(mel[:, :1]), conditions, draws, streaming=True).loss
