"""The two losses: cross-entropy of the speech tokens, and the squared error of the flow's velocity.

Every random choice for an utterance (interleaved or not, prompt, time, noise, dropped condition) follows from seed,
epoch and names, not from torch's global state: a resume repeats it, and held-out utterances are judged by the same
choices at every validation.

Both losses are means over all targets of an update; the reference averages the means of its batches, which weighs an
utterance by its company.

Sources: CosyVoice 2 (arXiv 2412.10117), sections 2.3 and 2.4; parity cases llm_small and flow_small.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tts_kernel.data.pipeline.batches import VoiceBatch
from tts_kernel.lora import Adapted
from tts_kernel.models.cosyvoice2.flow import TokenToMel, draw
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.models.cosyvoice2.sequences import may_interleave

Model = TypeVar("Model", SpeechLanguageModel, TokenToMel)


class TokenObjective(nn.Module):
    """Mean cross-entropy of the speech tokens, and the share that is predicted right. `model` is a language model, as
    it is or adapted."""

    names, tokens, watched = ("loss", "acc"), ("loss",), ("loss",)
    weights: Mapping[str, float] = {"loss": 1.0}

    def __init__(self, model: nn.Module, seed: int) -> None:
        super().__init__()
        self.model, self.seed = model, seed

    def counts(self, batch: VoiceBatch) -> dict[str, int]:
        """Every speech token is a target, the end, and after each turn of interleaved speech the wish for more text."""
        model = plain(self.model, SpeechLanguageModel)
        ratio = model.config.mix_ratio
        targets = int(batch.speech_lengths.sum()) + len(batch.ids)
        rows = zip(self.interleaved(batch), batch.text_lengths.tolist(), batch.speech_lengths.tolist(), strict=True)
        for asked, text, speech in rows:
            if asked and may_interleave(text, speech, ratio):
                targets += text // ratio[0]
        return {"loss": targets, "acc": targets}

    def interleaved(self, batch: VoiceBatch) -> list[bool]:
        """(batch,) whose text and speech take turns, half of all utterances in every epoch."""
        return [_random(self.seed, batch, name).random() < 0.5 for name in batch.ids]

    def before_step(self, step: int) -> dict[str, float]:
        return {}

    def forward(self, batch: VoiceBatch) -> dict[str, Tensor]:
        """Sums over the targets: nats, and right answers."""
        model = plain(self.model, SpeechLanguageModel)
        sequences = model.lay_out_batch(
            batch.text_tokens, batch.text_lengths, batch.speech_tokens, batch.speech_lengths, self.interleaved(batch)
        )
        said = model(sequences)
        return {
            "loss": cross_entropy(said.logits.float(), said.targets, reduction="sum"),
            "acc": (said.logits.argmax(-1) == said.targets).sum(),
        }

    def summary(self, split: Literal["train", "val"], means: Mapping[str, float]) -> dict[str, float]:
        return {f"{split}/{name}": value for name, value in means.items()}


class VelocityObjective(nn.Module):
    """Mean squared error of the velocity over all values of all frames. `model` is a flow, as it is or adapted."""

    names = tokens = watched = ("loss",)
    weights: Mapping[str, float] = {"loss": 1.0}

    def __init__(self, model: nn.Module, seed: int) -> None:
        super().__init__()
        self.model, self.seed = model, seed

    def counts(self, batch: VoiceBatch) -> dict[str, int]:
        """Frames."""
        return {"loss": int(batch.mel_lengths.sum())}

    def before_step(self, step: int) -> dict[str, float]:
        return {}

    def forward(self, batch: VoiceBatch) -> dict[str, Tensor]:
        """The sum over frames of the mean over bands."""
        model = plain(self.model, TokenToMel)
        generator = torch.Generator().manual_seed(_random(self.seed, batch, *batch.ids).getrandbits(63))
        estimate = model(
            batch.speech_tokens,
            batch.speech_lengths,
            batch.mel,
            batch.mel_lengths,
            batch.embedding,
            draw(batch.mel, batch.mel_lengths, generator),
        )
        return {"loss": estimate.squared_error / model.config.output_size}

    def summary(self, split: Literal["train", "val"], means: Mapping[str, float]) -> dict[str, float]:
        return {f"{split}/loss": means["loss"]}


def plain(model: nn.Module, kind: type[Model]) -> Model:
    """The model itself, from inside its adapter if it has one."""
    found = model.model if isinstance(model, Adapted) else model
    assert isinstance(found, kind)
    return found


def _random(seed: int, batch: VoiceBatch, *names: str) -> random.Random:
    """The same for the same utterances in the same epoch; held-out ones are always in their first."""
    epoch = batch.position.epoch if batch.position else 0
    return random.Random(f"{seed}/{epoch}/{'/'.join(names)}")
