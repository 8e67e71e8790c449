"""The losses: 0.2 text + 0.8 semantic codes, and in stage 2 the speaker behind the gradient reversal.

Sources: IndexTTS2 (arXiv 2506.21619), Ganin et al. 2016 (JMLR 17(59)), parity case grl_small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tts_kernel.data.batch import Batch
from tts_kernel.data.speakers import UNKNOWN
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.optim.schedules import reversal_ramp
from tts_kernel.recipes.indextts2.settings import Settings


class PairObjective(nn.Module):
    """0.2 text CE + 0.8 code CE, and in stage 2 the speaker CE behind the gradient reversal. A module, so that what
    wraps it to train in several processes sees every parameter used in its forward pass."""

    tokens = watched = ("text", "mel")

    def __init__(self, model: UnifiedVoice, settings: Settings, horizon: int) -> None:
        super().__init__()
        self.model, self.settings, self.horizon = model, settings, horizon
        self.weights: Mapping[str, float] = {"text": settings.text_weight, "mel": settings.mel_weight}
        self.names: tuple[str, ...] = ("text", "mel", "mel_top1")
        if model.speaker_classifier is not None:
            self.weights = {**self.weights, "speaker": settings.speaker_loss_weight}
            self.names += ("speaker", "speaker_acc")

    def counts(self, batch: Batch) -> dict[str, int]:
        rows, codes = len(batch.ids), int(batch.code_lengths.sum())
        counts = {"text": int(batch.text_lengths.sum()) + rows, "mel": codes + rows, "mel_top1": codes + rows}
        if "speaker" in self.weights:
            counts["speaker"] = counts["speaker_acc"] = int((batch.speaker_ids != UNKNOWN).sum())
        return counts

    def before_step(self, step: int) -> dict[str, float]:
        if "speaker" not in self.weights:
            return {}
        strength = reversal_ramp(
            step, total=self.horizon, peak=self.settings.grl_lambda, ramp=self.settings.grl_schedule
        )
        self.model.reversal.strength = strength
        return {"train/grl_lambda": strength}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over the batch's targets, each a scalar: losses in nats, and right answers."""
        emotion = emotion_vector(self.model, batch)
        conditions = self.model.conditions(
            speaker_latents(self.model, batch), emotion, batch.code_lengths, self.settings.duration_mode
        )
        said = self.model(conditions, batch.text_tokens, batch.text_lengths, batch.codes, batch.code_lengths)
        sums = {
            "text": cross_entropy(said.text_logits.float(), said.text_targets, reduction="sum"),
            "mel": cross_entropy(said.code_logits.float(), said.code_targets, reduction="sum"),
            "mel_top1": (said.code_logits.argmax(-1) == said.code_targets).sum(),
        }
        if "speaker" in self.weights:
            # An idle process has no rows of its own to show the adversary.
            seen, speakers = (emotion[:0], batch.speaker_ids[:0]) if batch.idle else (emotion, batch.speaker_ids)
            logits = self.model.speaker_logits(seen).float()
            sums["speaker"] = cross_entropy(logits, speakers, ignore_index=UNKNOWN, reduction="sum")
            sums["speaker_acc"] = (logits.argmax(-1) == speakers).sum()
        return sums

    def summary(self, split: Literal["train", "val"], means: Mapping[str, float]) -> dict[str, float]:
        gpt = self.weights["text"] * means["text"] + self.weights["mel"] * means["mel"]
        metrics = {
            "text_loss": means["text"],
            "mel_loss": means["mel"],
            "gpt_loss" if split == "train" else "loss": gpt,
            "mel_top1": means["mel_top1"],
        }
        if "speaker" in means:
            metrics |= {"speaker_loss": means["speaker"], "speaker_acc": means["speaker_acc"]}
        return {f"{split}/{name}": value for name, value in metrics.items()}


def emotion_vector(model: UnifiedVoice, batch: Batch) -> Tensor:
    """(batch, model_dim): stored, or computed here so that the reversed gradient reaches the encoder."""
    if batch.emotion_vector is not None:
        return batch.emotion_vector
    assert batch.emotion_features is not None
    assert batch.emotion_lengths is not None
    return model.emotion_vector(batch.emotion_features, batch.emotion_lengths)


def speaker_latents(model: UnifiedVoice, batch: Batch) -> Tensor:
    """(batch, condition_num_latent, model_dim)."""
    if batch.latents is not None:
        return batch.latents
    assert batch.speaker_features is not None
    assert batch.speaker_lengths is not None
    return model.speaker_latents(batch.speaker_features, batch.speaker_lengths)
