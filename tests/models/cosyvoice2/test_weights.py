from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import checkpoint_files
from tests.models.checkpoint_files import Make, assert_loads_strictly, assert_refused, assert_same
from tests.models.cosyvoice2 import tiny_models
from tests.models.cosyvoice2.tiny_models import FLOW, HIFT, LLM
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.models.cosyvoice2.weights import load_weights
from tts_kernel.models.weights import CheckpointError

EMBEDDING, HEAD = "llm.model.model.embed_tokens.weight", "llm.model.lm_head.weight"
MODELS: dict[str, tuple[Make, Make]] = {
    "llm": (lambda: SpeechLanguageModel(LLM), tiny_models.llm),
    "flow": (lambda: TokenToMel(FLOW), tiny_models.flow),
    "hift": (lambda: HiftGenerator(HIFT), tiny_models.vocoder),
}


def pair(name: str) -> tuple[Any, dict[str, Tensor]]:
    return checkpoint_files.pair(*MODELS[name])


def write(folder: Path, checkpoint: dict[str, Any]) -> Path:
    return checkpoint_files.write(folder / "model.pt", checkpoint)


@pytest.mark.parametrize("name", MODELS)
def test_a_public_file_loads_strictly(tmp_path: Path, name: str) -> None:
    model, state = pair(name)
    assert_loads_strictly(load_weights, model, write(tmp_path, state), state)


@pytest.mark.parametrize("name", MODELS)
def test_what_the_training_loop_wrote_beside_the_weights_is_named(tmp_path: Path, name: str) -> None:
    model, state = pair(name)
    report = load_weights(model, write(tmp_path, {**state, "epoch": 29, "step": 4100}))
    assert_same(model, state)
    assert report.dropped == ["epoch", "step"]


@pytest.mark.parametrize("name", MODELS)
def test_missing_unexpected_and_mis_shaped_names_are_listed_and_nothing_is_copied(tmp_path: Path, name: str) -> None:
    model, state = pair(name)
    first, second, *_ = (key for key in state if key not in (EMBEDDING, HEAD))
    state["of_another_model.weight"] = torch.ones(2)
    del state[first]
    state[second] = torch.ones(3, 1, 4, 1, 5)
    said = (f"1 missing: {first}", "1 unexpected: of_another_model.weight", f"{second}: file [3, 1, 4, 1, 5]")
    assert_refused(load_weights, model, write(tmp_path, state), said)


def test_integers_where_weights_belong_are_refused(tmp_path: Path) -> None:
    model, state = pair("flow")
    state["encoder_proj.bias"] = torch.zeros(8, dtype=torch.long)
    said = ["encoder_proj.bias: file torch.int64, model torch.float32"]
    assert_refused(load_weights, model, write(tmp_path, state), said)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    model, state = pair("flow")
    load_weights(model, write(tmp_path, {key: value.bfloat16() for key, value in state.items()}))
    assert_same(model, {key: value.bfloat16().float() for key, value in state.items()})


def test_a_gan_checkpoint_gives_its_generator_and_names_the_rest(tmp_path: Path) -> None:
    model, state = pair("hift")
    gan = {f"generator.{key}": value for key, value in state.items()} | {"discriminator.conv.weight": torch.ones(2)}
    report = load_weights(model, write(tmp_path, {**gan, "epoch": 3}))
    assert_same(model, state)
    assert report.dropped == ["epoch", "discriminator.conv.weight"]


def test_the_older_names_of_weight_norm_are_known(tmp_path: Path) -> None:
    model, state = pair("hift")
    parts = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    old = {}
    for key, value in state.items():
        for new, before in parts.items():
            key = key.removesuffix(new) + before if key.endswith(new) else key
        old[key] = value
    assert "conv_pre.weight_g" in old
    load_weights(model, write(tmp_path, old))
    assert_same(model, state)


@pytest.mark.parametrize("kept", [EMBEDDING, HEAD])
def test_a_tied_embedding_may_be_stored_once(tmp_path: Path, kept: str) -> None:
    model, state = pair("llm")
    alone = {key: value for key, value in state.items() if key not in (EMBEDDING, HEAD)} | {kept: state[kept]}
    load_weights(model, write(tmp_path, alone))
    assert_same(model, state)


def test_an_untied_head_is_refused(tmp_path: Path) -> None:
    model, state = pair("llm")
    state[HEAD] = state[HEAD] + 1.0
    with pytest.raises(CheckpointError, match="are two tensors, expected one under both names"):
        load_weights(model, write(tmp_path, state))


def test_weights_of_an_unmerged_adapter_are_named(tmp_path: Path) -> None:
    model, state = pair("flow")
    wrapped = {
        "base_model.model." + key.replace("linear_q.", "linear_q.base_layer."): value for key, value in state.items()
    }
    lora = "base_model.model.encoder.encoders.0.self_attn.linear_q.lora_A.default.weight"
    report = load_weights(model, write(tmp_path, wrapped | {lora: torch.ones(2, 24)}))
    assert_same(model, state)
    assert report.unmerged == [lora.removeprefix("base_model.model.")]
    assert "LoRA weights left out" in str(report)
