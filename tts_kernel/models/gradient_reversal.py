"""Gradient reversal and the adversary that stands behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None


class GradientReversal(nn.Module):
    """Identity forward, gradient times `-strength` backward; any shape. Between the emotion vector and the speaker
    classifier it makes the emotion encoder unlearn the speaker. Source: Ganin et al. 2016, JMLR 17(59)."""

    strength: float = 0.0  # the trainer sets it before every step, from optim.schedules.reversal_ramp

    def forward(self, x: Tensor) -> Tensor:
        return _Reverse.apply(x, self.strength)


class SpeakerClassifier(nn.Module):
    """The adversary: one hidden layer of 512 ReLU units. Source: parity case grl_small (names, sizes and numbers).

    With `standardise` it sees every dimension at mean 0 and variance 1 over the batch (in eval mode: over the past).
    Without, an encoder can defeat it by shrinking its output's variation instead of removing the speaker: the
    classifier falls to chance, and a fresh probe on standardised vectors still finds everybody. The buffers of the
    norm are the only addition to the published layout."""

    def __init__(self, dim: int, num_speakers: int, standardise: bool = False, hidden: int = 512) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, affine=False) if standardise else None
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, num_speakers)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim) -> (batch, num_speakers) logits."""
        if self.norm is not None:
            alone = self.training and len(x) == 1  # one row has no variance: judge it by the running statistics
            x = batch_norm(x, self.norm.running_mean, self.norm.running_var) if alone else self.norm(x)
        return self.fc2(self.fc1(x).relu())
