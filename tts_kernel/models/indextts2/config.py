"""Sizes of the autoregressive model under the names of IndexTTS-2's public `config.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

SEMANTIC_WIDTH = 1024  # w2v-BERT 2.0 features, what both published conditioners read
MEL_WIDTH = 80  # log-mel bins, what stage 2's emotion conformer reads


class ConfigError(ValueError):
    """A model configuration that is missing, unknown or contradicts itself."""


@dataclass(frozen=True)
class ConditionerConfig:
    """One conformer and the perceiver behind it."""

    output_size: int = 512  # conformer width
    linear_units: int = 2048  # its feed-forward width
    attention_heads: int = 8  # of the conformer and of the perceiver
    num_blocks: int = 6
    perceiver_mult: int = 2  # perceiver feed-forward width, in multiples of the model's


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of the whole model; the defaults are the published ones (871 million parameters)."""

    layers: int = 24
    model_dim: int = 1280
    heads: int = 20
    max_text_tokens: int = 600
    max_mel_tokens: int = 1815  # semantic codes; "mel" is the published name
    number_text_tokens: int = 12000
    number_mel_codes: int = 8194  # 8192 codes, start and stop
    start_mel_token: int = 8192
    stop_mel_token: int = 8193
    start_text_token: int = 0
    stop_text_token: int = 1
    condition_num_latent: int = 32  # speaker latents per prompt
    condition_module: ConditionerConfig = field(default_factory=ConditionerConfig)
    emo_condition_module: ConditionerConfig = field(
        default_factory=lambda: ConditionerConfig(linear_units=1024, attention_heads=4, num_blocks=4)
    )
    emotion_width: int = 1024  # of the emotion perceiver
    semantic_input_size: int = SEMANTIC_WIDTH  # what the speaker conformer reads
    emo_mel_input_size: int | None = (
        None  # what the emotion conformer reads: None for the semantic features, 80 for mels
    )
    num_speakers: int = 0  # classes of the adversary; 0 for a model without one
    standardise_adversary: bool = False  # whether it sees standardised vectors; the published layout does not
    dropout: float = 0.1  # of the GPT backbone alone (GPT-2's default); the conditioners have none

    @property
    def emotion_input_size(self) -> int:
        return self.semantic_input_size if self.emo_mel_input_size is None else self.emo_mel_input_size

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)}, expected at least 1"
            for name in ("layers", "model_dim", "heads", "max_text_tokens", "max_mel_tokens", "condition_num_latent")
            if getattr(self, name) < 1
        ]
        if self.heads > 0 and self.model_dim % self.heads:
            problems.append(f"model_dim {self.model_dim} is not a multiple of heads {self.heads}")
        for name in ("start_mel_token", "stop_mel_token"):
            if not 0 <= getattr(self, name) < self.number_mel_codes:
                problems.append(f"{name} {getattr(self, name)} lies outside number_mel_codes {self.number_mel_codes}")
        for name in ("condition_module", "emo_condition_module"):
            module = getattr(self, name)
            below = [
                f"{name}.{key} is {value}, expected at least 1" for key, value in asdict(module).items() if value < 1
            ]
            problems += below
            if not below and module.output_size % module.attention_heads:
                problems.append(
                    f"{name}: output_size {module.output_size} is not a multiple of {module.attention_heads} heads"
                )
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def num_codes(self) -> int:
        """Codes that carry sound: those below the start and stop tokens."""
        return min(self.start_mel_token, self.stop_mel_token)

    def reading(self, emotion_input: str) -> GPTConfig:
        """This model with an emotion conformer for `emotion_input`: "mel" or "semantic"."""
        return replace(self, emo_mel_input_size=MEL_WIDTH if emotion_input == "mel" else None)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as they stand under `gpt:` in a run's config.yaml."""
        return asdict(self)


# Keys of the public files that describe what is fixed here: accepted, checked where they could contradict.
_FIXED = {
    "condition_type": "conformer_perceiver",
    "use_mel_codes_as_input": True,
    "train_solo_embeddings": False,
    "types": 1,
}
_IGNORED = {"mel_length_compression", "checkpointing", "enable_grl", "grl_lambda", "input_layer"}


def config_from_mapping(values: Mapping[str, Any], where: str = "model configuration") -> GPTConfig:
    """The `gpt:` section of a public config.yaml, or a parity case's `config`.
    Raises ConfigError for unknown keys and for variants of the architecture that this one is not."""
    problems: list[str] = []
    known = {item.name for item in fields(GPTConfig)}
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name in ("condition_module", "emo_condition_module"):
            if not isinstance(value, Mapping):
                problems.append(f"{name} is {value!r}, expected a section of its own")
                continue
            inner = {item.name for item in fields(ConditionerConfig)}
            if value.get("input_layer", "conv2d2") != "conv2d2":
                problems.append(f"{name}.input_layer is {value['input_layer']!r}, expected 'conv2d2'")
            unknown = sorted(set(value) - inner - {"input_layer"})
            problems += [f"{name}.{key} is not a known setting" for key in unknown]
            given = {key: value[key] for key in value if key in inner}
            problems += [f"{name}.{text}" for text in _wrong_types(ConditionerConfig, given)]
            arguments[name] = ConditionerConfig(**given)
        elif name in known:
            problems += _wrong_types(GPTConfig, {name: value})
            arguments[name] = value
        elif name in _FIXED:
            if value != _FIXED[name]:
                problems.append(f"{name} is {value!r}, only {_FIXED[name]!r} is supported")
        elif name not in _IGNORED:
            problems.append(f"{name} is not a known setting")
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))
    try:
        return GPTConfig(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _wrong_types(cls: type, values: Mapping[str, Any]) -> list[str]:
    """What is not of the type of its default; a default of None stands for an optional integer."""
    problems = []
    for name, value in values.items():
        default = getattr(cls, name)
        kind = (int, float) if isinstance(default, float) else bool if isinstance(default, bool) else int
        is_bool = isinstance(value, bool) and not isinstance(default, bool)
        if not (value is None and default is None) and (is_bool or not isinstance(value, kind)):
            problems.append(f"{name} is {value!r}, expected a number" if kind is not bool else f"{name} is {value!r}")
    return problems


def read_config(path: Path) -> GPTConfig:
    """The `gpt` section of IndexTTS-2's `config.yaml`, or of the one that a run writes beside its checkpoints."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: not found; put the model's config.yaml beside its checkpoint or name it in model_config"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("gpt"), dict):
        raise ConfigError(f"{path}: no 'gpt' section; expected the config.yaml published with IndexTTS-2")
    return config_from_mapping(values["gpt"], where=f"{path}: gpt")
