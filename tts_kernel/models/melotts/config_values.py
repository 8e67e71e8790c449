"""Configurations of MeloTTS's models from plain values: parity cases, runs, and the published `config.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from tts_kernel.models.config_types import ConfigError, typed
from tts_kernel.models.melotts.config import DurationDiscriminatorConfig, SynthesizerConfig

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
_STRING = r'"(?:\\.|[^"\\\n])*"'  # what looks like a comment in it is none
_COMMENTS = re.compile(rf"{_STRING}|//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
_LAST_COMMAS = re.compile(rf"{_STRING}|,(?=\s*[}}\]])")
_AUDIO = {"sampling_rate": 44_100, "filter_length": 2048, "hop_length": 512, "n_mel_channels": 128}  # of section data


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
    text_encoder: str = ""  # which one it was trained with (BGEM3.identity); empty where the file does not say


def config_from_mapping(kind: type[Config], values: Mapping[str, Any], where: str = "model configuration") -> Config:
    """Sizes from a parity case's `config`, a run's, or the `model` section of a public config.json.
    Raises ConfigError listing every unknown key, wrong type, and variant of the architecture that this one is not."""
    problems: list[str] = []
    arguments: dict[str, Any] = {}
    known = {item.name: item.default for item in fields(kind)}
    for name, value in values.items():
        if name in known:
            arguments[name] = typed(value, known[name], name, problems)
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
    train, data, model = (_section(values, name, problems) for name in ("train", "data", "model"))
    audio = {
        name: typed(data.get(name, default), default, f"data.{name}", problems) for name, default in _AUDIO.items()
    }
    problems += [f"data.{name} is {size}, expected at least 1" for name, size in audio.items() if size < 1]
    fixed = {"win_length": audio["filter_length"], "mel_fmin": 0.0, "mel_fmax": None, "add_blank": True}
    problems += [
        f"data.{name} is {data[name]!r}, only {value!r} is supported"
        for name, value in fixed.items()
        if data.get(name, value) != value
    ]
    symbols, speakers = values.get("symbols", []), data.get("spk2id", {})
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        problems.append("symbols is no list of strings")
    if not isinstance(speakers, Mapping) or not all(type(number) is int for number in speakers.values()):
        problems.append("data.spk2id does not map names to integers")
    encoder = values.get("text_encoder", "")
    if not isinstance(encoder, str):
        problems.append(f"text_encoder is {encoder!r}, expected a string")
    segment = typed(train.get("segment_size", 16_384), 1, "train.segment_size", problems)  # samples
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))
    sizes = {"ja_bert_channels": 768, "spec_channels": audio["filter_length"] // 2 + 1}
    sizes |= {"segment_size": segment // audio["hop_length"]} | ({"n_vocab": len(symbols)} if symbols else {})
    for section, names in (
        (train, ("mas_noise_scale_initial", "noise_scale_delta")),
        (data, ("n_speakers",)),
        (values, ("num_tones", "num_languages")),
    ):
        sizes |= {name: section[name] for name in names if name in section}
    config = config_from_mapping(SynthesizerConfig, sizes | dict(model), where=f"{where}: model")
    if config.samples_per_frame != audio["hop_length"]:
        raise ConfigError(
            f"{where}: upsample_rates multiply to {config.samples_per_frame}, expected hop_length {audio['hop_length']}"
        )
    return PublicConfig(config, tuple(symbols), dict(speakers), **audio, text_encoder=encoder)


def _section(values: Mapping[str, Any], name: str, problems: list[str]) -> Mapping[str, Any]:
    section = values.get(name)
    if isinstance(section, Mapping):
        return section
    problems.append(f"section {name} is {'missing' if section is None else f'{section!r}, expected keys and values'}")
    return {}


def read_config(path: Path) -> PublicConfig:
    """`config_from_public` of a file. Raises ConfigError also where there is none, or no JSON in it."""
    return config_from_public(read_commented_json(path), where=str(path))


def read_commented_json(path: Path) -> dict[str, Any]:
    """A JSON object with comments, as in the guide's config_bge_m3.json: `//` and `#` to the end of the line, `/* */`,
    and the comma that is left over where the last entry is commented out.
    Raises ConfigError where there is no such file or object, with the line of what is wrong, or for a repeated key."""
    repeated: list[str] = []

    def gather(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        repeated.extend(name for name in found if [key for key, _ in pairs].count(name) > 1)
        return found

    try:
        text = _COMMENTS.sub(_blank, Path(path).read_text(encoding="utf-8-sig"))
        values = json.loads(_LAST_COMMAS.sub(_blank, text), object_pairs_hook=gather)
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found; expected the model's config.json, or a config_bge_m3.json") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a file of settings") from error
    except ValueError as error:  # JSON's and UTF-8's errors are ValueErrors
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}, expected an object of settings")
    if repeated:
        raise ConfigError(f"{path}: {', '.join(map(repr, repeated))} stands there twice; keep one")
    return values


def _blank(found: re.Match[str]) -> str:
    """Spaces in the place of what is no string, so that an error still names the line and the column."""
    part = found.group()
    return part if part.startswith('"') else re.sub(r"[^\n]", " ", part)
