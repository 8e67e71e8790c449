"""Phones, tones, languages and a text encoder's features -> the prior distribution of every phone.

Sources: VITS (arXiv 2106.06103, section 2.5.2), VITS2 (arXiv 2307.16430, section 2.4) for the speaker vector. Settled
by parity case synthesizer_small.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.models.melotts.layers import real_positions
from tts_kernel.models.melotts.transformer import RelativeTransformer


@dataclass(frozen=True)
class Text:
    """Sentences as ids, blanks between phones included; padding holds zeros."""

    phones: Tensor  # (batch, tokens)
    lengths: Tensor  # (batch,)
    tones: Tensor  # (batch, tokens)
    languages: Tensor  # (batch, tokens)
    features: Tensor  # (batch, bert_channels, tokens), of the text encoder's token that each phone belongs to
    ja_features: Tensor | None = None  # (batch, ja_bert_channels, tokens), of a public model's second text encoder

    def to(self, device: torch.device | str) -> Text:
        def moved(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        return Text(
            moved(self.phones),
            moved(self.lengths),
            moved(self.tones),
            moved(self.languages),
            moved(self.features),
            None if self.ja_features is None else moved(self.ja_features),
        )


@dataclass(frozen=True)
class Prior:
    """What the text says about the latent frames of each token; zero on padding."""

    hidden: Tensor  # (batch, hidden_channels, tokens)
    mean: Tensor  # (batch, inter_channels, tokens)
    log_deviation: Tensor  # (batch, inter_channels, tokens)
    mask: Tensor  # (batch, 1, tokens), True on real tokens


class TextEncoder(nn.Module):
    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        width = config.hidden_channels
        self.emb = _table(config.n_vocab, width)
        self.tone_emb = _table(config.num_tones, width)
        self.language_emb = _table(config.num_languages, width)
        self.bert_proj = nn.Conv1d(config.bert_channels, width, 1)
        self.ja_bert_proj = nn.Conv1d(config.ja_bert_channels, width, 1) if config.ja_bert_channels else None
        self.encoder = RelativeTransformer(
            width,
            config.filter_channels,
            config.n_heads,
            config.n_layers,
            config.kernel_size,
            config.p_dropout,
            config.gin_channels,
        )
        self.proj = nn.Conv1d(width, 2 * config.inter_channels, 1)

    def forward(self, text: Text, speaker: Tensor) -> Prior:
        """speaker (batch, gin_channels, 1). Raises ValueError where the second features and the model do not agree."""
        if (text.ja_features is None) != (self.ja_bert_proj is None):
            wants, given = ("none", "some") if self.ja_bert_proj is None else ("them", "none")
            raise ValueError(f"ja_features: the model wants {wants}, the text has {given}; see ja_bert_channels")
        mask = real_positions(text.lengths, text.phones.shape[1])
        hidden = self.emb(text.phones) + self.tone_emb(text.tones) + self.language_emb(text.languages)
        hidden = hidden.transpose(1, 2) + self.bert_proj(text.features)
        if self.ja_bert_proj is not None:
            hidden = hidden + self.ja_bert_proj(text.ja_features)
        hidden = self.encoder(hidden * hidden.shape[1] ** 0.5, mask, speaker)
        mean, log_deviation = (self.proj(hidden) * mask).chunk(2, dim=1)
        return Prior(hidden, mean, log_deviation, mask)


def _table(entries: int, width: int) -> nn.Embedding:
    table = nn.Embedding(entries, width)
    nn.init.normal_(table.weight, std=width**-0.5)
    return table
