from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.models.melotts.tiny_models import CONFIG
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.melotts.config import DurationDiscriminatorConfig, SynthesizerConfig
from tts_kernel.models.melotts.config_values import (
    config_from_mapping,
    config_from_public,
    read_commented_json,
    read_config,
    to_mapping,
)

CASES = Path(__file__).parents[2] / "fixtures" / "parity" / "melotts"


def recorded(name: str, part: str = "") -> dict[str, Any]:
    config = json.loads((CASES / name / "case.json").read_text(encoding="utf-8"))["config"]
    return config[part] if part else config


def public() -> dict[str, Any]:
    """Laid out as the published files."""
    full = recorded("layout_full", "G")
    outside = {"n_vocab", "spec_channels", "segment_size", "n_speakers", "num_tones", "num_languages"}
    outside |= {"mas_noise_scale_initial", "noise_scale_delta"}
    return {
        "train": {"segment_size": 16_384, "batch_size": 6, "c_mel": 45},
        "data": {
            "sampling_rate": 44_100,
            "filter_length": 2048,
            "hop_length": 512,
            "n_mel_channels": 128,
            "n_speakers": 256,
            "spk2id": {"KR": 0},
        },
        "model": {name: value for name, value in full.items() if name not in outside},
        "symbols": [f"s{number}" for number in range(219)],
        "num_tones": 16,
        "num_languages": 8,
    }


def test_nothing_given_is_the_published_model() -> None:
    assert config_from_mapping(SynthesizerConfig, {}) == SynthesizerConfig()
    assert config_from_mapping(SynthesizerConfig, recorded("layout_full", "G")) == SynthesizerConfig()
    durations = config_from_mapping(DurationDiscriminatorConfig, recorded("layout_full", "DUR"))
    assert durations == DurationDiscriminatorConfig() == DurationDiscriminatorConfig.beside(SynthesizerConfig())


def test_a_recorded_configuration_is_read_under_its_public_names() -> None:
    config = config_from_mapping(SynthesizerConfig, recorded("synthesizer_small"))
    assert (config.hidden_channels, config.segment_size, config.samples_per_frame) == (18, 8, 512)
    silent = config_from_mapping(SynthesizerConfig, {"use_noise_scaled_mas": False})
    assert silent.mas_noise_scale_initial == 0


@pytest.mark.parametrize("config", [CONFIG, SynthesizerConfig(), DurationDiscriminatorConfig(kernel_size=5)])
def test_plain_values_are_read_back_as_they_were(config: Any) -> None:
    assert config_from_mapping(type(config), json.loads(json.dumps(to_mapping(config)))) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden": 8}, "hidden is not a known setting"),
        ({"n_layers": "6"}, "n_layers is '6', expected an integer"),
        ({"n_layers": True}, "n_layers is True, expected an integer"),
        ({"n_layers": 2}, "n_layers is 2, expected at least 3: the speaker vector"),
        ({"p_dropout": 1.0}, "p_dropout is 1.0, expected at least 0 and below 1"),
        ({"upsample_rates": 8}, "upsample_rates is 8, expected a list"),
        ({"upsample_rates": [8, 8]}, "upsample_kernel_sizes and upsample_rates differ in length"),
        ({"upsample_rates": [8, 8, 2, 2, 3]}, "2 does not go with rate 3"),
        ({"resblock_dilation_sizes": [[1, 3], 5, [1]]}, "resblock_dilation_sizes is 5, expected a list"),
        ({"resblock": "2"}, "resblock is '2', only '1' is supported"),
        ({"use_spectral_norm": True}, "use_spectral_norm is True, only False is supported"),
        ({"hidden_channels": 193}, "hidden_channels 193 is no multiple of 2 heads"),
        ({"inter_channels": 191}, "inter_channels 191 cannot be halved"),
        ({"kernel_size": 4}, "kernel_size and resblock_kernel_sizes must be odd"),
        ({"upsample_initial_channel": 48}, "upsample_initial_channel 48 cannot be halved 5 times"),
        ({"n_speakers": 0}, "n_speakers is 0, expected at least 1"),
        ({"noise_scale_delta": -1.0}, "noise_scale_delta is -1.0, expected at least 0"),
    ],
)
def test_unknown_keys_wrong_types_and_other_variants_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.json: ") as raised:
        config_from_mapping(SynthesizerConfig, values, where="model.json")
    assert message in str(raised.value)


def test_all_problems_come_in_one_error() -> None:
    with pytest.raises(ConfigError, match=r"kernel_size is 4, expected an odd number") as raised:
        DurationDiscriminatorConfig(kernel_size=4, p_dropout=-1, in_channels=0)
    assert "p_dropout is -1" in str(raised.value)
    assert "in_channels is 0" in str(raised.value)


def test_a_published_config_describes_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(public()), encoding="utf-8")
    found = read_config(tmp_path / "config.json")
    assert found.model == SynthesizerConfig(ja_bert_channels=768)
    assert (len(found.symbols), found.symbols[218], found.speakers) == (219, "s218", {"KR": 0})
    assert (found.sampling_rate, found.filter_length, found.hop_length, found.n_mel_channels) == (44100, 2048, 512, 128)


def test_one_text_encoder_is_said_in_the_model_section() -> None:
    values = public()
    values["model"]["ja_bert_channels"] = 0
    values["train"]["mas_noise_scale_initial"] = 0.02
    model = config_from_public(values).model
    assert (model.ja_bert_channels, model.mas_noise_scale_initial) == (0, 0.02)


def test_what_is_wrong_with_a_published_config_is_said_at_once(tmp_path: Path) -> None:
    values = public() | {"symbols": "abc", "train": {"segment_size": "long"}}
    values["data"] |= {"spk2id": {"KR": "0"}, "hop_length": None, "win_length": 1024}
    with pytest.raises(ConfigError, match="symbols is no list of strings") as raised:
        config_from_public(values)
    for text in (
        "train.segment_size is 'long'",
        "data.spk2id does not map",
        "data.hop_length is None",
        "data.win_length is 1024",
    ):
        assert text in str(raised.value)
    with pytest.raises(ConfigError, match="section train is missing; section data is missing"):
        config_from_public({"model": {}})
    values = public()
    values["data"]["hop_length"] = 256
    with pytest.raises(ConfigError, match="upsample_rates multiply to 512, expected hop_length 256"):
        config_from_public(values)


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "holds a list")])
def test_a_file_that_is_no_config_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_config(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="not found; expected the model's config"):
        read_config(tmp_path / "other.json")


def test_comments_in_json_are_no_values_and_strings_are_no_comments(tmp_path: Path) -> None:
    commented = tmp_path / "config_bge_m3.json"
    commented.write_text(
        """{ // the guide's values
  "train": {"batch_size": 6, /* halve it
     when memory is short */ "learning_rate": 3e-4},  # Adam
  "data": {"training_files": "http://host/#1", "quote": "a \\" // b, }", "list": [1, 2, /* 3 */]},
  "n_speakers": 256, // "c_mel": 45
}""",
        encoding="utf-8-sig",
    )
    assert read_commented_json(commented) == {
        "train": {"batch_size": 6, "learning_rate": 3e-4},
        "data": {"training_files": "http://host/#1", "quote": 'a " // b, }', "list": [1, 2]},
        "n_speakers": 256,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{/* two\nlines */\n"a": }', "not JSON.*line 3 column 6"),
        ('{"a": 1 // }', "not JSON"),
        ('{"a": {"b": 1, "b": 2}}', "'b' stands there twice"),
        ("3", "holds a int"),
    ],
)
def test_commented_json_that_cannot_be_read_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_commented_json(tmp_path / "config.json")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError, match="not JSON"):
        read_commented_json(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_commented_json(tmp_path)
