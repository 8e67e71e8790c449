"""The three models at sizes that a test can train, their weights by the rule of the parity cases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tests.parity import fill
from tts_kernel.models.melotts.config import DurationDiscriminatorConfig, SynthesizerConfig
from tts_kernel.models.melotts.discriminators import DurationDiscriminator
from tts_kernel.models.melotts.synthesizer import Synthesizer, Training, TrainingDraws
from tts_kernel.models.melotts.text_encoder import Text

CONFIG = SynthesizerConfig(
    n_vocab=11,
    num_tones=5,
    num_languages=3,
    n_speakers=4,
    bert_channels=7,
    spec_channels=9,
    segment_size=4,
    inter_channels=6,
    hidden_channels=8,
    filter_channels=12,
    n_layers=3,
    gin_channels=5,
    resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 3), (1,)),
    upsample_rates=(4, 2),
    upsample_initial_channel=8,
    upsample_kernel_sizes=(8, 4),
)


def synthesizer(*, reference_padding: bool = False, **changes: Any) -> Synthesizer:
    model = Synthesizer(replace(CONFIG, **changes), reference_padding=reference_padding).eval()
    fill.fill(model)
    return model


def duration_discriminator() -> DurationDiscriminator:
    model = DurationDiscriminator(DurationDiscriminatorConfig.beside(CONFIG)).eval()
    fill.fill(model)
    return model


@dataclass(frozen=True)
class Clips:
    """Three, padded with zeros."""

    text: Text
    spectrogram: Tensor  # (3, 9, frames)
    lengths: Tensor  # frames
    speakers: Tensor

    def alone(self, row: int) -> Clips:
        """One clip without the padding that its neighbours need."""
        pick, tokens, frames = slice(row, row + 1), int(self.text.lengths[row]), int(self.lengths[row])
        ids = (value[pick, :tokens] for value in (self.text.phones, self.text.tones, self.text.languages))
        phones, tones, languages = ids
        text = Text(phones, self.text.lengths[pick], tones, languages, self.text.features[pick, :, :tokens])
        return Clips(text, self.spectrogram[pick, :, :frames], self.lengths[pick], self.speakers[pick])


def clips() -> Clips:
    random = torch.Generator().manual_seed(3)
    tokens, frames = torch.tensor([7, 4, 6]), torch.tensor([19, 12, 8])
    real = torch.arange(7) < tokens[:, None]

    def ids(high: int) -> Tensor:
        return torch.randint(1, high, (3, 7), generator=random) * real

    features = torch.randn(3, CONFIG.bert_channels, 7, generator=random) * real[:, None]
    text = Text(ids(CONFIG.n_vocab), tokens, ids(CONFIG.num_tones), ids(CONFIG.num_languages), features)
    spectrogram = torch.rand(3, CONFIG.spec_channels, 19, generator=random)
    spectrogram = spectrogram * (torch.arange(19) < frames[:, None])[:, None]
    return Clips(text, spectrogram, frames, torch.tensor([2, 0, 3]))


def draws(model: Synthesizer, given: Clips, seed: int = 1) -> TrainingDraws:
    return model.draw(given.text, given.spectrogram, torch.Generator().manual_seed(seed))


def drawn_for(row: int, given: Clips, drawn: TrainingDraws) -> TrainingDraws:
    """What one row of a batch drew, without the padding."""
    pick, tokens, frames = slice(row, row + 1), int(given.text.lengths[row]), int(given.lengths[row])
    return TrainingDraws(
        drawn.posterior[pick, :, :frames],
        drawn.alignment[pick, :frames, :tokens],
        drawn.durations[pick, :, :tokens],
        drawn.segments[pick],
    )


def step(model: Synthesizer, given: Clips, drawn: TrainingDraws, alignment_noise: float = 0.0) -> Training:
    return model(
        given.text, given.spectrogram, given.lengths, given.speakers, alignment_noise=alignment_noise, draws=drawn
    )


def speaker(rows: int = 3) -> Tensor:
    """Vectors (rows, gin_channels, 1)."""
    return torch.randn(rows, CONFIG.gin_channels, 1, generator=torch.Generator().manual_seed(8))


def without_gradient(model: torch.nn.Module) -> list[str]:
    """Names of parameters that no gradient other than zero has reached."""
    return [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
