"""Gradient reversal and the adversary that stands behind it."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
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
            x = standardise(x, self.norm)
        return self.fc2(self.fc1(x).relu())


def standardise(x: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """(batch, dim) -> the same by the batch's own mean and variance, which in training are those of the rows of all
    processes together (torch's SyncBatchNorm does that for GPUs alone)."""
    together = norm.training and dist.is_initialized()
    rows = len(x)
    if together:
        counted = torch.tensor(rows, device=x.device)
        dist.all_reduce(counted)
        rows = int(counted)
    if norm.training and rows == 1:  # one row has no variance: judge it by the running statistics
        return batch_norm(x, norm.running_mean, norm.running_var)
    if not together:
        return norm(x)
    mean = all_reduce(x.float().sum(0)) / rows
    variance = all_reduce((x.float() - mean).square().sum(0)) / rows
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        momentum = norm.momentum or 0.1
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * rows / (rows - 1), momentum)
        norm.num_batches_tracked += 1
    return ((x - mean) * (variance + norm.eps).rsqrt()).to(x.dtype)
