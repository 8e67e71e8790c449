"""The three models at sizes that a test can train, their weights by the rule of the parity cases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tests.parity import fill
from tts_kernel.models.cosyvoice2.config import (
    BackboneConfig,
    EncoderConfig,
    EstimatorConfig,
    F0Config,
    FlowConfig,
    HiftConfig,
    LLMConfig,
)
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel

CODES = 30
LLM = LLMConfig(
    speech_token_size=CODES,
    mix_ratio=(2, 4),
    qwen2=BackboneConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    ),
)
FLOW = FlowConfig(
    input_size=16,
    output_size=8,
    spk_embed_dim=6,
    vocab_size=CODES,
    encoder=EncoderConfig(
        output_size=24, attention_heads=3, linear_units=32, num_blocks=2, num_up_blocks=1, static_chunk_size=4
    ),
    estimator=EstimatorConfig(
        channels=(16,), attention_head_dim=8, n_blocks=1, num_mid_blocks=1, num_heads=2, static_chunk_size=8
    ),
)
HIFT = HiftConfig(
    in_channels=8,
    base_channels=16,
    nb_harmonics=3,
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1, 3),),
    source_resblock_kernel_sizes=(3, 3, 3),
    source_resblock_dilation_sizes=((1,), (1,), (1,)),
    f0_predictor=F0Config(cond_channels=8),
)


def llm(**changes: Any) -> SpeechLanguageModel:
    model = SpeechLanguageModel(replace(LLM, **changes)).eval()
    fill.fill(model)
    return model


def flow(**changes: Any) -> TokenToMel:
    model = TokenToMel(replace(FLOW, **changes)).eval()
    fill.fill(model)
    return model


def vocoder() -> HiftGenerator:
    """Not silent and not clipped: its last gain is small, its pitch in the range of a voice."""
    model = HiftGenerator(HIFT).eval()
    fill.fill(model)
    with torch.no_grad():
        model.conv_post.parametrizations.weight.original0 *= 0.05  # type: ignore[union-attr]
        model.f0_predictor.classifier.bias += 150.0
    return model


@dataclass(frozen=True)
class Utterances:
    """Three, padded with zeros; frames are twice the speech tokens."""

    text: Tensor
    text_lengths: Tensor
    speech: Tensor
    speech_lengths: Tensor
    mel: Tensor  # (3, frames, 8)
    mel_lengths: Tensor
    speaker: Tensor  # (3, 6)

    def alone(self, row: int) -> Utterances:
        """One utterance without the padding that its neighbours need."""
        pick = slice(row, row + 1)
        text, speech = int(self.text_lengths[row]), int(self.speech_lengths[row])
        return Utterances(
            self.text[pick, :text],
            self.text_lengths[pick],
            self.speech[pick, :speech],
            self.speech_lengths[pick],
            self.mel[pick, : 2 * speech],
            self.mel_lengths[pick],
            self.speaker[pick],
        )


def utterances() -> Utterances:
    random = torch.Generator().manual_seed(5)
    text_lengths, speech_lengths = torch.tensor([7, 4, 5]), torch.tensor([20, 13, 8])

    def ids(high: int, lengths: Tensor) -> Tensor:
        values = torch.randint(1, high, (3, int(lengths.max())), generator=random)
        return values * (torch.arange(values.shape[1]) < lengths[:, None])

    mel = torch.randn(3, 40, 8, generator=random)
    real = torch.arange(40) < 2 * speech_lengths[:, None]
    return Utterances(
        ids(50, text_lengths),
        text_lengths,
        ids(CODES, speech_lengths),
        speech_lengths,
        mel * real[..., None],
        2 * speech_lengths,
        torch.randn(3, 6, generator=random),
    )
