from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.recipes.cosyvoice2.bench import SIZES, Bench
from tts_kernel.lora import Adapted
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.cosyvoice2.config import FlowConfig, LLMConfig
from tts_kernel.recipes.cosyvoice2.model import HEADS, TARGETS, Sizes, build_model, fresh, read_sizes, write_sizes


def test_sizes_come_back_and_are_the_published_ones_where_nothing_is_said(tmp_path: Path) -> None:
    assert read_sizes(tmp_path) == Sizes(LLMConfig(), FlowConfig())
    write_sizes(SIZES, tmp_path)
    assert read_sizes(tmp_path) == SIZES


@pytest.mark.parametrize("text", ["[1]", "llm: {layers: 3}", "llm: {}\nspeech: {}"])
def test_a_config_that_is_something_else_is_refused_by_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_sizes(tmp_path)


@pytest.mark.parametrize("content", [b"llm: [", b"\xff\xfe\xfa"])
def test_a_config_that_is_no_yaml_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.yaml: not YAML"):
        read_sizes(tmp_path)


def test_every_attention_of_the_published_models_gets_an_adapter() -> None:
    with torch.device("meta"):
        llm, flow = fresh("llm", Sizes(LLMConfig(), FlowConfig())), fresh("flow", Sizes(LLMConfig(), FlowConfig()))
    counted = {
        name: sum(key.endswith(f".{target}.weight") for key in model.state_dict() for target in TARGETS[name])
        for name, model in (("llm", llm), ("flow", flow))
    }
    assert counted == {"llm": 24 * 7, "flow": 10 * 4 + 56 * 4}


def test_the_model_begins_with_the_base_and_the_seed_decides_the_adapter(bench: Bench) -> None:
    base = torch.load(bench.base / "llm.pt", weights_only=True)
    one, same, other = (build_model(bench.settings(seed=seed), "llm", SIZES) for seed in (1, 1, 2))
    assert isinstance(one, Adapted)
    assert one.base.name == str(bench.base / "llm.pt")
    for key, value in one.model.state_dict().items():
        if ".lora_" not in key:
            assert torch.equal(value, base[key.replace(".base_layer.", ".")]), key
    states = [model.state_dict() for model in (one, same, other)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert any(not torch.equal(value, states[2][key]) for key, value in states[0].items())


def test_trained_whole_a_model_may_begin_without_a_file(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "fresh").mkdir()
    write_sizes(SIZES, tmp_path / "fresh")
    model = build_model(bench.settings(method="full", base_model=str(tmp_path / "fresh")), "flow", SIZES)
    assert not isinstance(model, Adapted)
    assert all(parameter.requires_grad for parameter in model.parameters())
    with_file = build_model(bench.settings(method="full"), "flow", SIZES)
    assert not torch.equal(with_file.state_dict()["encoder_proj.weight"], model.state_dict()["encoder_proj.weight"])


def test_heads_are_trained_on_request(bench: Bench) -> None:
    for name in ("llm", "flow"):
        model = build_model(bench.settings(train_heads=True), name, SIZES)  # type: ignore[arg-type]
        assert isinstance(model, Adapted)
        whole = {key for key in model.trained() if ".lora_" not in key}
        assert {head for head in HEADS[name] if any(f"{head}." in key for key in whole)} == set(HEADS[name])  # type: ignore[index]


def test_gradient_checkpointing_of_the_llm_changes_no_gradient(bench: Bench) -> None:
    gradients = []
    for on in (False, True):
        model = build_model(bench.settings(gradient_checkpointing=on, lora_dropout=0.0), "llm", SIZES).train()
        assert isinstance(model, Adapted)
        net = model.model
        sequences = net.lay_out_batch(
            torch.tensor([[3, 4, 5]]), torch.tensor([3]), torch.tensor([[7, 8, 9, 10]]), torch.tensor([4]), [False]
        )
        net(sequences).loss.backward()
        gradients.append({key: value.grad for key, value in model.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], value)
