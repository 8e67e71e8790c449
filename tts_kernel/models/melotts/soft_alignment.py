"""How certain an alignment is: which token a frame belongs to, given that the tokens follow one another.

Source: the forward-backward algorithm, Rabiner 1989 (Proceedings of the IEEE 77(2), section III.A), on a model whose
states are the tokens of a sentence, each of which stays or moves on to the next.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tts_kernel.models.melotts.layers import real_positions


@torch.no_grad()
def soft_alignment(scores: Tensor, token_lengths: Tensor, frame_lengths: Tensor) -> Tensor:
    """Log-likelihoods of every frame under every token (batch, frames, tokens), lengths (batch,) -> the probability of
    each token at each frame over all paths that `alignment.monotonic_durations` chooses from, zero on padding."""
    scores = scores.double()
    tokens, frames = scores.shape[2], scores.shape[1]
    beyond = ~real_positions(token_lengths, tokens)[:, 0]
    start, end = (torch.full_like(scores[:, 0], -math.inf) for _ in range(2))
    start[:, 0] = 0.0
    end.scatter_(1, token_lengths[:, None] - 1, 0.0)
    before, after = [start + scores[:, 0]], [end]  # log-likelihoods of the frames up to one, and of those behind it
    for frame in range(1, frames):
        before.append(scores[:, frame] + _either(before[-1], 1))
    for frame in range(frames - 2, -1, -1):
        onward = _either(after[-1] + scores[:, frame + 1], -1)
        after.append(torch.where((frame_lengths - 1 == frame)[:, None], end, onward))
    both = torch.stack(before, 1) + torch.stack(after[::-1], 1)
    likely = both.masked_fill(beyond[:, None], -math.inf).softmax(dim=2)
    real: Tensor = real_positions(frame_lengths, frames).transpose(1, 2)
    return likely.nan_to_num(0.0).float() * real


def _either(values: Tensor, step: int) -> Tensor:
    """Of (batch, tokens): that a token stays, or that its neighbour on the side that `step` comes from moves to it."""
    moved = values.roll(step, dims=1)
    moved[:, 0 if step > 0 else -1] = -math.inf
    return torch.logaddexp(values, moved)
