from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.models.cosyvoice2.tiny_models import FLOW, LLM, flow, llm, utterances
from tts_kernel.lora import Adapted, Lora, LoraError, digest, opened, read_lora
from tts_kernel.models.cosyvoice2.flow import TokenToMel, draw
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.models.cosyvoice2.weights import load_weights
from tts_kernel.recipes.cosyvoice2.model import HEADS, TARGETS

SHAPE = Lora(TARGETS["llm"], rank=3, alpha=6)
KINDS: dict[str, Any] = {"llm": llm, "flow": flow}
SHAPES = [{}, {"rslora": True}, {"dora": True}, {"full": True}, {"rslora": True, "dora": True, "full": True}]


def adapted(name: str = "llm", **changes: Any) -> Adapted:
    """In eval mode, its adapter moved far from the start, where it does nothing."""
    changes = {**changes, "full": HEADS[name]} if changes.get("full") else changes  # type: ignore[index]
    made = Adapted(KINDS[name](), replace(SHAPE, targets=TARGETS[name], **changes), base=f"{name}.pt").eval()  # type: ignore[index]
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return made


def output(model: Any) -> Tensor:
    """Of the model itself."""
    said = utterances()
    if isinstance(model, SpeechLanguageModel):
        both = [True, False, True]
        sequences = model.lay_out_batch(said.text, said.text_lengths, said.speech, said.speech_lengths, both)
        return model(sequences).logits
    draws = draw(said.mel, said.mel_lengths, torch.Generator().manual_seed(2))
    return model(said.speech, said.speech_lengths, said.mel, said.mel_lengths, said.speaker, draws).velocity


def fresh(name: str) -> SpeechLanguageModel | TokenToMel:
    torch.manual_seed(99)
    return SpeechLanguageModel(LLM).eval() if name == "llm" else TokenToMel(FLOW).eval()


# What is trained


@pytest.mark.parametrize("name", KINDS)
def test_an_adapter_begins_without_effect_and_only_it_is_trained(name: str) -> None:
    model = KINDS[name]()
    expected = output(model)
    made = Adapted(model, replace(SHAPE, targets=TARGETS[name])).eval()  # type: ignore[index]
    torch.testing.assert_close(output(made.model), expected, rtol=0, atol=0)
    assert made.trained()
    assert all(".lora_" in key for key in made.trained())
    ends = {key.split(".lora_")[0].rpartition(".")[2] for key in made.trained()}
    assert ends == {target.rpartition(".")[2] for target in TARGETS[name]}  # type: ignore[index]


def test_heads_are_trained_whole_beside_the_adapter() -> None:
    plain, heads = adapted().trained(), adapted(full=True).trained()
    assert {key.rpartition(".")[2] for key in heads - plain} == {"weight", "bias"}
    assert all("llm_decoder" in key for key in heads - plain)


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_the_state_dict_holds_what_is_trained_and_brings_it_back(changes: dict[str, Any]) -> None:
    made = adapted(**changes)
    state = {key: value.clone() for key, value in made.state_dict().items()}
    assert set(state) == made.trained()
    other = Adapted(llm(), made.lora).eval()
    assert not torch.equal(output(other.model), output(made.model))
    assert other.load_state_dict(state, strict=False) == ([], [])
    torch.testing.assert_close(output(other.model), output(made.model), rtol=0, atol=0)


def test_a_state_dict_without_one_of_its_tensors_is_missed() -> None:
    made = adapted()
    state = made.state_dict()
    lost = next(iter(state))
    del state[lost]
    assert made.load_state_dict(state, strict=False).missing_keys == [lost]


def test_inside_another_module_only_the_trained_weights_are_kept_too() -> None:
    holder = nn.ModuleDict({"voice": adapted()})
    assert set(holder.state_dict()) == {f"voice.{key}" for key in adapted().trained()}
    assert holder.load_state_dict(holder.state_dict(), strict=False) == ([], [])


# Merging


@pytest.mark.parametrize("changes", SHAPES, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_merged_weights_load_strictly_under_upstreams_names_and_compute_the_same(
    tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    made = adapted(name, **changes)
    expected = output(made.model)
    made.export(tmp_path / "epoch_0_whole.pt")
    loaded = fresh(name)
    report = load_weights(loaded, tmp_path / "epoch_0_whole.pt")
    assert report.loaded == len(loaded.state_dict())
    assert str(report) == f"{report.loaded} tensors loaded"
    torch.testing.assert_close(output(loaded), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(output(KINDS[name]()), expected, atol=1e-2), "the adapter does nothing"


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_unmerging_gives_the_base_back(changes: dict[str, Any]) -> None:
    made = adapted(**changes)
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    expected = output(made.model)
    made.merge()
    torch.testing.assert_close(output(made.model), expected, rtol=1e-5, atol=1e-5)
    moved = [key for key, value in made.model.state_dict().items() if not torch.equal(value, before[key])]
    assert len(moved) == 2 * len(TARGETS["llm"])
    made.unmerge()
    for key, value in made.model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output(made.model), expected, rtol=1e-5, atol=1e-5)


def test_merging_twice_and_unmerging_what_is_not_merged_are_refused() -> None:
    made = adapted()
    with pytest.raises(LoraError, match=r"not merged into llm\.pt"):
        made.unmerge()
    with pytest.raises(LoraError, match="call merge first"):
        made.whole()
    made.merge()
    with pytest.raises(LoraError, match=r"merged into llm\.pt already; unmerge it first"):
        made.merge()


def test_while_an_adapter_is_merged_no_other_takes_its_place(tmp_path: Path) -> None:
    made = adapted()
    made.save(tmp_path)
    made.merge()
    with pytest.raises(LoraError, match="another one is merged into these weights; unmerge it first"):
        made.load(tmp_path)
    made.unmerge()
    made.load(tmp_path)


def test_an_adapter_that_is_not_finite_is_not_merged_and_the_weights_stay() -> None:
    made = adapted(full=True)
    with torch.no_grad():
        made.get_parameter(max(name for name in made.trained() if ".lora_A" in name))[0] = float("nan")
        made.get_parameter(max(name for name in made.trained() if "llm_decoder" in name))[0] = float("inf")
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    with pytest.raises(LoraError, match=r"NaN or infinite values: .*lora_A.*, .*llm_decoder.*; take an earlier"):
        made.merge()
    assert not made.merged
    for key, value in made.model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", KINDS)
def test_an_adapter_is_not_merged_into_its_own_merged_weights(tmp_path: Path, name: str) -> None:
    made = adapted(name)
    made.export(tmp_path / "whole.pt")
    made.save(tmp_path / "adapter")
    merged = fresh(name)
    load_weights(merged, tmp_path / "whole.pt")
    with pytest.raises(LoraError, match=rf"merged into whole\.pt already; use them as they are, or {name}\.pt"):
        opened(merged, tmp_path / "adapter", "whole.pt")


# Files


@pytest.mark.parametrize("changes", SHAPES, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_a_saved_adapter_opens_on_its_base_bit_equal(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    made = adapted(name, **changes)
    made.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    ]
    assert read_lora(tmp_path) == made.lora
    assert len(load_file(tmp_path / "adapter_model.safetensors")) == len(made.trained())
    again = opened(KINDS[name](), tmp_path, "another name of the same weights").eval()
    torch.testing.assert_close(output(again.model), output(made.model), rtol=0, atol=0)


def test_peft_itself_opens_the_folder(tmp_path: Path) -> None:
    from peft import PeftModel

    made = adapted()
    made.save(tmp_path)
    theirs = PeftModel.from_pretrained(llm(), str(tmp_path)).eval()
    torch.testing.assert_close(output(theirs.get_base_model()), output(made.model), rtol=0, atol=0)


def test_an_adapter_of_another_base_rank_and_kind_is_refused_with_all_differences(tmp_path: Path) -> None:
    adapted().save(tmp_path)
    other = llm()
    with torch.no_grad():
        other.llm_decoder.bias += 1.0
    ours, theirs = digest(other.state_dict()), digest(llm().state_dict())
    with pytest.raises(LoraError) as caught:
        Adapted(other, replace(SHAPE, rank=4, dora=True), "mine.pt").load(tmp_path)
    message = str(caught.value)
    for expected in (
        "rank: 3 there, 4 here",
        "dora: False there, True here",
        f"base: trained on llm.pt ({theirs}), here are mine.pt ({ours})",
    ):
        assert expected in message
    assert "alpha" not in message


def test_an_adapter_of_unknown_base_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("tts_kernel"), "propagate", True)
    adapted().save(tmp_path)
    (tmp_path / "base.json").unlink()
    opened(llm(), tmp_path)
    assert "whether the adapter belongs to these weights is not known" in caplog.text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "no such file; expected the folder of an adapter"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "not the configuration of a LoRA adapter"),
        (lambda folder: (folder / "base.json").write_text("{"), r"base\.json: damaged"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"short"), "not a readable safetensors"),
        (lambda folder: configure(folder, r=5), "size mismatch"),
        (lambda folder: configure(folder, r=0), "rank: found 0, expected 1 at least"),
        (lambda folder: configure(folder, alpha_pattern={"q_proj": 99}), "alpha_pattern {'q_proj': 99}: not of the"),
        (lambda folder: configure(folder, bias="all"), "bias 'all': not of the adapters that are made here"),
        (lambda folder: configure(folder, init_lora_weights="pissa"), "init_lora_weights 'pissa': not of the"),
        (lambda folder: configure(folder, target_modules=".*_proj"), r"target_modules '\.\*_proj': not of the"),
        (lambda folder: configure(folder, peft_type="LOHA"), "peft_type 'LOHA': not of the"),
        (lambda folder: configure(folder, of_a_later_peft=True), "of_a_later_peft True: not of the"),
    ],
    ids=[
        "no config",
        "empty config",
        "torn base.json",
        "torn tensors",
        "tensors of another rank",
        "no rank",
        "a scale by layer",
        "biases",
        "weights of another start",
        "a pattern of names",
        "another kind",
        "what is not known",
    ],
)
def test_a_damaged_folder_is_refused_by_name(tmp_path: Path, damage: Any, message: str) -> None:
    adapted().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        opened(llm(), tmp_path)
    assert str(tmp_path) in str(caught.value)


def configure(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_shape_that_cannot_be_is_refused_with_all_that_is_wrong() -> None:
    model = llm()
    with pytest.raises(LoraError) as caught:
        Adapted(model, Lora(("query", "q_proj"), rank=0, alpha=0, dropout=1.0, full=("decoder",)))
    for expected in (
        "rank: found 0",
        "alpha: found 0",
        "dropout: found 1.0",
        "SpeechLanguageModel has no layers for query, decoder;",
    ):
        assert expected in str(caught.value)
    Adapted(model, SHAPE)  # nothing was attached


def test_a_target_without_layers_and_a_second_adapter_are_refused() -> None:
    with pytest.raises(LoraError, match="no layers for no targets"):
        Adapted(llm(), Lora(()))
    with pytest.raises(LoraError, match="carries an adapter already"):
        Adapted(adapted().model, SHAPE)


def test_a_digest_is_of_names_and_values_in_any_order() -> None:
    state = llm().state_dict()
    turned = dict(reversed(state.items()))
    assert digest(turned) == digest(state)
    name = next(iter(state))
    assert digest({**state, name: state[name] + 1e-6}) != digest(state)
    assert digest({("x" if key == name else key): value for key, value in state.items()}) != digest(state)
