"""UnifiedVoice: the autoregressive model of IndexTTS-2 (arXiv 2506.21619, section 3), under its published names.

One sequence per clip: conditions (speaker latents + emotion vector, two duration tokens), text, semantic codes.
"mel" in a published name means semantic codes. Settled by parity cases gpt_small, gpt_generate and grl_small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config, GPT2Model

from tts_kernel.models import attention
from tts_kernel.models.gradient_reversal import GradientReversal, SpeakerClassifier
from tts_kernel.models.indextts2.config import GPTConfig
from tts_kernel.models.indextts2.conformer import ConformerEncoder
from tts_kernel.models.indextts2.perceiver import PerceiverResampler

DurationMode = Literal["binary", "length"]


class NoPositions(nn.Module):
    """Stands for GPT-2's own position table, which this model does not have: text and codes bring theirs."""

    def forward(self, position_ids: Tensor) -> Tensor:
        return torch.zeros((), device=position_ids.device)


class LearnedPositions(nn.Module):
    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(rows, dim)
        nn.init.normal_(self.emb.weight, std=0.02)

    def forward(self, length: int) -> Tensor:
        """Rows 0 to length - 1: (length, dim)."""
        if length > self.emb.num_embeddings:
            raise ValueError(f"{length} positions with start and stop, the model has at most {self.emb.num_embeddings}")
        return self.emb.weight[:length]


@dataclass(frozen=True)
class Layout:
    """Where the pieces of a batch lie in its sequences of `length` positions."""

    source: Tensor  # (batch, length) index into the concatenation [conditions | text | codes] of padded pieces
    text: Tensor  # (text targets,) flat positions whose output predicts a text token
    codes: Tensor  # (code targets,) flat positions whose output predicts a code


@dataclass(frozen=True)
class Prediction:
    """Logits at real positions only, rows of a batch one after the other, with what they should have said."""

    text_logits: Tensor  # (text targets, number_text_tokens + 1)
    text_targets: Tensor  # (text targets,)
    code_logits: Tensor  # (code targets, number_mel_codes)
    code_targets: Tensor  # (code targets,)


class UnifiedVoice(nn.Module):
    """Text, speaker latents and emotion vector -> next text token and next semantic code.

    `reference_padding` reproduces how the reference treats padded batches: the conformer's convolution leaks, and
    codes attend to the padding behind a shorter text. The default does neither, so that a clip's result does not
    depend on its neighbours; this is also what a public checkpoint sees at inference, one clip at a time.
    """

    def __init__(self, config: GPTConfig, reference_padding: bool = False) -> None:
        super().__init__()
        self.config = config
        self.reference_padding = reference_padding
        dim, speaker, emotion = config.model_dim, config.condition_module, config.emo_condition_module
        self.conditioning_encoder = ConformerEncoder(config.semantic_input_size, speaker)
        self.perceiver_encoder = PerceiverResampler(
            dim, speaker.output_size, config.condition_num_latent, speaker.attention_heads, speaker.perceiver_mult
        )
        self.emo_conditioning_encoder = ConformerEncoder(config.emotion_input_size, emotion)
        self.emo_perceiver_encoder = PerceiverResampler(
            config.emotion_width, emotion.output_size, 1, emotion.attention_heads, emotion.perceiver_mult
        )
        self.conditioning_encoder.reference_padding = reference_padding
        self.emo_conditioning_encoder.reference_padding = reference_padding
        self.emovec_layer = nn.Linear(config.emotion_width, dim)
        self.emo_layer = nn.Linear(dim, dim)
        self.text_embedding = nn.Embedding(config.number_text_tokens + 1, dim)
        self.mel_embedding = nn.Embedding(config.number_mel_codes, dim)
        self.text_pos_embedding = LearnedPositions(config.max_text_tokens + 2, dim)
        self.mel_pos_embedding = LearnedPositions(config.max_mel_tokens + 3, dim)
        self.speed_emb = nn.Embedding(2, dim)  # row 0: free length; row 1: the half of the reference's duration pair
        for embedding in (self.text_embedding, self.mel_embedding):
            nn.init.normal_(embedding.weight, std=0.02)
        nn.init.normal_(self.speed_emb.weight, std=0.02)
        backbone = GPT2Config(
            vocab_size=1,  # its token table is removed below
            n_positions=config.max_text_tokens + config.max_mel_tokens + config.condition_num_latent + 9,
            n_embd=dim,
            n_layer=config.layers,
            n_head=config.heads,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            activation_function="gelu_pytorch_tanh",  # GPT-2's own, in one kernel instead of eight
            bos_token_id=None,
            eos_token_id=None,
            use_cache=False,
        )
        backbone._attn_implementation = attention.register()
        self.gpt = GPT2Model(backbone)
        self.gpt.main_input_name = "inputs_embeds"  # else gradient checkpointing looks for the token table
        self.gpt.wpe = NoPositions()  # type: ignore[assignment]
        del self.gpt.wte
        self.final_norm = nn.LayerNorm(dim)
        self.text_head = nn.Linear(dim, config.number_text_tokens + 1)
        self.mel_head = nn.Linear(dim, config.number_mel_codes)
        self.reversal = GradientReversal()
        self.speaker_classifier = (
            SpeakerClassifier(dim, config.num_speakers, config.standardise_adversary) if config.num_speakers else None
        )

    def heavy_parts(self) -> list[nn.Module]:
        """Where nearly all of the time goes, and so worth compiling: blocks that share one graph."""
        return list(self.gpt.h)

    def use_gradient_checkpointing(self, on: bool = True) -> None:
        """In training, keep each block's input alone and compute the rest again in the backward pass: the same
        gradients in less memory and about a third more time."""
        if on:
            self.gpt.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self.gpt.activation_checkpointing_disable()
        self.conditioning_encoder.gradient_checkpointing = on
        self.emo_conditioning_encoder.gradient_checkpointing = on

    # Conditions

    def speaker_latents(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Semantic features (batch, frames, semantic_input_size) -> (batch, condition_num_latent, model_dim)."""
        hidden, mask = self.conditioning_encoder(features, lengths)
        return self.perceiver_encoder(hidden, mask)

    def emotion_vector(self, features: Tensor, lengths: Tensor, mask_perceiver: bool = True) -> Tensor:
        """Log-mels or semantic features (batch, frames, emotion_input_size) -> (batch, model_dim).
        The reference's stage-2 trainer calls its perceiver without a mask; `mask_perceiver=False` does the same."""
        hidden, mask = self.emo_conditioning_encoder(features, lengths)
        pooled = self.emo_perceiver_encoder(hidden, mask if mask_perceiver else None)[:, 0]
        return self.emo_layer(self.emovec_layer(pooled))

    def speaker_logits(self, emotion_vector: Tensor) -> Tensor:
        """(batch, model_dim) -> (batch, num_speakers), behind the gradient reversal."""
        if self.speaker_classifier is None:
            raise ValueError("this model has no speaker classifier; build it with num_speakers > 0")
        return self.speaker_classifier(self.reversal(emotion_vector))

    def conditions(
        self, latents: Tensor, emotion_vector: Tensor, code_lengths: Tensor | None = None, mode: DurationMode = "binary"
    ) -> Tensor:
        """Latents (batch, n, model_dim), emotion vector (batch, model_dim) -> (batch, n + 2, model_dim).
        The two last are duration tokens; in `mode` "length" the first of them tells the number of codes to come, by
        the code position table's row (which is what the reference's trainer means to do; as written it fails)."""
        if mode == "length":
            if code_lengths is None:
                raise ValueError('duration mode "length" needs code_lengths')
            duration = self.mel_pos_embedding.emb((code_lengths + 1).clamp(max=self.config.max_mel_tokens + 1))
        else:
            duration = self.speed_emb.weight[1].expand(len(latents), -1)
        free = self.speed_emb.weight[0].expand(len(latents), -1)
        return torch.cat([latents + emotion_vector[:, None], duration[:, None], free[:, None]], dim=1)

    # Sequences

    def embed_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Tokens (batch, n), padded anyhow -> start, text, stop and more stops (batch, n + 2, model_dim)."""
        inputs = self._framed(tokens, lengths, self.config.start_text_token, self.config.stop_text_token)
        return self.text_embedding(inputs) + self.text_pos_embedding(inputs.shape[1])

    def embed_codes(self, codes: Tensor, lengths: Tensor) -> Tensor:
        """Codes (batch, n), padded anyhow -> start, codes, stop and more stops (batch, n + 2, model_dim)."""
        inputs = self._framed(codes, lengths, self.config.start_mel_token, self.config.stop_mel_token)
        return self.mel_embedding(inputs) + self.mel_pos_embedding(inputs.shape[1])

    @staticmethod
    def _framed(tokens: Tensor, lengths: Tensor, start: int, stop: int) -> Tensor:
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return pad(pad(tokens.masked_fill(~real, stop), (0, 1), value=stop), (1, 0), value=start)

    def layout(self, text_lengths: Tensor, code_lengths: Tensor, prefix: int) -> Layout:
        """Rows are packed: conditions, text and codes follow without a gap, padding only at the end, where causal
        attention never looks. With `reference_padding` every piece starts at the same place in every row."""
        text_room, code_room = int(text_lengths.max()) + 2, int(code_lengths.max()) + 2
        text_size = torch.full_like(text_lengths, text_room) if self.reference_padding else text_lengths + 2
        length = prefix + text_room + code_room if self.reference_padding else 0
        length = length or prefix + int((text_lengths + code_lengths).max()) + 3  # the last stop predicts nothing
        place = torch.arange(length, device=text_lengths.device)[None]
        text_end = (prefix + text_size)[:, None]
        source = torch.where(place < text_end, place, place - text_end + prefix + text_room)
        source = source.clamp(max=prefix + text_room + code_room - 1)
        predicts_text = (place >= prefix) & (place <= prefix + text_lengths[:, None])
        predicts_code = (place >= text_end) & (place <= text_end + code_lengths[:, None])
        return Layout(source, predicts_text.flatten().nonzero()[:, 0], predicts_code.flatten().nonzero()[:, 0])

    def hidden(self, conditions: Tensor, text: Tensor, codes: Tensor, layout: Layout) -> Tensor:
        """Embedded pieces -> (batch, length, model_dim) after both norms."""
        pieces = torch.cat([conditions, text, codes], dim=1)
        rows = torch.arange(len(pieces), device=pieces.device)[:, None]
        output = self.gpt(inputs_embeds=pieces[rows, layout.source])
        return self.final_norm(output.last_hidden_state)

    def forward(
        self, conditions: Tensor, text_tokens: Tensor, text_lengths: Tensor, codes: Tensor, code_lengths: Tensor
    ) -> Prediction:
        """conditions (batch, n, model_dim) from `conditions`, text_tokens (batch, tokens), codes (batch, frames)."""
        layout = self.layout(text_lengths, code_lengths, conditions.shape[1])
        text, sound = self.embed_text(text_tokens, text_lengths), self.embed_codes(codes, code_lengths)
        hidden = self.hidden(conditions, text, sound, layout).flatten(0, 1)
        return Prediction(
            self.text_head(hidden[layout.text]),
            _with_stop(text_tokens, text_lengths, self.config.stop_text_token),
            self.mel_head(hidden[layout.codes]),
            _with_stop(codes, code_lengths, self.config.stop_mel_token),
        )

    def prompt(self, conditions: Tensor, texts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What generation starts from: conditions (batch, n, model_dim) and one 1-d tensor of tokens per row
        -> embeddings (batch, length, model_dim) padded on the left with zeros, mask (batch, length) True where real."""
        rows = [
            torch.cat([row, self.embed_text(tokens[None], torch.tensor([len(tokens)], device=tokens.device))[0]])
            for row, tokens in zip(conditions, texts, strict=True)
        ]
        mask = [torch.ones(len(row), dtype=torch.bool, device=row.device) for row in rows]
        embeddings = pad_sequence(rows, batch_first=True, padding_side="left")
        return embeddings, pad_sequence(mask, batch_first=True, padding_side="left")


def _with_stop(tokens: Tensor, lengths: Tensor, stop: int) -> Tensor:
    """(batch, n), (batch,) -> each row's real tokens and one stop, concatenated: (sum of lengths + batch,)."""
    place = torch.arange(tokens.shape[1] + 1, device=tokens.device)
    targets = pad(tokens, (0, 1), value=stop).masked_fill(place >= lengths[:, None], stop)
    return targets[place <= lengths[:, None]]
