"""What the log line of an interval says: means, speed, time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple

import psutil
import torch


class Interval:
    """Metrics since the last log line: what fluctuates is averaged, what is scheduled is taken as it is now."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def add(self, metrics: dict[str, float]) -> None:
        self.steps.append(metrics)

    def means(self) -> dict[str, float]:
        """Means over the steps, each over those that have the metric; then begins anew. The learning rate and a
        reversal strength are the last step's."""
        last = self.steps[-1]
        means = {
            name: last[name]
            if name in ("train/lr", "train/grl_lambda", "learning_rate")
            else fmean(step[name] for step in self.steps if name in step)
            for name in dict.fromkeys(name for step in self.steps for name in step)
        }
        self.steps = []
        return means


class Speed(NamedTuple):
    """Per second."""

    steps: float
    tokens: float  # without padding


class Clock:
    """Speed since the last reading; a clock that is set back or forward does not touch it."""

    def __init__(self, step: int) -> None:
        self.step, self.tokens, self.time = step, 0, time.monotonic()

    def add(self, tokens: int) -> None:
        self.tokens += tokens

    def read(self, step: int) -> Speed:
        now = time.monotonic()
        seconds = max(now - self.time, 1e-9)
        speed = Speed((step - self.step) / seconds, self.tokens / seconds)
        self.step, self.tokens, self.time = step, 0, now
        return speed


class Pace:
    """Time left by all that a session did so far: validation, saving and steps that were taken back included."""

    def __init__(self) -> None:
        self.begun, self.steps = time.monotonic(), 0

    def seconds(self, left: int) -> float:
        """That so many steps will take."""
        return left * (time.monotonic() - self.begun) / self.steps if self.steps else 0.0


def memory_gb(device: torch.device) -> float:
    """On a GPU the most that tensors have held since the last call, elsewhere what this process holds now; in GB."""
    if device.type != "cuda":
        return psutil.Process().memory_info().rss / 1e9
    most = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return most


def describe(step: int, horizon: int, metrics: Mapping[str, float]) -> str:
    """The one log line of an interval; its time left is to the step where the session will end."""
    own = {name.removeprefix("train/"): value for name, value in metrics.items() if name.startswith("train/")}
    seconds = int(own.pop("eta_seconds"))
    steps, tokens, memory = (own.pop(f"{name}") for name in ("steps_per_second", "tokens_per_second", "memory_gb"))
    if not own["skipped"]:
        del own["skipped"]
    own.pop("clipped", None)
    values = "  ".join(f"{name} {value:.4g}" for name, value in own.items())
    eta = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"step {step}/{horizon}  {values}  {steps:.2f} steps/s  {tokens:,.0f} tokens/s  {memory:.1f} GB  eta {eta}"
