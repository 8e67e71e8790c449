"""Sizes of MeloTTS's three networks under their public names; the defaults are the published ones.

Source of names and values: parity cases layout_full, synthesizer_small and discriminators_small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tts_kernel.models.config_types import below_one, no_shares, refuse


@dataclass(frozen=True)
class SynthesizerConfig:
    """The generator: text encoder, posterior encoder, flow, duration predictors and decoder."""

    n_vocab: int = 219  # phones and punctuation
    num_tones: int = 16
    num_languages: int = 8
    n_speakers: int = 256
    bert_channels: int = 1024  # width of the text encoder's features
    ja_bert_channels: int = 0  # of the public models' second features, 768; 0 for one text encoder in every language
    spec_channels: int = 1025  # bins of the linear spectrogram
    segment_size: int = 32  # frames that the decoder learns from at once
    inter_channels: int = 192  # latent
    hidden_channels: int = 192
    filter_channels: int = 768  # feed-forward width
    n_heads: int = 2
    n_layers: int = 6  # of the text encoder
    n_layers_trans_flow: int = 3  # of each coupling layer's transformer
    kernel_size: int = 3  # of the text encoder's feed-forward layers
    p_dropout: float = 0.1
    gin_channels: int = 256  # speaker vector
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2, 2)
    upsample_initial_channel: int = 512
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 8, 2, 2)
    mas_noise_scale_initial: float = 0.01  # of the alignment search at step 0
    noise_scale_delta: float = 2e-6  # by which it falls with each step

    def __post_init__(self) -> None:
        problems = below_one(self, but=("ja_bert_channels",)) + no_shares(self, "dropout")
        problems += [
            f"{name} is {getattr(self, name)}, expected at least 0"
            for name in ("ja_bert_channels", "mas_noise_scale_initial", "noise_scale_delta")
            if getattr(self, name) < 0
        ]
        if not problems:
            problems = self._contradictions()
        refuse(problems)

    def _contradictions(self) -> list[str]:
        problems = []
        if self.hidden_channels % self.n_heads:
            problems.append(f"hidden_channels {self.hidden_channels} is no multiple of {self.n_heads} heads")
        if self.inter_channels % 2:
            problems.append(f"inter_channels {self.inter_channels} cannot be halved by a coupling layer")
        problems += [
            f"{name} is {getattr(self, name)}, expected at least 3: the speaker vector enters before the third layer"
            for name in ("n_layers", "n_layers_trans_flow")
            if getattr(self, name) < 3
        ]
        if not all(size % 2 for size in (self.kernel_size, *self.resblock_kernel_sizes)):
            problems.append("kernel_size and resblock_kernel_sizes must be odd")
        for name, other in (
            ("resblock_dilation_sizes", "resblock_kernel_sizes"),
            ("upsample_kernel_sizes", "upsample_rates"),
        ):
            if len(getattr(self, name)) != len(getattr(self, other)):
                problems.append(f"{name} and {other} differ in length")
        for rate, size in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=False):
            if size < rate or (size - rate) % 2:
                problems.append(
                    f"upsample_kernel_sizes: {size} does not go with rate {rate}, expected it or an even step more"
                )
        if self.upsample_initial_channel % 2 ** len(self.upsample_rates):
            problems.append(
                f"upsample_initial_channel {self.upsample_initial_channel} cannot be halved "
                f"{len(self.upsample_rates)} times"
            )
        return problems

    @property
    def samples_per_frame(self) -> int:
        return math.prod(self.upsample_rates)


@dataclass(frozen=True)
class DurationDiscriminatorConfig:
    """The discriminator of durations."""

    in_channels: int = 192  # hidden_channels of the text encoder
    filter_channels: int = 192
    kernel_size: int = 3
    p_dropout: float = 0.1
    gin_channels: int = 256

    def __post_init__(self) -> None:
        problems = below_one(self) + no_shares(self, "dropout")
        if self.kernel_size % 2 == 0:
            problems.append(f"kernel_size is {self.kernel_size}, expected an odd number")
        refuse(problems)

    @classmethod
    def beside(cls, config: SynthesizerConfig) -> DurationDiscriminatorConfig:
        """The one that goes with a generator."""
        return cls(config.hidden_channels, config.hidden_channels, gin_channels=config.gin_channels)
