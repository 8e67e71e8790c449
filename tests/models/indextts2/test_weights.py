from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import checkpoint_files
from tests.models.checkpoint_files import assert_loads_strictly, assert_refused
from tests.tiny_voice import CONFIG, differing, voice
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.models.indextts2.weights import extend_vocabulary, load_weights
from tts_kernel.models.weights import CheckpointError
from tts_kernel.training.checkpoints import FORMAT, CheckpointFolder

INPUT_LAYER = "emo_conditioning_encoder.embed.out.0.weight"
CLASSIFIER = [f"speaker_classifier.{name}" for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")]


@pytest.fixture
def fresh() -> UnifiedVoice:
    torch.manual_seed(1)
    return UnifiedVoice(CONFIG)


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Of the checkpoint: other values than a fresh model's everywhere."""
    return voice().state_dict()


def write(folder: Path, state: dict[str, Tensor]) -> Path:
    return checkpoint_files.write(folder / "gpt.pth", {"model": state})


def test_the_published_layout_loads_strictly(tmp_path: Path, fresh: UnifiedVoice, state: dict[str, Tensor]) -> None:
    assert_loads_strictly(load_weights, fresh, write(tmp_path, state), state)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_wrappers_names_are_undone(tmp_path: Path, fresh: UnifiedVoice, state: dict[str, Tensor], prefix: str) -> None:
    load_weights(fresh, write(tmp_path, {prefix + name: value for name, value in state.items()}))
    assert not differing(state, fresh.state_dict())


def test_aliases_and_masks_are_dropped_by_name(tmp_path: Path, fresh: UnifiedVoice, state: dict[str, Tensor]) -> None:
    extra = {
        "inference_model.lm_head.0.weight": torch.ones(3),
        "inference_model.transformer.h.0.ln_1.weight": torch.ones(3),
        "gpt.wte.weight": torch.ones(32, 32),
        "gpt.h.0.attn.bias": torch.ones(1, 1, 4, 4),
        "gpt.h.0.attn.masked_bias": torch.tensor(-1e4),
    }
    report = load_weights(fresh, write(tmp_path, {**extra, **state}))
    assert sorted(report.dropped) == sorted(extra)
    assert not differing(state, fresh.state_dict())


def test_backbone_biases_are_no_masks(tmp_path: Path, fresh: UnifiedVoice, state: dict[str, Tensor]) -> None:
    del state["gpt.h.0.attn.c_attn.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: gpt\.h\.0\.attn\.c_attn\.bias"):
        load_weights(fresh, write(tmp_path, state))


def test_unmerged_lora_weights_are_named_however_much_else_is_dropped(
    tmp_path: Path, fresh: UnifiedVoice, state: dict[str, Tensor]
) -> None:
    adapted = "gpt.h.0.attn.c_attn"
    peft = {
        "base_model.model." + name.replace(f"{adapted}.", f"{adapted}.base_layer."): value
        for name, value in state.items()
    }
    aliases = {f"base_model.model.inference_model.x{number}": torch.ones(1) for number in range(9)}
    lora = {
        f"base_model.model.{adapted}.lora_A.default.weight": torch.ones(2, 32),
        f"base_model.model.{adapted}.lora_B.default.weight": torch.ones(96, 2),
    }
    report = load_weights(fresh, write(tmp_path, {**aliases, **peft, **lora}))
    assert not differing(state, fresh.state_dict())
    for name in lora:
        assert name.removeprefix("base_model.model.") in str(report)
    assert "merge" in str(report)


def test_what_does_not_fit_is_named_and_nothing_is_copied(
    tmp_path: Path, fresh: UnifiedVoice, state: dict[str, Tensor]
) -> None:
    del state["final_norm.weight"]
    state["gpt.h.1.ln_1.weight"] = torch.ones(32)
    state["mel_head.bias"] = torch.ones(33)
    said = ("final_norm.weight", "gpt.h.1.ln_1.weight", "mel_head.bias: file [33], model [32]")
    assert_refused(load_weights, fresh, write(tmp_path, state), said)


def test_semantic_input_layer_is_made_anew_for_mels_and_nothing_else(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.manual_seed(1)
    model = UnifiedVoice(CONFIG.reading("mel"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_weights(model, write(tmp_path, state))
    assert report.reinitialised == [INPUT_LAYER]
    assert INPUT_LAYER in str(report)
    after = model.state_dict()
    assert torch.equal(after[INPUT_LAYER], before[INPUT_LAYER])
    assert all(torch.equal(after[name], value) for name, value in state.items() if name != INPUT_LAYER)


def test_a_checkpoint_without_an_adversary_gets_a_fresh_one(tmp_path: Path, state: dict[str, Tensor]) -> None:
    model = voice(num_speakers=3)
    report = load_weights(model, write(tmp_path, state))
    assert report.reinitialised == CLASSIFIER


def test_a_model_without_an_adversary_drops_the_checkpoints(tmp_path: Path, fresh: UnifiedVoice) -> None:
    stage_2 = voice(num_speakers=3, standardise_adversary=True).state_dict()
    report = load_weights(fresh, write(tmp_path, stage_2))
    assert report.dropped == [name for name in stage_2 if name.startswith("speaker_classifier.")]


@pytest.mark.parametrize(
    ("speakers", "file_standardises", "model_standardises"),
    [(5, False, False), (5, True, True), (3, False, True), (3, True, False)],
    ids=["other speakers", "other speakers, standardised", "norm added", "norm removed"],
)
def test_another_adversary_is_made_anew_as_a_whole(
    tmp_path: Path, speakers: int, file_standardises: bool, model_standardises: bool
) -> None:
    given = voice(num_speakers=3, standardise_adversary=file_standardises).state_dict()
    torch.manual_seed(1)
    model = UnifiedVoice(voice(num_speakers=speakers, standardise_adversary=model_standardises).config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_weights(model, write(tmp_path, given))
    own = [name for name in before if name.startswith("speaker_classifier.")]
    assert report.reinitialised == own
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in own)
    assert torch.equal(model.state_dict()["text_head.weight"], given["text_head.weight"])


def test_the_same_adversary_is_kept(tmp_path: Path) -> None:
    given = voice(num_speakers=3, standardise_adversary=True).state_dict()
    model = UnifiedVoice(voice(num_speakers=3, standardise_adversary=True).config)
    assert not load_weights(model, write(tmp_path, given)).reinitialised
    assert not differing(given, model.state_dict())


def test_extended_vocabulary_keeps_each_tokens_row_wherever_it_moves(tmp_path: Path, state: dict[str, Tensor]) -> None:
    old = [f"t{number}" for number in range(50)]
    new = [*(f"new{number}" for number in range(5)), *reversed(old), "last"]
    model = voice(number_text_tokens=len(new))
    report = load_weights(model, write(tmp_path, state), file_tokens=old, model_tokens=new)
    assert report.extended == ["text_embedding.weight", "text_head.weight", "text_head.bias"]
    for name in report.extended:
        before, after = state[name], model.state_dict()[name]
        assert torch.equal(after[5:55], before[:50].flip(0))
        torch.testing.assert_close(after[0], before[:50].mean(0))
        assert torch.equal(after[55], after[0])
        assert torch.equal(after[-1], before[-1])


def test_one_tokenizer_twice_extends_nothing(tmp_path: Path, fresh: UnifiedVoice, state: dict[str, Tensor]) -> None:
    tokens = [f"t{number}" for number in range(50)]
    assert not load_weights(fresh, write(tmp_path, state), file_tokens=tokens, model_tokens=tokens).extended


def test_a_foreign_tokenizer_is_refused(state: dict[str, Tensor]) -> None:
    old = [f"t{number}" for number in range(50)]
    with pytest.raises(CheckpointError, match="no token of the new tokenizer is known"):
        extend_vocabulary(state, old, ["a", "b"])
    with pytest.raises(CheckpointError, match=r"text_embedding\.weight has 51 rows, expected 50"):
        extend_vocabulary(state, old[:-1], [*old, "new"])


def guides_checkpoint(prefix: str = "") -> dict[str, Any]:
    """`latest.pth` as the guide's trainer writes it: the whole state of a run, after some steps of AdamW.
    Source of its keys: edu-ide/index-tts, branch training_v3, trainers/train_gpt_v2.py."""
    model = voice()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    sum(parameter.square().sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    schedule.step()
    return {
        "model": {prefix + name: value for name, value in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "optimizer_type": "adamw",
        "scheduler": schedule.state_dict(),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
        "epoch": 0,
        "step": 298_800,
        "recent_checkpoints": ["trained/model_step298000.pth"],
        "manifests": {"train": [{"path": "pairs_train.jsonl", "samples": 5_483_856}], "val": []},
        "train_text_loss": 0.9358,
        "train_mel_loss": 3.61,
        "val_text_loss": float("nan"),
    }


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_the_guides_own_checkpoints_are_read(tmp_path: Path, fresh: UnifiedVoice, prefix: str) -> None:
    content = guides_checkpoint(prefix)
    torch.save(content, tmp_path / "latest.pth")
    report = load_weights(fresh, tmp_path / "latest.pth")
    expected = {name.removeprefix(prefix): value for name, value in content["model"].items()}
    assert not differing(expected, fresh.state_dict())
    assert str(report) == f"{len(expected)} tensors loaded"


def test_the_guides_latest_full_is_a_start_and_no_resume(tmp_path: Path, fresh: UnifiedVoice) -> None:
    torch.save(guides_checkpoint(), tmp_path / "latest_full.pth")
    with pytest.raises(CheckpointError, match=r"format None, expected .* new run with this file as base_checkpoint"):
        CheckpointFolder(tmp_path, keep_steps=1).read_latest()
    load_weights(fresh, tmp_path / "latest_full.pth")


def test_our_own_checkpoints_are_read_under_all_their_names(tmp_path: Path) -> None:
    state = voice().state_dict()
    weights = {"model": state, "step": 3, "epoch": 0, "format": FORMAT}
    folder = CheckpointFolder(tmp_path, keep_steps=1, keep_best=1)
    folder.save_latest(weights, {**weights, "optimizer": {}}, 3)
    folder.save_best(weights, {"val/loss": 1.0, "val/text_loss": 1.0, "val/mel_loss": 1.0}, 3)
    paths = sorted(tmp_path.glob("*.pth"))
    assert len(paths) == 7
    for path in paths:
        torch.manual_seed(5)
        model = UnifiedVoice(CONFIG)
        load_weights(model, path)
        assert not differing(state, model.state_dict())
