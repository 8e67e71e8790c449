"""Monotonic alignment search: which token each frame of a recording belongs to, found without labels.

Sources: Glow-TTS (arXiv 2005.11129, section 3.1) for the search, VITS (arXiv 2106.06103, section 2.2.1) for its scores,
VITS2 (arXiv 2307.16430, section 2.2) for the noise. Settled by parity cases mas and synthesizer_small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor


def alignment_scores(z_p: Tensor, m_p: Tensor, logs_p: Tensor) -> Tensor:
    """Log-likelihood of every frame under every token's normal distribution: z_p (batch, channels, frames); means and
    log deviations (batch, channels, tokens) -> (batch, frames, tokens) float32."""
    with torch.autocast(z_p.device.type, enabled=False):
        z_p, m_p, logs_p = z_p.float(), m_p.float(), logs_p.float()
        precision = (-2.0 * logs_p).exp()
        of_token = (-0.5 * math.log(2.0 * math.pi) - logs_p - 0.5 * m_p.square() * precision).sum(dim=1, keepdim=True)
        frames = torch.cat([-0.5 * z_p.square(), z_p], dim=1).transpose(1, 2)
        return frames @ torch.cat([precision, m_p * precision], dim=1) + of_token


def noisy_scores(scores: Tensor, noise: Tensor, scale: float, real: Tensor | None = None) -> Tensor:
    """Scores and normal `noise`, both (batch, frames, tokens), scaled by `scale` and by the scores' deviation over the
    cells where `real` is True: early in training the search tries other paths than the likeliest."""
    return scores + (scores if real is None else scores[real]).std() * scale * noise


def noise_scale(step: int, initial: float = 0.01, decrease: float = 2e-6) -> float:
    """VITS2's noise scale at optimiser step `step`, counted from 0: falls linearly to zero."""
    return max(initial - decrease * step, 0.0)


@torch.no_grad()
def monotonic_durations(scores: Tensor, token_lengths: Tensor, frame_lengths: Tensor) -> Tensor:
    """Frames per token on the path of the highest total score: (batch, frames, tokens), (batch,), (batch,)
    -> (batch, tokens) int64, zero on padding. A path begins at the first token, ends at the last and never skips one or
    goes back; on a tie it stays, seen from the end. Raises ValueError naming every row that has more tokens than
    frames, no token, or scores that are not numbers."""
    values = np.ascontiguousarray(scores.detach().float().cpu().numpy())
    tokens, frames = token_lengths.cpu().numpy(), frame_lengths.cpu().numpy()
    durations = np.zeros((len(values), values.shape[2]), dtype=np.int64)
    broken = _compiled()(values, tokens, frames, durations)
    if broken.any():
        raise ValueError("no alignment: " + "; ".join(_problems(broken, tokens, frames)) + ". Drop such clips")
    return torch.from_numpy(durations).to(scores.device)


def search(values: np.ndarray, tokens: np.ndarray, frames: np.ndarray, durations: np.ndarray) -> np.ndarray:
    """Fill `durations` (batch, tokens), zeros before -> (batch,) True where a row has no path. Written for numba."""
    broken = np.zeros(len(values), dtype=np.bool_)
    for row in range(len(values)):
        width, length = tokens[row], frames[row]
        if width < 1 or width > length:
            broken[row] = True
            continue
        # Totals of the best paths that end at a token, at the frame before and at this one. The first entry stands
        # before the first token: a path leaves it for the first frame and never comes back.
        before, now = np.full((2, width + 1), -np.inf, dtype=np.float32)
        before[0] = 0.0
        moved = np.empty((length, width), dtype=np.bool_)  # whether that path came from the token before
        for frame in range(length):
            score, came = values[row, frame], moved[frame]
            for token in range(min(width, frame + 1)):
                stay, move = before[token + 1], before[token]
                came[token] = move > stay
                now[token + 1] = score[token] + (move if move > stay else stay)
            before, now = now, before
            before[0] = -np.inf
        if not np.isfinite(before[width]):
            broken[row] = True
            continue
        token = width - 1
        for frame in range(length - 1, -1, -1):
            durations[row, token] += 1
            token -= moved[frame, token]
    return broken


@cache
def _compiled() -> Callable[..., np.ndarray]:
    """`search` as machine code: compiled at its first call, kept on disk. numba is a heavy import."""
    from numba import njit

    return njit(cache=True, nogil=True)(search)


def _problems(broken: np.ndarray, tokens: np.ndarray, frames: np.ndarray) -> list[str]:
    return [
        f"row {row} has scores that are not numbers; did the weights or an input break?"
        if 1 <= tokens[row] <= frames[row]
        else f"row {row} has {tokens[row]} tokens in {frames[row]} frames, expected at least 1 and no more than frames"
        for row in np.flatnonzero(broken)
    ]


def token_of_frame(durations: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Durations (batch, tokens) -> the token that each frame belongs to (batch, frames), and a mask (batch, 1, frames)
    that is True up to the sum of a row's durations."""
    ends = durations.cumsum(dim=1)
    places = torch.arange(frames, device=durations.device).expand(len(durations), -1)
    token = torch.searchsorted(ends, places.contiguous(), right=True).clamp(max=durations.shape[1] - 1)
    return token, (places < ends[:, -1:])[:, None]


def stretch(values: Tensor, durations: Tensor, frames: int) -> Tensor:
    """(batch, channels, tokens) -> (batch, channels, frames): each token's column once per frame, then zeros."""
    token, mask = token_of_frame(durations, frames)
    return values.gather(2, token[:, None].expand(-1, values.shape[1], -1)) * mask


def path_of(durations: Tensor, frames: int) -> Tensor:
    """Durations (batch, tokens) -> (batch, frames, tokens) float32, one at each frame's token: what figures show."""
    token, mask = token_of_frame(durations, frames)
    return torch.nn.functional.one_hot(token, durations.shape[1]) * mask.transpose(1, 2).float()
