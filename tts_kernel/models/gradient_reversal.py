"""Gradient reversal and the adversary that stands behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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
    """The adversary: one hidden layer of 512 ReLU units. Source: parity case grl_small (names, sizes and numbers)."""

    def __init__(self, dim: int, num_speakers: int, hidden: int = 512) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, num_speakers)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim) -> (batch, num_speakers) logits."""
        return self.fc2(self.fc1(x).relu())
