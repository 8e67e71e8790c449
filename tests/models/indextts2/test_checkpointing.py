"""Gradient checkpointing of the whole model: the same gradients from fewer stored activations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tests.tiny_voice import Clips, random_clips, voice
from tts_kernel.models.indextts2.gpt import UnifiedVoice


def step(model: UnifiedVoice, clips: Clips) -> tuple[Tensor, int]:
    """Loss, after its backward pass, and the bytes of activations that were kept for it."""
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(5)  # of dropout
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        emotion = model.emotion_vector(clips.features, clips.feature_lengths)
        latents = model.speaker_latents(clips.features, clips.feature_lengths)
        said = model(
            model.conditions(latents, emotion), clips.text, clips.text_lengths, clips.codes, clips.code_lengths
        )
        loss = said.code_logits.square().mean() + said.text_logits.square().mean()
    loss.backward()
    return loss.detach(), sum(kept.values())


def test_the_gradients_are_the_same_and_fewer_activations_are_kept() -> None:
    changes = {"layers": 6, "dropout": 0.1}
    usual, saving = voice(**changes).train(), voice(**changes).train()  # type: ignore[arg-type]
    saving.use_gradient_checkpointing(True)
    clips = random_clips()
    loss, much = step(usual, clips)
    same, little = step(saving, clips)
    torch.testing.assert_close(same, loss)
    for (name, parameter), other in zip(usual.named_parameters(), saving.parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(other.grad, parameter.grad, msg=lambda text, name=name: f"{name}: {text}")
    assert little < 0.6 * much


def test_it_can_be_switched_off_again() -> None:
    model, clips = voice(dropout=0.0).train(), random_clips()
    before = step(model, clips)[1]
    model.use_gradient_checkpointing(True)
    assert step(model, clips)[1] < before
    model.use_gradient_checkpointing(False)
    assert step(model, clips)[1] == before


def test_the_names_of_the_weights_stay() -> None:
    model = voice()
    names = list(model.state_dict())
    model.use_gradient_checkpointing(True)
    assert list(model.state_dict()) == names
