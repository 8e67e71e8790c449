from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.models.cosyvoice2.tiny_models import LLM, flow, llm, utterances
from tts_kernel.data.pipeline.batches import VoiceBatch
from tts_kernel.data.sampler import Position
from tts_kernel.lora import Adapted, Lora
from tts_kernel.models.cosyvoice2.sequences import IGNORED
from tts_kernel.recipes.cosyvoice2.model import TARGETS
from tts_kernel.recipes.cosyvoice2.objective import TokenObjective, VelocityObjective


def batch(epoch: int = 0, **changes: Any) -> VoiceBatch:
    said = utterances()
    made = VoiceBatch(
        ids=["a", "b", "c"],
        speakers=["s"] * 3,
        text_tokens=said.text,
        text_lengths=said.text_lengths,
        speech_tokens=said.speech,
        speech_lengths=said.speech_lengths,
        mel=said.mel,
        mel_lengths=said.mel_lengths,
        embedding=said.speaker,
        position=Position(epoch=epoch),
    )
    return replace(made, **changes)


def test_targets_are_counted_before_the_forward_pass_in_every_layout() -> None:
    objective = TokenObjective(llm(), seed=1)
    layouts = set()
    for epoch in range(12):
        given = batch(epoch)
        asked = objective.interleaved(given)
        layouts.add(tuple(asked))
        sequences = objective.model.lay_out_batch(  # type: ignore[operator]
            given.text_tokens, given.text_lengths, given.speech_tokens, given.speech_lengths, asked
        )
        expected = int((sequences.targets != IGNORED).sum())
        assert objective.counts(given) == {"loss": expected, "acc": expected}
    assert len(layouts) > 4


def test_the_sums_over_their_counts_are_the_models_own_loss_and_accuracy() -> None:
    objective, given = TokenObjective(llm(), seed=1), batch()
    said = objective.model(
        objective.model.lay_out_batch(  # type: ignore[operator]
            given.text_tokens,
            given.text_lengths,
            given.speech_tokens,
            given.speech_lengths,
            objective.interleaved(given),
        )
    )
    sums, counts = objective(given), objective.counts(given)
    torch.testing.assert_close(sums["loss"] / counts["loss"], said.loss)
    torch.testing.assert_close(sums["acc"] / counts["acc"], said.accuracy)


def test_the_velocitys_sum_over_frames_is_the_mean_over_all_values() -> None:
    objective, given = VelocityObjective(flow(), seed=1), batch()
    seen = []
    objective.model.decoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    sums, counts = objective(given), objective.counts(given)
    assert counts == {"loss": int(given.mel_lengths.sum())}
    torch.testing.assert_close(sums["loss"] / counts["loss"], seen[0].loss)


@pytest.mark.parametrize("kind", [TokenObjective, VelocityObjective])
def test_choices_follow_from_seed_epoch_and_names_alone(kind: Any) -> None:
    model = llm() if kind is TokenObjective else flow()
    first = kind(model, 1)(batch())["loss"]
    torch.manual_seed(12345)
    assert torch.equal(kind(model, 1)(batch())["loss"], first)
    before = torch.get_rng_state()
    others = [kind(model, 1)(batch(epoch))["loss"].item() for epoch in range(1, 6)]
    others += [kind(model, seed)(batch())["loss"].item() for seed in range(2, 7)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len({*others, first.item()}) > 3


def test_an_utterance_is_laid_out_the_same_in_any_company() -> None:
    objective, whole = TokenObjective(llm(), seed=1), batch()
    parts = whole.split(3)
    assert [objective.interleaved(part)[0] for part in parts] == objective.interleaved(whole)
    assert sum(objective.counts(part)["loss"] for part in parts) == objective.counts(whole)["loss"]
    torch.testing.assert_close(sum(objective(part)["loss"] for part in parts), objective(whole)["loss"])


def test_half_of_the_utterances_are_interleaved() -> None:
    objective = TokenObjective(llm(), seed=1)
    names = [f"u{number}" for number in range(400)]
    asked = objective.interleaved(batch(ids=names))
    assert 150 < sum(asked) < 250
    assert objective.interleaved(batch(1, ids=names)) != asked


def test_only_the_adapter_learns_from_either_loss() -> None:
    for kind, model, targets in ((TokenObjective, llm(), "llm"), (VelocityObjective, flow(), "flow")):
        made = Adapted(model, Lora(TARGETS[targets], rank=2))  # type: ignore[index]
        kind(made, 1)(batch())["loss"].backward()
        learning = {name for name, parameter in made.named_parameters() if parameter.grad is not None}
        assert learning == made.trained()


def test_an_objective_of_the_whole_language_model_leaves_no_weight_out() -> None:
    model = llm()
    TokenObjective(model, 1)(batch())["loss"].backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == set()
    assert LLM.speech_token_size == model.config.speech_token_size
