from __future__ import annotations

import pytest
import torch

from tests.models.cosyvoice2.tiny_models import Utterances, llm, utterances
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.models.cosyvoice2.sequences import Sequences


def laid_out(model: SpeechLanguageModel, batch: Utterances, interleave: bool = False) -> Sequences:
    lengths = (batch.text, batch.text_lengths, batch.speech, batch.speech_lengths)
    return model.lay_out_batch(*lengths, interleave=[interleave] * len(batch.text))


@pytest.mark.parametrize("interleave", [False, True])
def test_padding_does_not_change_real_positions(interleave: bool) -> None:
    model, batch = llm(), utterances()
    together = laid_out(model, batch, interleave)
    hidden = model.hidden(model.embed(together))
    for row in range(3):
        alone = laid_out(model, batch.alone(row), interleave)
        torch.testing.assert_close(hidden[row, : together.lengths[row]], model.hidden(model.embed(alone))[0])


def test_the_loss_is_the_mean_over_all_targets_of_the_batch() -> None:
    model, batch = llm(), utterances()
    alone = [model(laid_out(model, batch.alone(row))) for row in range(3)]
    sums = sum(said.loss * len(said.targets) for said in alone)
    targets = sum(len(said.targets) for said in alone)
    together = model(laid_out(model, batch))
    assert len(together.targets) == targets == int((batch.speech_lengths + 1).sum())
    torch.testing.assert_close(together.loss, sums / targets)


def test_every_parameter_learns() -> None:
    model, batch = llm().train(), utterances()
    (model(laid_out(model, batch)).loss + model(laid_out(model, batch, interleave=True)).loss).backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


def test_checkpointed_activations_give_the_same_gradients() -> None:
    model, batch = llm().train(), utterances()
    found = []
    for on in (False, True):
        model.set_gradient_checkpointing(on)
        model.zero_grad()
        model(laid_out(model, batch)).loss.backward()
        assert model.speech_embedding.weight.grad is not None
        found.append(model.speech_embedding.weight.grad.clone())
    assert model.llm.model.is_activation_checkpointing
    torch.testing.assert_close(found[1], found[0])


def test_a_sure_prediction_is_accurate_and_costs_nothing() -> None:
    said = llm()(laid_out(llm(), utterances()))
    sure = torch.nn.functional.one_hot(said.targets, said.logits.shape[1]) * 100.0
    perfect = type(said)(sure, said.targets)
    assert perfect.accuracy == 1.0
    assert perfect.loss < 1e-6


def test_utterances_without_tokens_and_foreign_ids_are_named_all_at_once() -> None:
    model, batch = llm(), utterances()
    batch.speech_lengths[1] = 0
    batch.text[2, 0] = 50
    with pytest.raises(ValueError, match="utterance 1 of the batch has no speech tokens") as raised:
        laid_out(model, batch)
    assert "utterance 2: text tokens" in str(raised.value)
    assert "to 50, expected 0 to 49" in str(raised.value)
