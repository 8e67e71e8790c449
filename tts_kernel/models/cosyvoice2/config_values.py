"""CosyVoice2's configurations from plain values: of parity cases, of runs, of the public yaml's constructors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar

from tts_kernel.models.config_types import ConfigError, typed
from tts_kernel.models.cosyvoice2.config import (
    BackboneConfig,
    CFMConfig,
    EncoderConfig,
    EstimatorConfig,
    F0Config,
    FlowConfig,
    HiftConfig,
    LLMConfig,
)

Config = TypeVar("Config", LLMConfig, FlowConfig, HiftConfig)

# Keys that describe what is fixed here: accepted with this value, refused with another.
_FIXED: dict[type, dict[str, Any]] = {
    BackboneConfig: {
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
    LLMConfig: {"length_normalized_loss": True, "lsm_weight": 0},
    EncoderConfig: {
        "normalize_before": True,
        "input_layer": "linear",
        "pos_enc_layer_type": "rel_pos_espnet",
        "selfattention_layer_type": "rel_selfattn",
        "use_cnn_module": False,
        "macaron_style": False,
    },
    EstimatorConfig: {"act_fn": "gelu"},
    CFMConfig: {"solver": "euler", "t_scheduler": "cosine"},
    FlowConfig: {"output_type": "mel"},
    F0Config: {"num_class": 1},
}
_LAID_OPEN: dict[type, str] = {FlowConfig: "decoder", HiftConfig: "istft_params"}  # sections whose keys are ours
# Keys that mean nothing to the model itself; those of a parity case's runners among them.
_IGNORED: dict[type, set[str]] = {
    LLMConfig: {"inference"},
    CFMConfig: {"reg_loss_type"},
    FlowConfig: {"only_mask_loss", "input_frame_rate"},
    HiftConfig: {"adjust"},
}


def config_from_mapping(kind: type[Config], values: Mapping[str, Any], where: str = "model configuration") -> Config:
    """One model's sizes from a parity case's `config`, or from plain values under the public yaml's names.
    Raises ConfigError listing every unknown key, wrong type, and variant of the architecture that this one is not."""
    problems: list[str] = []
    plain = dict(values)
    nested = plain.pop(_LAID_OPEN.get(kind, ""), {})
    if isinstance(nested, Mapping):
        plain |= nested
    else:
        problems.append(f"{_LAID_OPEN[kind]} is {nested!r}, expected a section of its own")
    arguments = _arguments(kind, plain, "", _derived(kind, plain), problems)
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))
    try:
        return kind(**_built(kind, arguments))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def to_mapping(config: LLMConfig | FlowConfig | HiftConfig) -> dict[str, Any]:
    """Plain values that `config_from_mapping` reads back."""
    return asdict(config)


def _derived(kind: type, values: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of the public layout that follow from others, which ours leaves out: what each must be."""

    def size(name: str, default: int) -> int:
        given = values.get(name, default)
        return given if isinstance(given, int) else default

    if kind is LLMConfig:
        backbone = values.get("qwen2")
        width = BackboneConfig.hidden_size
        if isinstance(backbone, Mapping):
            width = backbone.get("hidden_size", width)
        return {"llm_input_size": width, "llm_output_size": width}
    if kind is FlowConfig:
        mels = size("output_size", FlowConfig.output_size)
        decoder = {"in_channels": 3 * mels, "n_spks": 1, "spk_emb_dim": mels}
        estimator = {"estimator.in_channels": 4 * mels, "estimator.out_channels": mels}
        return decoder | estimator | {"encoder.input_size": size("input_size", FlowConfig.input_size)}
    return {"f0_predictor.in_channels": size("in_channels", HiftConfig.in_channels)}


def _arguments(
    kind: type, values: Mapping[str, Any], place: str, derived: Mapping[str, int], problems: list[str]
) -> dict[str, Any]:
    """Constructor arguments, sections still as dictionaries; what is wrong goes into `problems`."""
    sections, known = _sections(kind), {item.name: item.default for item in fields(kind)}
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        path = place + name
        if name in sections and isinstance(value, Mapping):
            arguments[name] = _arguments(sections[name], value, f"{path}.", derived, problems)
        elif name in sections:
            problems.append(f"{path} is {value!r}, expected a section of its own")
        elif name in known:
            arguments[name] = typed(value, known[name], path, problems)
        elif path in derived:
            if value != derived[path]:
                problems.append(f"{path} is {value!r}, expected {derived[path]} beside the other sizes")
        elif name in _FIXED.get(kind, {}):
            if value != _FIXED[kind][name]:
                problems.append(f"{path} is {value!r}, only {_FIXED[kind][name]!r} is supported")
        elif name not in _IGNORED.get(kind, set()):
            problems.append(f"{path} is not a known setting")
    return arguments


def _sections(kind: type) -> dict[str, type]:
    """The fields that are configurations themselves."""
    factories: dict[str, Any] = {item.name: item.default_factory for item in fields(kind)}
    return {name: made for name, made in factories.items() if isinstance(made, type) and is_dataclass(made)}


def _built(kind: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    sections = _sections(kind)
    return {
        name: sections[name](**_built(sections[name], value)) if name in sections else value
        for name, value in arguments.items()
    }
