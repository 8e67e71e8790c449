"""Memory that training takes, estimated before it starts: the step is taken on meta tensors, which have shapes and no
values, and what it would keep for the backward pass is added up.

In float32, which is what a T4 computes in. Attention counts as torch's plain path keeps it; fused kernels keep less, so
the estimate is high for long utterances. Gradient checkpointing, which keeps less, is not counted. One model is trained
after the other, and the first has gone when the second comes: the larger of the two has to fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tts_kernel.data.pipeline import PipelinePlan
from tts_kernel.lora import Adapted, Lora
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.models.flow_matching import Conditions, Draws
from tts_kernel.optim.optimizers import OptimizerName
from tts_kernel.recipes.cosyvoice2.model import Sizes, fresh
from tts_kernel.recipes.cosyvoice2.settings import ModelName

GB = 1e9
RESERVE = 1.0  # GB that CUDA and its kernels take
# For gaps between tensors. Of small models the tensors took what was counted with plain attention and down to 0.8 of it
# with fused, a whole process on a CPU up to 1.5 times.
ALLOWANCE = 1.5
MOMENTS: dict[OptimizerName, int] = {"adamw": 2, "schedulefree": 2, "prodigy": 4}  # values kept of each trained one
_PASSING = 3  # of the largest tensors have a gradient at the same time
_NEARLY = 0.95  # of the most positions: attention weighs more
_EPOCHS, _QUICK = 5, 20_000  # epochs that are looked through for the largest batch, of corpora up to so many utterances


@dataclass(frozen=True)
class Needed:
    """GB of one model's training."""

    weights: float
    trained: float  # gradients and the optimiser's moments
    batch: float  # what a step with the largest batch takes beside them
    rows: int  # of that batch
    length: int  # of its longest row: positions of the LLM, frames of the flow

    @property
    def total(self) -> float:
        return self.weights + self.trained + self.batch + RESERVE

    def __str__(self) -> str:
        return (
            f"{self.total:.1f} GB: weights {self.weights:.2f}, gradients and moments {self.trained:.2f}, the largest "
            f"batch ({self.rows} x {self.length}) {self.batch:.2f}, CUDA {RESERVE:.1f}"
        )


def largest_batches(plan: PipelinePlan, name: ModelName) -> set[tuple[int, int]]:
    """Rows and length (positions of the LLM, frames of the flow) of the batches that may need the most: that whose
    attention relates the most pairs of positions, and one that has clearly more positions. Every epoch is batched anew;
    a small corpus is looked through for more than one."""
    lengths = plan.lengths
    size = lengths.frames
    if name == "llm":
        size = lengths.text_tokens + lengths.speech_tokens + 2
    found: list[tuple[int, int]] = []
    for epoch in range(_EPOCHS if len(lengths) <= _QUICK else 1):
        counted = plan.counted(epoch) if epoch else plan.first
        longest = np.maximum.reduceat(size[counted.order], counted.starts).astype(np.int64)
        rows = counted.sizes()
        found += [(int(rows[at]), int(longest[at])) for at in (np.argmax(rows * longest), np.argmax(rows * longest**2))]
    most = max(found, key=lambda batch: batch[0] * batch[1])
    widest = max(found, key=lambda batch: batch[0] * batch[1] ** 2)
    return {widest} if widest[0] * widest[1] >= _NEARLY * most[0] * most[1] else {widest, most}


def estimate(
    name: ModelName, sizes: Sizes, lora: Lora | None, rows: int, length: int, optimizer: OptimizerName = "adamw"
) -> Needed:
    """For `rows` utterances of `length` positions or frames, with an adapter or, without `lora`, trained whole."""
    with torch.device("meta"):
        net: Any = fresh(name, sizes)
        model: nn.Module = Adapted(net, lora) if lora else net
        kept = kept_by_step(model.train(), net, rows, length)
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    return Needed(
        weights=sum(parameter.nbytes for parameter in model.parameters()) / GB,
        trained=(1 + MOMENTS[optimizer]) * trained / GB,
        batch=ALLOWANCE * (sum(kept) + sum(sorted(kept)[-_PASSING:])) / GB,
        rows=rows,
        length=length,
    )


def kept_by_step(model: nn.Module, net: SpeechLanguageModel | TokenToMel, rows: int, length: int) -> list[int]:
    """Bytes of each tensor beside the weights that a step of `net`, inside `model` or the same, keeps for its backward
    pass; those that share memory count once. Both are on the meta device."""
    kept: WeakSet[_Saved] = WeakSet()

    def keep(tensor: Tensor) -> _Saved:
        kept.add(saved := _Saved(tensor))
        return saved

    with saved_tensors_hooks(keep, lambda saved: saved.tensor):
        loss = _llm_loss(net, rows, length) if isinstance(net, SpeechLanguageModel) else _flow_loss(net, rows, length)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    storages = [saved.tensor.untyped_storage() for saved in kept]
    assert loss.requires_grad  # and alive: what was saved on another way than to it has gone
    return list({storage._cdata: storage.nbytes() for storage in storages if storage._cdata not in weights}.values())


@dataclass(eq=False)
class _Saved:
    """Lives as long as the part of the graph that needs the tensor."""

    tensor: Tensor


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
