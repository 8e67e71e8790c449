"""Optimisers by name, and the rate they really use."""

from __future__ import annotations

from collections.abc import Iterable
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


def build(name: OptimizerName, groups: list[dict[str, Any]], d_coef: float = 1.0) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), or Prodigy (arXiv 2306.06101), which finds its own rate: give its
    groups the rate 1.0 and scale by `d_coef`. Prodigy's other values are the guide's."""
    if name == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(groups, d_coef=d_coef, use_bias_correction=False, safeguard_warmup=False)
    if name == "adamw":
        return torch.optim.AdamW(groups)
    raise ValueError(f"optimizer is {name!r}, expected 'adamw' or 'prodigy'")


def effective_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate that reaches the weights: under Prodigy its estimate d times the scheduled rate."""
    group = optimizer.param_groups[0]
    return float(group["lr"]) * float(group.get("d", 1.0))
