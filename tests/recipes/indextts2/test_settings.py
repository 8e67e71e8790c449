from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_voice import CONFIG, make_base
from tts_kernel.recipes.indextts2 import Settings
from tts_kernel.recipes.indextts2.model import base_config, build_model, stage_config
from tts_kernel.recipes.indextts2.settings import EMOTION_PARTS, SPEAKER_PARTS, STAGES
from tts_kernel.settings import SettingsError, read_settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "prodigy", "learning_rate": 2e-4}, "learning_rate: found 0.0002 with optimizer 'prodigy'"),
        ({"optimizer": "prodigy", "learning_rate": 1.0, "classifier_rate": 3.0}, "classifier_rate: found 3.0"),
        ({"base_checkpoint": "gpt.pth"}, "data: found empty with a base_checkpoint"),
        ({"data": "corpus"}, "base_checkpoint: found empty for stage 2"),
        ({"data": "corpus", "stage": 3}, "base_checkpoint: found empty for stage 3"),
        ({"optimizer": "schedulefree"}, "schedule: found 'wsd' with optimizer 'schedulefree'"),
        ({"processes": 32}, "processes: found 32, expected at most batch_size, 16"),
        ({"fsdp": True}, "fsdp: found True with one process"),
        (
            {"fsdp": True, "processes": 2, "optimizer": "prodigy", "learning_rate": 1.0},
            "fsdp: found True with optimizer 'prodigy'",
        ),
        ({"on_spike": "rollback", "keep_checkpoints": 0}, "on_spike: found 'rollback' with keep_checkpoints 0"),
        ({"on_out_of_memory": "split", "processes": 2}, "on_out_of_memory: found 'split' with several processes"),
        ({"average_checkpoints": 5}, "average_checkpoints: found 5, expected at most keep_best, 3"),
        ({"tokenizer": "a.model"}, "tokenizer and base_tokenizer: give both"),
        ({"text_weight": 0.0, "mel_weight": 0.0}, "text_weight and mel_weight: found 0 and 0"),
        ({"stage": 4}, "stage: found 4"),
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"learning_rate": float("nan")}, "learning_rate: found nan"),
        ({"optimiser": "adamw"}, "optimiser: not a parameter; did you mean optimizer?"),
    ],
)
def test_contradictions_are_refused_in_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(Settings, values)
    assert message in str(caught.value)


def test_all_contradictions_come_in_one_error() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(Settings, {"optimizer": "prodigy", "tokenizer": "a.model", "text_weight": 0, "mel_weight": 0})
    for name in ("learning_rate", "base_tokenizer", "mel_weight"):
        assert name in str(caught.value)


def test_the_defaults_are_the_demos_stage_2_and_stand() -> None:
    settings = Settings()
    assert (settings.stage, settings.data, settings.base_checkpoint) == (2, "", "")
    assert Settings(optimizer="prodigy", learning_rate=1.0).d_coef == 1.0


def test_stage_1_may_start_without_weights(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    settings = Settings(stage=1, data=str(tmp_path), model_config=str(base.parent / "config.yaml"))
    assert base_config(settings) == CONFIG.reading("mel")
    assert all(p.requires_grad for p in build_model(replace(settings, conditions="computed"), CONFIG).parameters())


def test_conditioners_whose_output_is_read_from_files_are_not_trained(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    settings = Settings(stage=1, data=str(tmp_path), model_config=str(base.parent / "config.yaml"))
    idle = {name.split(".")[0] for name, p in build_model(settings, CONFIG).named_parameters() if not p.requires_grad}
    assert idle == {*SPEAKER_PARTS, *EMOTION_PARTS}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stages_parts_are_frozen_and_all_others_free(tmp_path: Path, stage: Any) -> None:
    base = make_base(tmp_path / "base")
    settings = Settings(stage=stage, data=str(tmp_path), base_checkpoint=str(base), conditions="computed")
    model = build_model(settings, stage_config(settings, base_config(settings), 3 if stage == 2 else 0))
    frozen = tuple(f"{name}." for name in STAGES[stage].frozen)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen or "?"), name


def test_gradient_of_stage_2_reaches_the_emotion_encoder_and_not_the_speakers(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    settings = Settings(data=str(tmp_path), base_checkpoint=str(base))
    model = build_model(settings, stage_config(settings, base_config(settings), 3))
    mel, semantic, lengths = torch.randn(2, 12, 80), torch.randn(2, 9, 20), torch.tensor([12, 8])
    emotion = model.emotion_vector(mel, lengths)
    latents = model.speaker_latents(semantic, lengths.clamp(max=9))
    text, codes = torch.full((2, 3), 5), torch.full((2, 4), 7)
    said = model(model.conditions(latents, emotion), text, torch.tensor([3, 2]), codes, torch.tensor([4, 4]))
    model.reversal.strength = 1.0
    (said.code_logits.sum() + model.speaker_logits(emotion).square().sum()).backward()
    for name in ("emo_conditioning_encoder", "emo_perceiver_encoder", "emovec_layer", "emo_layer"):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.get_submodule(name).parameters()), name
    for name in ("conditioning_encoder", "perceiver_encoder"):
        assert all(p.grad is None for p in model.get_submodule(name).parameters()), name


def test_the_emotion_encoder_reads_what_the_stage_reads() -> None:
    def bins(config: Any = CONFIG, **values: Any) -> int:
        settings = Settings(**{"data": "corpus", "base_checkpoint": "gpt.pth", **values})
        return stage_config(settings, config, 0).emotion_input_size

    assert bins(stage=2) == 80
    assert bins(stage=2, emotion_input="semantic") == 20
    assert bins(stage=3) == 20  # stored vectors: the base's encoder stays as it is
    assert bins(CONFIG.reading("mel"), stage=3) == 80
    assert bins(stage=3, conditions="computed") == 80


def test_the_same_seed_makes_the_same_model() -> None:
    def classifier(seed: int) -> torch.Tensor:
        settings = Settings(stage=1, data="corpus", model_config="config.yaml", seed=seed)
        return build_model(settings, CONFIG).text_head.weight

    assert torch.equal(classifier(3), classifier(3))
    assert not torch.equal(classifier(3), classifier(4))
