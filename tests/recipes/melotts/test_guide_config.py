"""config_bge_m3.json as people have it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_spoken import SIZES
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.melotts.config_values import read_config
from tts_kernel.recipes.melotts import Settings
from tts_kernel.recipes.melotts.guide_config import merged, read_guide_config, write_public_config
from tts_kernel.settings import SettingsError
from tts_kernel.text.symbols import SYMBOLS

GUIDE = """{
  // of the guide
  "train": {
    "batch_size": 6, /* clips */ "learning_rate": 3e-4, "lr_decay": 0.999875, "fp16_run": true,
    "segment_size": 16384, "c_mel": 45
  },
  "data": {"n_speakers": 256, "training_files": "lists//train_list.txt"},
  "model": {"gin_channels": 256}
}"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config_bge_m3.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_guides_values_are_read_comments_and_all(tmp_path: Path) -> None:
    found = read_guide_config(written(tmp_path, GUIDE))
    assert found.settings == {
        "batch_size": 6,
        "learning_rate": 3e-4,
        "lr_decay": 0.999875,
        "precision": "float16",
        "segment_size": 16384,
        "c_mel": 45,
        "n_speakers": 256,
        "train_list": "lists//train_list.txt",
    }
    assert (found.model.ja_bert_channels, found.model.bert_channels, found.model.segment_size) == (0, 1024, 32)


def test_the_guides_values_are_the_defaults(tmp_path: Path) -> None:
    found = read_guide_config(written(tmp_path, GUIDE.replace("true", "false"))).settings
    del found["train_list"]
    assert merged(Settings(), found, "config") == Settings()


def test_keys_may_stand_without_a_section(tmp_path: Path) -> None:
    found = read_guide_config(written(tmp_path, '{"batch_size": 3, "n_speakers": 9}'))
    assert (found.settings, found.model.n_speakers) == ({"batch_size": 3, "n_speakers": 9}, 9)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "train": {"batch_size": "six", "learning_rat": 1e-4, "fp16_run": "yes", "betas": [0.9, 0.98]},
        "data": {"n_speaker": 3, "hop_length": 0.5},
        "model": {"hidden_chanels": 192},
        "sections": {},
    }
    with pytest.raises(ConfigError) as caught:
        read_guide_config(written(tmp_path, json.dumps(wrong)))
    told = str(caught.value)
    for expected in (
        "batch_size: found 'six'",
        "train.learning_rat is not a known key",
        "fp16_run is 'yes'",
        "train.betas is [0.9, 0.98], only [0.8, 0.99]",
        "data.n_speaker is not a known key",
        "data.hop_length is 0.5",
        "sections is not a known key",
    ):
        assert expected in told


def test_an_unknown_size_of_the_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hidden_chanels is not a known setting"):
        read_guide_config(written(tmp_path, '{"model": {"hidden_chanels": 192}}'))


def test_what_is_no_json_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not JSON"):
        read_guide_config(written(tmp_path, "{batch_size: 6}"))
    with pytest.raises(ConfigError, match="not found"):
        read_guide_config(tmp_path / "other.json")


def test_a_parameter_and_a_key_that_differ_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"batch_size: found 4 here and 8 in config\.json"):
        merged(Settings(batch_size=4), {"batch_size": 8}, "config.json")
    assert merged(Settings(batch_size=8), {"batch_size": 8}, "config.json").batch_size == 8


def test_what_a_run_writes_is_read_by_both_readers(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    model = replace(SIZES, n_vocab=len(SYMBOLS), n_speakers=2, segment_size=32)
    write_public_config(path, Settings(n_speakers=2), model, SYMBOLS, {"a": 0, "b": 1}, "abc")
    for found in (read_config(path), read_guide_config(path)):
        assert (found.model, found.symbols, found.speakers) == (model, SYMBOLS.names, {"a": 0, "b": 1})
    assert read_config(path).text_encoder == "abc"
    path.write_text(path.read_text().replace('"abc"', "7"))
    with pytest.raises(ConfigError, match="text_encoder is 7, expected a string"):
        read_config(path)
