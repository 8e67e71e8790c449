"""CosyVoice2's language model: text tokens -> speech tokens at 25 Hz, a Qwen2 with a speech head of its own.

Source: CosyVoice 2 (arXiv 2412.10117), section 2.3; names of weights from parity case layout_full.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Qwen2Config, Qwen2ForCausalLM

from tts_kernel.models.cosyvoice2.config import BackboneConfig, LLMConfig
from tts_kernel.models.cosyvoice2.sequences import IGNORED, SPEECH, START, TEXT, TURN, Sequences, lay_out

EXTRA_TOKENS = 3  # end, a spare one that is never said in training, "more text, please"


class Backbone(nn.Module):
    """Qwen2 under the published names, which keep its text head: tied to the embedding, never computed."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                num_key_value_heads=config.num_key_value_heads,
                max_position_embeddings=config.max_position_embeddings,
                rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
                rms_norm_eps=config.rms_norm_eps,
                tie_word_embeddings=True,
            )
        )


@dataclass(frozen=True)
class Prediction:
    """Logits at the positions that have a target, rows of the batch one after the other."""

    logits: Tensor  # (targets, speech_token_size + 3)
    targets: Tensor  # (targets,)

    @property
    def loss(self) -> Tensor:
        """Mean cross-entropy over all targets of the batch, in nats."""
        return cross_entropy(self.logits.float(), self.targets)

    @property
    def accuracy(self) -> Tensor:
        return (self.logits.argmax(-1) == self.targets).float().mean()


class SpeechLanguageModel(nn.Module):
    """Text and speech tokens in one sequence; every position predicts the speech token that follows."""

    def __init__(self, config: LLMConfig) -> None:
        super().__init__()
        self.config = config
        width, outputs = config.qwen2.hidden_size, config.speech_token_size + EXTRA_TOKENS
        self.llm_embedding = nn.Embedding(2, width)  # start of sequence, turn of speech
        self.llm = Backbone(config.qwen2)
        self.llm_decoder = nn.Linear(width, outputs)
        self.speech_embedding = nn.Embedding(outputs, width)

    @property
    def stop_tokens(self) -> range:
        """The end of an utterance, a token that means nothing, and the wish for more text, which has its place in
        interleaved training alone. Never speech."""
        return range(self.config.speech_token_size, self.config.speech_token_size + EXTRA_TOKENS)

    @property
    def text_embedding(self) -> nn.Embedding:
        embedding = self.llm.model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        return embedding

    def set_gradient_checkpointing(self, on: bool) -> None:
        """Whether training computes activations again in the backward pass instead of keeping them."""
        if on:
            self.llm.model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self.llm.model.activation_checkpointing_disable()

    def embed(self, sequences: Sequences) -> Tensor:
        """(batch, length) of tokens of three kinds -> (batch, length, hidden_size); padding is embedded as a start."""
        kinds, tokens = sequences.kinds[..., None], sequences.tokens
        text, speech = sequences.kinds == TEXT, sequences.kinds == SPEECH
        embedded = self.llm_embedding(tokens.masked_fill(text | speech, START))
        embedded = torch.where(kinds == TEXT, self.text_embedding(tokens.masked_fill(~text, 0)), embedded)
        return torch.where(kinds == SPEECH, self.speech_embedding(tokens.masked_fill(~speech, 0)), embedded)

    def hidden(self, embedded: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> the same after the last norm. Padding lies at the end, where causal
        attention never looks: so it needs no mask, and attention stays on its fused kernels."""
        return self.llm.model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state

    def forward(self, sequences: Sequences) -> Prediction:
        """From `lay_out_batch`."""
        said = sequences.targets != IGNORED
        return Prediction(self.llm_decoder(self.hidden(self.embed(sequences))[said]), sequences.targets[said])

    def lay_out_batch(
        self, text: Tensor, text_lengths: Tensor, speech: Tensor, speech_lengths: Tensor, interleave: list[bool]
    ) -> Sequences:
        """Padded text tokens (batch, n) and speech tokens (batch, m) -> sequences; the reference interleaves an
        utterance with probability 1/2. Raises ValueError naming utterances without text or speech and token ids
        outside their vocabularies."""
        texts = [row[:length] for row, length in zip(text, text_lengths.tolist(), strict=True)]
        speeches = [row[:length] for row, length in zip(speech, speech_lengths.tolist(), strict=True)]
        sizes = (("text", self.config.qwen2.vocab_size, texts), ("speech", self.config.speech_token_size, speeches))
        problems = []
        for name, size, rows in sizes:
            for number, row in enumerate(rows):
                if not len(row):
                    problems.append(f"utterance {number} of the batch has no {name} tokens")
                elif int(row.min()) < 0 or int(row.max()) >= size:
                    low, high = int(row.min()), int(row.max())
                    problems.append(f"utterance {number}: {name} tokens {low} to {high}, expected 0 to {size - 1}")
        if problems:
            raise ValueError("; ".join(problems))
        return lay_out(texts, speeches, interleave, self.config.mix_ratio, self.config.speech_token_size)

    def prompt(self, text: Tensor, speech: Tensor) -> Tensor:
        """What generation starts from: text (n,), the prompt's transcript first, and the prompt's speech (m,), which
        may be empty -> (1, n + m + 2, hidden_size)."""
        start, turn = self.llm_embedding(text.new_tensor([START, TURN])).split(1)
        return torch.cat([start, self.text_embedding(text), turn, self.speech_embedding(speech)])[None]
