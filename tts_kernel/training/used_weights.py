"""Two kinds of weights: a schedule-free optimizer trains on others than are to be used and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tts_kernel.optim.optimizers import evaluation_mode, training_mode


def two_kinds(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer is one that trains on other weights than are to be used."""
    return "train_mode" in optimizer.param_groups[0]


@contextmanager
def at_rest(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """The parameters have the weights that are to be used; those that are trained on are put back to the bit."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]] if two_kinds(optimizer) else []
    trained = [(parameter, parameter.detach().clone()) for parameter in parameters]
    evaluation_mode(optimizer)
    try:
        yield
    finally:
        training_mode(optimizer)
        with torch.no_grad():
            for parameter, value in trained:
                parameter.copy_(value)
