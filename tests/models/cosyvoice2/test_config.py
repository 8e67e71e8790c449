from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.models.cosyvoice2.tiny_models import FLOW, HIFT, LLM
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.cosyvoice2.config import FlowConfig, HiftConfig, LLMConfig
from tts_kernel.models.cosyvoice2.config_values import config_from_mapping, to_mapping

CASES = Path(__file__).parents[2] / "fixtures" / "parity" / "cosyvoice2"
Kind = type[LLMConfig] | type[FlowConfig] | type[HiftConfig]


def recorded(name: str) -> dict[str, Any]:
    return json.loads((CASES / name / "case.json").read_text(encoding="utf-8"))["config"]


def test_a_recorded_configuration_is_read_under_its_public_names() -> None:
    flow = config_from_mapping(FlowConfig, recorded("flow_small"))
    assert flow.encoder.static_chunk_size == 5
    assert flow.estimator.channels == (32,)
    assert flow.cfm_params.inference_cfg_rate == 0.7
    hift = config_from_mapping(HiftConfig, recorded("hift_small"))
    assert (hift.n_fft, hift.hop_len, hift.f0_predictor.cond_channels) == (16, 4, 24)
    llm = config_from_mapping(LLMConfig, recorded("llm_small"))
    assert (llm.mix_ratio, llm.qwen2.hidden_size) == ((5, 15), 64)


@pytest.mark.parametrize("config", [LLM, FLOW, HIFT, LLMConfig(), FlowConfig(), HiftConfig()])
def test_plain_values_are_read_back_as_they_were(config: Any) -> None:
    stored = json.loads(json.dumps(to_mapping(config)))
    assert config_from_mapping(type(config), stored) == config


def test_nothing_given_is_the_public_model() -> None:
    for kind in (LLMConfig, FlowConfig, HiftConfig):
        assert config_from_mapping(kind, {}) == kind()
    assert HiftConfig().samples_per_frame == 480


def changed(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of nested `values` with another value at `path`."""
    first, _, rest = path.partition(".")
    return values | {first: changed(values.get(first, {}), rest, value) if rest else value}


@pytest.mark.parametrize(
    ("kind", "case", "path", "value", "message"),
    [
        (LLMConfig, "llm_small", "speech_tokens", 6561, "speech_tokens is not a known setting"),
        (LLMConfig, "llm_small", "lsm_weight", 0.1, "lsm_weight is 0.1, only 0 is supported"),
        (LLMConfig, "llm_small", "llm_input_size", 63, "llm_input_size is 63, expected 64 beside the other sizes"),
        (LLMConfig, "llm_small", "qwen2.hidden_act", "gelu", "qwen2.hidden_act is 'gelu', only 'silu' is supported"),
        (LLMConfig, "llm_small", "qwen2.num_attention_heads", 3, "hidden_size 64 is no multiple of 3 heads"),
        (LLMConfig, "llm_small", "qwen2.vocab_size", "120", "qwen2.vocab_size is '120', expected an integer"),
        (LLMConfig, "llm_small", "mix_ratio", [5], r"mix_ratio is \[5\], expected two numbers"),
        (LLMConfig, "llm_small", "qwen2", 5, "qwen2 is 5, expected a section of its own"),
        (FlowConfig, "flow_small", "encoder.macaron_style", True, "encoder.macaron_style is True"),
        (FlowConfig, "flow_small", "encoder.input_size", 256, "encoder.input_size is 256, expected 512"),
        (FlowConfig, "flow_small", "encoder.dropout_rate", 1.5, "dropout_rate is 1.5, expected at least 0 and below 1"),
        (FlowConfig, "flow_small", "estimator.channels", [32, 32], r"channels is \[32, 32\], expected one width"),
        (FlowConfig, "flow_small", "estimator.in_channels", 240, "estimator.in_channels is 240, expected 320"),
        (FlowConfig, "flow_small", "decoder.n_spks", 2, "n_spks is 2, expected 1"),
        (FlowConfig, "flow_small", "decoder.cfm_params.solver", "heun", "cfm_params.solver is 'heun', only 'euler'"),
        (FlowConfig, "flow_small", "token_mel_ratio", 0, "token_mel_ratio is 0, expected at least 1"),
        (HiftConfig, "hift_small", "upsample_rates", [8, 5], "upsample_kernel_sizes has 3 entries, expected 2"),
        (HiftConfig, "hift_small", "base_channels", 36, "base_channels 36 cannot be halved 3 times"),
        (HiftConfig, "hift_small", "istft_params", 4, "istft_params is 4, expected a section of its own"),
        (HiftConfig, "hift_small", "istft_params.win", 16, "win is not a known setting"),
        (HiftConfig, "hift_small", "f0_predictor.num_class", 2, "f0_predictor.num_class is 2, only 1 is supported"),
    ],
)
def test_unknown_keys_and_other_variants_are_named(kind: Kind, case: str, path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_mapping(kind, changed(recorded(case), path, value), where="cosyvoice2.yaml")


def test_all_problems_come_in_one_error_that_says_where() -> None:
    values = recorded("flow_small") | {"vocab": 40, "pre_lookahead_len": "three"}
    with pytest.raises(ConfigError, match=r"my\.yaml: .*vocab is not a known setting") as raised:
        config_from_mapping(FlowConfig, values, where="my.yaml")
    assert "pre_lookahead_len is 'three', expected an integer" in str(raised.value)
