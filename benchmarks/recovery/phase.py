"""Simulated first phases whose end is known: whether the loss would be lower than it began after another phase.

Time runs from 0 to 1 over the phase, heights are in units of the gap between where it begins and the target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.recovery.simulate import correlated, log_uniform
from tts_kernel.recovery.history import Series

KINDS = ("falls", "falls a little", "stays", "rises", "turns", "over-fits")
STEPS = 5_000  # of a phase, the guide's
_COUNTS = 0.1  # of the gap, by which the loss has to be lower after another phase


@dataclass(frozen=True)
class Phase:
    kind: str
    series: Series
    validation: Series | None
    start: float
    target: float
    recovers: bool


def simulate_phase(seed: int, kind: str) -> Phase:
    random = np.random.default_rng([seed, 7, KINDS.index(kind)])
    start = random.uniform(1, 4)
    gap = start * random.uniform(0.2, 0.7)
    warmup, speed = random.uniform(0, 0.6), log_uniform(random, 0.3, 4)
    amount, turn = random.uniform(0.15, 1), random.uniform(0.3, 0.8)
    rate = {"falls": amount, "falls a little": 0.15 * amount}.get(kind, amount)

    def learnt(time: np.ndarray) -> np.ndarray:
        """How much was learnt by then, at a rate that warms up: 1 for a phase at the full rate."""
        return np.where(time < warmup, time**2 / max(2 * warmup, 1e-9), time - warmup / 2)

    def level(time: np.ndarray) -> np.ndarray:
        if kind in ("falls", "falls a little", "over-fits"):
            return -rate * -np.expm1(-speed * learnt(time))
        if kind == "rises":
            return rate * learnt(time)
        if kind == "turns":
            return rate * (learnt(time) ** 2 / learnt(np.array(turn)) - 2 * learnt(time))
        return np.zeros_like(time)

    count = int(log_uniform(random, 50, 500))
    time = (np.arange(count) + 1) / count
    errors, _ = correlated(random, count)
    noise = start * log_uniform(random, 0.003, 0.08)
    series = _series(time, start + gap * level(time) + noise * errors)
    validation = None
    if kind == "over-fits" or random.random() < 0.5:
        held = (np.arange(int(random.integers(5, 21))) + 1.0) / 20
        held = held / held[-1]
        above = rate * learnt(held) ** 2 if kind == "over-fits" else level(held)
        validation = _series(held, start + gap * above + 0.2 * noise * random.normal(size=len(held)))
    later = float(level(np.array(2.0)))
    return Phase(kind, series, validation, start, start - gap, kind != "over-fits" and later < -_COUNTS)


def _series(time: np.ndarray, values: np.ndarray) -> Series:
    return Series(np.round(STEPS * time).astype(np.int64), values, np.full(len(time), np.nan))
