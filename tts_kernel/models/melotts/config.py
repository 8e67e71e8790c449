"""Sizes of MeloTTS's three networks under their public names; the defaults are the published ones.

Source of names and values: parity cases layout_full, synthesizer_small and discriminators_small.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar


class ConfigError(ValueError):
    """A model configuration with unknown keys, wrong types, or sizes that contradict each other."""


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
        problems = _below_one(self, but=("ja_bert_channels",))
        problems += [
            f"{name} is {getattr(self, name)}, expected at least 0"
            for name in ("ja_bert_channels", "mas_noise_scale_initial", "noise_scale_delta")
            if getattr(self, name) < 0
        ]
        if not 0 <= self.p_dropout < 1:
            problems.append(f"p_dropout is {self.p_dropout}, expected at least 0 and below 1")
        if not problems:
            problems = self._contradictions()
        _refuse(problems)

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
                problems.append(f"upsample_kernel_sizes: {size} does not go with rate {rate}, expected it or an even step more")
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
        problems = _below_one(self)
        if not 0 <= self.p_dropout < 1:
            problems.append(f"p_dropout is {self.p_dropout}, expected at least 0 and below 1")
        if self.kernel_size % 2 == 0:
            problems.append(f"kernel_size is {self.kernel_size}, expected an odd number")
        _refuse(problems)

    @classmethod
    def beside(cls, config: SynthesizerConfig) -> DurationDiscriminatorConfig:
        """The one that goes with a generator."""
        return cls(config.hidden_channels, config.hidden_channels, gin_channels=config.gin_channels)


@dataclass(frozen=True)
class PublicConfig:
    """What a published `config.json` says about its checkpoint."""

    model: SynthesizerConfig
    symbols: tuple[str, ...]  # by id; empty where the file does not list them
    speakers: dict[str, int] = field(default_factory=dict)  # ids by name
    sampling_rate: int = 44_100  # Hz
    filter_length: int = 2048  # samples of an STFT window
    hop_length: int = 512  # samples
    n_mel_channels: int = 128


Config = TypeVar("Config", SynthesizerConfig, DurationDiscriminatorConfig)

# Keys that describe what is fixed here: accepted with this value, refused with another.
_FIXED: dict[type, dict[str, Any]] = {
    SynthesizerConfig: {
        "resblock": "1",
        "use_spk_conditioned_encoder": True,
        "use_mel_posterior_encoder": False,
        "use_spectral_norm": False,
        "use_transformer_flow": True,
        "use_sdp": True,
    },
}
_IGNORED: dict[type, set[str]] = {SynthesizerConfig: {"n_layers_q", "use_duration_discriminator"}}


def config_from_mapping(kind: type[Config], values: Mapping[str, Any], where: str = "model configuration") -> Config:
    """Sizes from a parity case's `config`, a run's, or the `model` section of a public config.json.
    Raises ConfigError listing every unknown key, wrong type, and variant of the architecture that this one is not."""
    problems: list[str] = []
    arguments: dict[str, Any] = {}
    known = {item.name: item.default for item in fields(kind)}
    for name, value in values.items():
        if name in known:
            arguments[name] = _typed(value, known[name], name, problems)
        elif name == "use_noise_scaled_mas" and kind is SynthesizerConfig:
            if value is not True:
                arguments["mas_noise_scale_initial"] = 0.0
        elif name in _FIXED.get(kind, {}):
            if value != _FIXED[kind][name]:
                problems.append(f"{name} is {value!r}, only {_FIXED[kind][name]!r} is supported")
        elif name not in _IGNORED.get(kind, set()):
            problems.append(f"{name} is not a known setting")
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))
    try:
        return kind(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def to_mapping(config: SynthesizerConfig | DurationDiscriminatorConfig) -> dict[str, Any]:
    """Plain values that `config_from_mapping` reads back."""
    return asdict(config)


def config_from_public(values: Mapping[str, Any], where: str = "config.json") -> PublicConfig:
    """A published `config.json`: sections `train`, `data`, `model`, and the symbols beside them. Its models have two
    text encoders' features unless `model.ja_bert_channels` says otherwise.
    Raises ConfigError listing every key that is missing, unknown or of a wrong type."""
    problems: list[str] = []
    sections: dict[str, Mapping[str, Any]] = {}
    for name in ("train", "data", "model"):
        section = values.get(name)
        if not isinstance(section, Mapping):
            problems.append(f"section {name} is {'missing' if section is None else 'no section'}")
        sections[name] = section if isinstance(section, Mapping) else {}
    data, symbols, speakers = sections["data"], values.get("symbols", []), sections["data"].get("spk2id", {})
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        problems.append("symbols is no list of strings")
    if not isinstance(speakers, Mapping) or not all(type(number) is int for number in speakers.values()):
        problems.append("data.spk2id does not map names to integers")
    sizes = {
        name: _typed(data.get(name, default), default, f"data.{name}", problems)
        for name, default in (("sampling_rate", 44_100), ("filter_length", 2048), ("hop_length", 512))
    }
    mels = _typed(data.get("n_mel_channels", 128), 128, "data.n_mel_channels", problems)
    segment = _typed(sections["train"].get("segment_size", 16_384), 1, "train.segment_size", problems)
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))
    model: dict[str, Any] = {"ja_bert_channels": 768}
    model |= {"spec_channels": sizes["filter_length"] // 2 + 1, "segment_size": segment // sizes["hop_length"]}
    model |= {"n_speakers": data["n_speakers"]} if "n_speakers" in data else {}
    model |= {name: values[name] for name in ("num_tones", "num_languages") if name in values}
    model |= {name: sections["train"][name] for name in ("mas_noise_scale_initial", "noise_scale_delta") if name in sections["train"]}
    model |= {"n_vocab": len(symbols)} if symbols else {}
    config = config_from_mapping(SynthesizerConfig, model | sections["model"], where=f"{where}: model")
    if config.samples_per_frame != sizes["hop_length"]:
        raise ConfigError(
            f"{where}: upsample_rates multiply to {config.samples_per_frame}, expected hop_length {sizes['hop_length']}"
        )
    return PublicConfig(config, tuple(symbols), dict(speakers), **sizes, n_mel_channels=mels)


def read_config(path: Path) -> PublicConfig:
    """`config_from_public` of a file. Raises ConfigError also where there is none, or no JSON in it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found; put the config.json that belongs to the checkpoint beside it") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}, expected sections train, data and model")
    return config_from_public(values, where=str(path))


def _typed(value: Any, default: Any, name: str, problems: list[str]) -> Any:
    """`value` as its default's type; lists become tuples."""
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not value:
            problems.append(f"{name} is {value!r}, expected a list")
            return default
        return tuple(_typed(item, default[0], name, problems) for item in value)
    allowed = (int, float) if isinstance(default, float) else int
    if isinstance(value, bool) or not isinstance(value, allowed):
        problems.append(f"{name} is {value!r}, expected {'a number' if isinstance(default, float) else 'an integer'}")
        return default
    return value


def _below_one(config: Any, but: tuple[str, ...] = ()) -> list[str]:
    """Integers of `config`, in its lists too, that are below 1."""

    def numbers(value: Any) -> list[int]:
        if isinstance(value, tuple):
            return [number for item in value for number in numbers(item)]
        return [value] if isinstance(value, int) else []

    return [
        f"{item.name} is {getattr(config, item.name)}, expected at least 1"
        for item in fields(config)
        if item.name not in but and min(numbers(getattr(config, item.name)), default=1) < 1
    ]


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("; ".join(problems))
