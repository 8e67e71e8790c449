"""Schedules as pure functions of the optimiser step: plot them, test them, resume them without state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Shape = Literal["wsd", "cosine", "linear", "constant"]
Ramp = Literal["exponential", "linear", "constant"]
STABLE_RATIO = 0.9  # share of what follows the warm-up that wsd spends at the peak


def wsd(step: int, *, warmup: int, decay: int, total: int, floor: float = 0.0) -> float:
    """Warm-up, stable, decay: factor in [floor, 1] on the peak rate at optimiser step `step`, counted from 0.
    Linear up from `floor`, flat, cosine down to `floor` over the last `decay` steps.
    Source: transformers, get_wsd_schedule (parity case wsd)."""
    if step < warmup:
        return floor + (1.0 - floor) * step / warmup
    left = max(total - step, 0)
    if left >= decay:
        return 1.0
    return floor + (1.0 - floor) * 0.5 * (1.0 - math.cos(math.pi * left / decay))


def wsd_decay_steps(total: int, warmup: int, stable_ratio: float = STABLE_RATIO) -> int:
    """Steps of decay: what the stable share of the steps after the warm-up leaves. A run shorter than its warm-up
    never decays."""
    after = max(total - warmup, 0)
    return after - int(after * stable_ratio)


def learning_rate(shape: Shape, *, warmup: int, total: int, floor: float = 0.0) -> Callable[[int], float]:
    """The factor on the peak rate by step for a named shape: after a linear warm-up flat with a late cosine decay
    ("wsd"), cosine or linear down to `floor` at `total`, or flat ("constant"). Raises ValueError for another name."""
    if shape == "wsd":
        decay = wsd_decay_steps(total, warmup)
        return lambda step: wsd(step, warmup=warmup, decay=decay, total=total, floor=floor)

    def falling(step: int) -> float:
        if step < warmup:
            return floor + (1.0 - floor) * step / warmup
        if shape == "constant":
            return 1.0
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        left = 0.5 * (1.0 + math.cos(math.pi * progress)) if shape == "cosine" else 1.0 - progress
        return floor + (1.0 - floor) * left

    if shape not in ("cosine", "linear", "constant"):
        raise ValueError(f"schedule is {shape!r}, expected 'wsd', 'cosine', 'linear' or 'constant'")
    return falling


def warmup_lr(step: int, *, warmup: int) -> float:
    """CosyVoice2's warmuplr: factor on the peak rate at optimiser step `step`, counted from 0. Linear up over the first
    `warmup` steps, the last of which has the peak, then down with the root of the steps done; without a warm-up down
    from the peak at once. A resumed run goes on where it stood, while the reference's first step after resuming has the
    very first step's rate.
    Source: ESPnet's WarmupLR; parity case schedule."""
    update = step + 1
    return min(update / warmup, math.sqrt(warmup / update)) if warmup else update**-0.5


def by_epoch(step: int, *, updates: int, decay: float) -> float:
    """Factor on the first rate at optimiser step `step`, counted from 0: `decay` to the power of the epochs done, each
    of `updates` steps. A resumed run goes on where it stood; without its optimizer's state, as from a public
    checkpoint, a run begins anew at the first rate.
    Source: torch's ExponentialLR, stepped once per epoch as MeloTTS does (parity case training_facts)."""
    return decay ** (step // updates)


def reversal_ramp(step: int, *, total: int, peak: float = 1.0, ramp: Ramp = "exponential") -> float:
    """Strength of the gradient reversal at optimiser step `step`: from 0 towards `peak`, which "linear" reaches at
    `total` and "exponential" has all but reached by then.
    Exponential is 2 / (1 + exp(-10 p)) - 1 with p = step / total, the shape of Ganin et al. 2016, JMLR 17(59).
    Source of the numbers: parity case lambda_schedule."""
    progress = step / max(total, 1)
    if ramp == "exponential":
        return peak * (2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0)
    if ramp == "linear":
        return peak * min(progress, 1.0)
    if ramp == "constant":
        return peak
    raise ValueError(f"ramp is {ramp!r}, expected 'exponential', 'linear' or 'constant'")
