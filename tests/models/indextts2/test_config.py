from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny_voice import CONFIG
from tts_kernel.models.indextts2.config import (
    MEL_WIDTH,
    SEMANTIC_WIDTH,
    ConfigError,
    GPTConfig,
    config_from_mapping,
    read_config,
)

CASE = Path(__file__).parents[2] / "fixtures" / "parity" / "indextts2" / "gpt_full_layout" / "case.json"
PUBLIC: dict[str, Any] = json.loads(CASE.read_text(encoding="utf-8"))["config"]


def test_the_public_file_is_accepted_and_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"gpt": PUBLIC, "vocoder": {"type": "bigvgan"}}), encoding="utf-8")
    assert read_config(path) == GPTConfig()
    assert GPTConfig().num_codes == 8192


def test_a_run_config_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"gpt": CONFIG.reading("mel").to_mapping()}), encoding="utf-8")
    assert read_config(path) == CONFIG.reading("mel")


def test_emotion_input_is_what_the_stage_reads() -> None:
    assert GPTConfig().emotion_input_size == SEMANTIC_WIDTH
    assert GPTConfig().reading("mel").emotion_input_size == MEL_WIDTH
    assert GPTConfig().reading("mel").reading("semantic").emotion_input_size == SEMANTIC_WIDTH


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_dims": 1280}, "model_dims is not a known setting"),
        ({"condition_type": "gst"}, "condition_type is 'gst', only 'conformer_perceiver' is supported"),
        ({"use_mel_codes_as_input": False}, "use_mel_codes_as_input is False"),
        ({"train_solo_embeddings": True}, "train_solo_embeddings is True"),
        ({"condition_module": {"input_layer": "linear"}}, "condition_module.input_layer is 'linear'"),
        ({"condition_module": {"cnn_kernel": 31}}, "condition_module.cnn_kernel is not a known setting"),
        ({"model_dim": 1281}, "model_dim 1281 is not a multiple of heads 20"),
        ({"layers": 0}, "layers is 0, expected at least 1"),
        ({"stop_mel_token": 8194}, "stop_mel_token 8194 lies outside number_mel_codes 8194"),
        ({"emo_condition_module": {"output_size": 510}}, "emo_condition_module: output_size 510"),
    ],
)
def test_unknown_keys_and_other_variants_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        config_from_mapping({**PUBLIC, **change})


def test_all_problems_come_in_one_error() -> None:
    with pytest.raises(ConfigError, match=r"(?s)speaker.*typo|typo.*speaker"):
        config_from_mapping({**PUBLIC, "typo": 1, "speaker": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not found"),
        ("vocoder: {}\n", "no 'gpt' section"),
        ("gpt: 5\n", "no 'gpt' section"),
        ("", "no 'gpt' section"),
        ("gpt: [unclosed\n", "not YAML"),
        ("gpt: {condition_module: 3}\n", "condition_module"),
        ("gpt: {layers: many}\n", "layers"),
    ],
)
def test_a_file_that_is_no_config_says_what_it_is(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
