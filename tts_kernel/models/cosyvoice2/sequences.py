"""How text and speech tokens lie in one sequence of the language model, and what each position has to say.

Source: CosyVoice 2 (arXiv 2412.10117), section 2.3: one stream is start, text, turn of speech, speech; two streams
take turns, N text tokens then M speech tokens, until the text runs out. Settled by parity case llm_small.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORED = -1  # a target that is none: what follows is text or the turn of speech
START, TURN = 0, 1  # rows of the two special embeddings
TEXT, SPEECH, SPECIAL = 0, 1, 2  # kinds of positions


@dataclass(frozen=True)
class Sequences:
    """A padded batch; padding is of kind SPECIAL, token 0, target IGNORED, and lies at the end."""

    tokens: Tensor  # (batch, length) row of the kind's embedding
    kinds: Tensor  # (batch, length) TEXT, SPEECH or SPECIAL
    targets: Tensor  # (batch, length) what the position's output should say
    lengths: Tensor  # (batch,)

    @property
    def real(self) -> Tensor:
        """(batch, length), True on real positions."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]


def may_interleave(text_length: int, speech_length: int, mix_ratio: tuple[int, int]) -> bool:
    """Whether speech outlasts text, so that every N text tokens find their M speech tokens; strictly, as the reference
    does."""
    return text_length > 0 and speech_length / text_length > mix_ratio[1] / mix_ratio[0]


def lay_out(
    texts: list[Tensor], speeches: list[Tensor], interleave: list[bool], mix_ratio: tuple[int, int], speech_tokens: int
) -> Sequences:
    """One 1-d tensor of text and of speech tokens per utterance -> sequences with targets. `interleave` asks for two
    streams; an utterance whose text would outlast its speech stays one. `speech_tokens` is the number of speech codes:
    the end is said as that number, "more text, please" as two above it."""
    rows = []
    for text, speech, both in zip(texts, speeches, interleave, strict=True):
        mixed = both and may_interleave(len(text), len(speech), mix_ratio)
        rows.append(_row(text, speech, mix_ratio if mixed else None, speech_tokens))
    tokens, kinds, targets = zip(*rows, strict=True)
    return Sequences(
        pad_sequence(list(tokens), batch_first=True),
        pad_sequence(list(kinds), batch_first=True, padding_value=SPECIAL),
        pad_sequence(list(targets), batch_first=True, padding_value=IGNORED),
        torch.tensor([len(row) for row in tokens], device=tokens[0].device),
    )


def _row(
    text: Tensor, speech: Tensor, mix_ratio: tuple[int, int] | None, speech_tokens: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, kinds and targets of one utterance, (length,) each."""
    many_text, many_speech = mix_ratio or (1, 1)
    turns = len(text) // many_text if mix_ratio else 0
    pieces = [(SPECIAL, text.new_tensor([START]))]
    for turn in range(turns):
        pieces.append((TEXT, text[turn * many_text : (turn + 1) * many_text]))
        pieces.append((SPEECH, speech[turn * many_speech : (turn + 1) * many_speech]))
    pieces += [
        (TEXT, text[turns * many_text :]),
        (SPECIAL, text.new_tensor([TURN])),
        (SPEECH, speech[turns * many_speech :]),
    ]
    tokens = torch.cat([piece.long() for _, piece in pieces])
    kinds = torch.cat([torch.full_like(piece, kind, dtype=torch.long) for kind, piece in pieces])
    end, fill = speech_tokens, speech_tokens + 2
    speaks, spoke = kinds[1:] == SPEECH, kinds[:-1] == SPEECH  # after and at each position but the last
    targets = torch.where(speaks, tokens[1:], torch.where(spoke, fill, IGNORED))
    return tokens, kinds, torch.cat([targets, targets.new_tensor([end])])
