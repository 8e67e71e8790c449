"""Optimisers by name, and the rate they really use."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, Literal

import torch
from torch import nn

OptimizerName = Literal["adamw", "prodigy", "schedulefree"]


def parameter_groups(modules: Iterable[nn.Module], learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """The modules' trainable parameters in two groups of one rate: matrices decay, biases, norms and other vectors
    do not. A module may be given again with another rate by a call of its own."""
    trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trainable if p.ndim >= 2], [p for p in trainable if p.ndim < 2]
    groups = [(matrices, weight_decay), (vectors, 0.0)]
    return [{"params": params, "lr": learning_rate, "weight_decay": decay} for params, decay in groups if params]


def build(
    name: OptimizerName, groups: list[dict[str, Any]], d_coef: float = 1.0, fused: bool = True
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), `fused` into one kernel where its weights are on a CPU or a GPU; Prodigy
    (arXiv 2306.06101), which finds its own rate: give its groups the rate 1.0 and scale by `d_coef`, its other values
    are the guide's; or schedule-free AdamW (arXiv 2405.15682), which averages instead of decaying: give it a warm-up
    and then a constant rate, and switch it by `training_mode` and `evaluation_mode`."""
    if name == "prodigy":
        from prodigyopt import Prodigy

        with redirect_stdout(StringIO()):  # it prints that weight decay is decoupled
            return Prodigy(groups, d_coef=d_coef, use_bias_correction=False, safeguard_warmup=False)
    if name == "schedulefree":
        from schedulefree import AdamWScheduleFree

        return AdamWScheduleFree(groups)
    if name == "adamw":
        return torch.optim.AdamW(groups, fused=fused or None)  # False would also turn off its grouped kernels
    raise ValueError(f"optimizer is {name!r}, expected 'adamw', 'prodigy' or 'schedulefree'")


def effective_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate of the next step: the scheduled one, under Prodigy times its estimate d."""
    group = optimizer.param_groups[0]
    return float(group["lr"]) * float(group.get("d", 1.0))


def training_mode(optimizer: torch.optim.Optimizer) -> None:
    """The model gets the weights that a schedule-free optimizer trains on; any other has only one kind."""
    if hasattr(optimizer, "train"):
        optimizer.train()


def evaluation_mode(optimizer: torch.optim.Optimizer) -> None:
    """The model gets the weights that a schedule-free optimizer wants used and kept."""
    if hasattr(optimizer, "eval"):
        optimizer.eval()
