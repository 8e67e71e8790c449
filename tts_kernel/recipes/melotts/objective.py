"""What generator and discriminators learn from, in the two parts of an update.

Sources: VITS (arXiv 2106.06103), VITS2 (arXiv 2307.16430); the losses are models/melotts/losses.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tts_kernel.audio.spectrogram import melotts_mel
from tts_kernel.data.spoken.batches import SpokenBatch
from tts_kernel.data.spoken.clips import HOP
from tts_kernel.models.melotts.alignment import noise_scale
from tts_kernel.models.melotts.discriminators import halves
from tts_kernel.models.melotts.losses import (
    discriminator_loss,
    duration_discriminator_loss,
    duration_generator_loss,
    feature_loss,
    generator_loss,
    judge_durations,
    kl_loss,
    mel_loss,
)
from tts_kernel.models.melotts.synthesizer import Training, segments
from tts_kernel.models.melotts.text_encoder import Text
from tts_kernel.recipes.melotts.model import Networks
from tts_kernel.recipes.melotts.settings import Settings


@dataclass(frozen=True)
class Said:
    """A batch as the generator said it, and the recordings of the same segments."""

    training: Training
    recorded: Tensor  # (batch, 1, segment_size * HOP)


class VoiceObjective(nn.Module):
    """Every loss as a sum over its targets: rows, frames of the KL divergence, tokens of the durations."""

    tokens, watched = ("dur",), ("mel",)

    def __init__(self, model: Networks, settings: Settings) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        self.mel = melotts_mel()
        self.alignment_noise = 0.0
        own: dict[str, float] = {
            "mel": settings.c_mel,
            "kl": settings.c_kl,
            "dur": 1.0,
            "adv": 1.0,
            "fm": 1.0,
            "d": 1.0,
        }
        if model.DUR is not None:
            own |= {"dur_adv": 1.0, "dur_d": 1.0}
        self.weights: Mapping[str, float] = own
        self.names = (*own, "longest")

    @property
    def generator(self) -> nn.Module:
        return self.model.G

    @property
    def critics(self) -> dict[str, nn.Module]:
        """By the name that their gradient is logged under."""
        return {"d": self.model.D, **({"dur": self.model.DUR} if self.model.DUR is not None else {})}

    def counts(self, batch: SpokenBatch) -> dict[str, int]:
        rows, frames = len(batch.ids), int(batch.frame_lengths.sum())
        own = {"kl": frames, "dur": int(batch.token_lengths.sum())}
        return {name: own.get(name, rows) for name in self.names}

    def before_step(self, step: int) -> dict[str, float]:
        config = self.model.G.config
        self.alignment_noise = noise_scale(step, config.mas_noise_scale_initial, config.noise_scale_delta)
        return {"alignment_noise": self.alignment_noise}

    # Training

    def say(self, batch: SpokenBatch) -> Said:
        """The generator's forward pass."""
        said = self.model.G(
            text_of(batch),
            batch.spectrograms,
            batch.frame_lengths,
            batch.speakers,
            alignment_noise=self.alignment_noise,
        )
        return Said(said, self._recorded(batch, said))

    def judge(self, batch: SpokenBatch, said: Said) -> dict[str, Tensor]:
        """What the discriminators learn from."""
        rows = len(batch.ids)
        real, synthetic = halves(self.model.D(torch.cat([said.recorded, said.training.audio.detach()])))
        sums = {"d": discriminator_loss(real, synthetic)[0] * rows}
        if self.model.DUR is not None:
            reference = self.settings.reference_losses
            recorded, predicted = judge_durations(
                self.model.DUR, said.training, for_generator=False, reference=reference
            )
            loss = duration_discriminator_loss(recorded, predicted, said.training.prior.mask, reference)[0]
            sums["dur_d"] = loss * rows
        return sums

    def please(self, batch: SpokenBatch, said: Said) -> dict[str, Tensor]:
        """What the generator learns from."""
        rows = len(batch.ids)
        with torch.no_grad():  # the generator learns nothing from what is thought of recordings
            real = self.model.D(said.recorded)
        synthetic = self.model.D(said.training.audio)
        sums = self._own_losses(batch, said.training)
        sums |= {"adv": generator_loss(synthetic)[0] * rows, "fm": feature_loss(real, synthetic) * rows}
        if self.model.DUR is not None:
            reference = self.settings.reference_losses
            _, predicted = judge_durations(self.model.DUR, said.training, for_generator=True, reference=reference)
            sums["dur_adv"] = duration_generator_loss(predicted, said.training.prior.mask, reference) * rows
        return sums

    # Validation

    def forward(self, batch: SpokenBatch) -> dict[str, Tensor]:
        """The generator's own losses, always by the same draws, so that validations compare and training misses none;
        and which share of a clip its longest token takes: nearly all of it where nothing is aligned yet."""
        text, generator = text_of(batch), self.model.G
        draws = generator.draw(text, batch.spectrograms, torch.Generator().manual_seed(self.settings.seed))
        lengths = batch.frame_lengths
        said = generator(text, batch.spectrograms, lengths, batch.speakers, alignment_noise=0.0, draws=draws)
        return {**self._own_losses(batch, said), "longest": (said.durations.amax(dim=1) / lengths).sum()}

    def summary(self, split: Literal["train", "val"], means: Mapping[str, float]) -> dict[str, float]:
        plain = {"mel_loss": means["mel"], "kl_loss": means["kl"], "duration_loss": means["dur"]}
        if split == "val":
            return {"val/loss": means["mel"], **_named("val", plain), "val/longest_phone": means["longest"]}
        weighted = {name: self.weights[name] * means[name] for name in self.weights}
        critics = ("d", "dur_d")
        metrics = {
            "loss/g/total": sum(value for name, value in weighted.items() if name not in critics),
            "loss/g/mel": weighted["mel"],
            "loss/g/kl": weighted["kl"],
            "loss/g/dur": weighted["dur"],
            "loss/g/gen": weighted["adv"],
            "loss/g/fm": weighted["fm"],
            "loss/d/total": means["d"],
        }
        if self.model.DUR is not None:
            metrics |= {"loss/g/dur_gen": means["dur_adv"], "loss/dur/total": means["dur_d"]}
        judged = {"generator_loss": metrics["loss/g/total"], "discriminator_loss": means["d"]}
        return metrics | _named("train", plain | judged)

    def _own_losses(self, batch: SpokenBatch, said: Training) -> dict[str, Tensor]:
        """That need no discriminator."""
        rows, frames, tokens = len(batch.ids), said.frame_mask.sum(), said.prior.mask.sum()
        with torch.autocast(said.audio.device.type, enabled=False):
            spoken = self.mel(said.audio[:, 0].float())
            recorded = self.mel.of_magnitudes(segments(batch.spectrograms, said.starts, spoken.shape[2]))
        return {
            "mel": mel_loss(recorded, spoken) * rows,
            "kl": kl_loss(said.z_p, said.posterior.log_deviation, said.m_p, said.logs_p, said.frame_mask) * frames,
            "dur": said.duration_loss.float().sum() * tokens,
        }

    def _recorded(self, batch: SpokenBatch, said: Training) -> Tensor:
        return segments(batch.waves, said.starts * HOP, self.model.G.config.segment_size * HOP)


def text_of(batch: SpokenBatch) -> Text:
    return Text(batch.phones, batch.token_lengths, batch.tones, batch.languages, batch.features)


def _named(split: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": value for name, value in values.items()}
