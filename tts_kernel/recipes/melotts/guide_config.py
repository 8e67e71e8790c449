"""`config_bge_m3.json` of the guide -> settings and sizes; and back, for those who use what a run leaves.

Sections `train`, `data` and `model` as in MeloTTS's own config.json, or the keys of the first two without a section.
Comments (`//` and `/* */`) may stand anywhere outside a string.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.models.melotts.config_values import config_from_public, read_commented_json
from tts_kernel.recipes.melotts.settings import Settings
from tts_kernel.runs import write_atomically
from tts_kernel.settings import SettingsError, read_settings
from tts_kernel.text.symbols import Symbols

# Keys of the file -> ours, and where they stand.
_TRAIN = {
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "lr_decay": "lr_decay",
    "epochs": "epochs",
    "segment_size": "segment_size",
    "c_mel": "c_mel",
    "c_kl": "c_kl",
    "seed": "seed",
    "log_interval": "log_every",
    "eval_interval": "validate_every",
    "keep_ckpts": "keep_checkpoints",
    "fp16_run": "precision",
}
_DATA = {"training_files": "train_list", "validation_files": "val_list", "n_speakers": "n_speakers"}
_AUDIO = ("sampling_rate", "filter_length", "hop_length", "win_length", "n_mel_channels", "mel_fmin", "mel_fmax")
# Known, with a value that is fixed here: another one is refused.
_FIXED = {"betas": [0.8, 0.99], "eps": 1e-9, "add_blank": True, "cleaned_text": True, "max_wav_value": 32768.0}
# Known, read by the model's own reader or without a meaning here.
_OTHERS = {
    "train": {"init_lr_ratio", "warmup_epochs", "skip_optimizer", "mas_noise_scale_initial", "noise_scale_delta"},
    "data": {"spk2id", "disable_bert", *_AUDIO},
}
_TOP = {"train", "data", "model", "symbols", "num_tones", "num_languages", "text_encoder"}


@dataclass(frozen=True)
class GuideConfig:
    """What the file says."""

    settings: dict[str, Any]  # of ours, by name
    model: SynthesizerConfig
    symbols: tuple[str, ...] = ()
    speakers: dict[str, int] = field(default_factory=dict)


def read_guide_config(path: Path) -> GuideConfig:
    """Raises ConfigError naming every key that is unknown, of a wrong type or without support, all at once."""
    values = read_commented_json(path)
    sections = _sections(values)
    problems = [
        f"{section} is {sections[section]!r}, expected keys and values"
        for section in ("train", "data", "model")
        if not isinstance(sections[section], dict)
    ]
    if problems:
        raise ConfigError(f"{path}: " + "; ".join(problems))
    problems = [f"{name} is not a known key" for name in sections if name not in _TOP]
    found: dict[str, Any] = {}
    for section, ours in (("train", _TRAIN), ("data", _DATA)):
        for name, value in sections[section].items():
            if name in ours:
                found[ours[name]] = _precision(value, problems) if name == "fp16_run" else value
            elif name in _FIXED:
                if value != _FIXED[name]:
                    problems.append(f"{section}.{name} is {value!r}, only {_FIXED[name]!r} is supported")
            elif name not in _OTHERS[section]:
                problems.append(f"{section}.{name} is not a known key")
    problems += _wrong_types(found)
    sections["model"] = {"ja_bert_channels": 0, **sections["model"]}
    try:
        public = config_from_public(sections, where="")
    except ConfigError as error:
        problems += str(error).removeprefix(": ").split("; ")
    if problems:
        raise ConfigError(f"{path}: {len(problems)} keys cannot be used:\n  " + "\n  ".join(dict.fromkeys(problems)))
    return GuideConfig(found, public.model, public.symbols, public.speakers)


def merged(settings: Settings, found: Mapping[str, Any], where: str) -> Settings:
    """`settings` with the values of a file. Raises SettingsError where a parameter that was given says otherwise."""
    plain = {item.name: item.default for item in fields(Settings)}
    twice = [
        f"{name}: found {getattr(settings, name)!r} here and {value!r} in {where}; leave one of them out"
        for name, value in found.items()
        if getattr(settings, name) not in (plain[name], value)
    ]
    if twice:
        raise SettingsError("\n  ".join([f"{len(twice)} parameters are given twice:", *twice]))
    return replace(settings, **found)


def write_public_config(
    path: Path,
    settings: Settings,
    model: SynthesizerConfig,
    symbols: Symbols,
    speakers: Mapping[str, int],
    text_encoder: str,
) -> None:
    """config.json as public checkpoints have it beside them, and as `read_guide_config` reads it; it also says which
    text encoder (`BGEM3.identity`) the model was trained with."""
    sizes = asdict(model)
    top = {name: sizes.pop(name) for name in ("num_tones", "num_languages")}
    for name in ("n_vocab", "n_speakers", "spec_channels", "segment_size"):
        del sizes[name]
    noise = {name: sizes.pop(name) for name in ("mas_noise_scale_initial", "noise_scale_delta")}
    train = {name: getattr(settings, ours) for name, ours in _TRAIN.items() if name != "fp16_run"}
    values = {
        "train": {**train, "fp16_run": settings.precision == "float16", **noise},
        "data": {
            "training_files": settings.train_list,
            "validation_files": settings.val_list,
            "n_speakers": model.n_speakers,
            "spk2id": dict(speakers),
            "sampling_rate": 44_100,
            "filter_length": 2048,
            "hop_length": 512,
            "n_mel_channels": 128,
            "add_blank": True,
        },
        "model": sizes,
        "symbols": list(symbols.names),
        "text_encoder": text_encoder,
        **top,
    }
    write_atomically(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _sections(values: dict[str, Any]) -> dict[str, Any]:
    """With the keys that stand without a section put where they belong."""
    sections: dict[str, Any] = {"train": {}, "data": {}, "model": {}}
    for name, value in values.items():
        if name in _TOP:
            sections[name] = value
    for name, value in values.items():
        if name in _TOP:
            continue
        home = next((part for part, known in (("train", _TRAIN), ("data", _DATA)) if name in known), None)
        if home is not None and isinstance(sections[home], dict):
            sections[home] = {name: value, **sections[home]}
        else:
            sections[name] = value
    return sections


def _precision(value: object, problems: list[str]) -> str:
    if not isinstance(value, bool):
        problems.append(f"fp16_run is {value!r}, expected true or false")
    return "float16" if value is True else "auto"


def _wrong_types(found: Mapping[str, Any]) -> list[str]:
    try:
        read_settings(Settings, found)
    except SettingsError as error:
        return str(error).split("\n  ")[1:]
    return []
