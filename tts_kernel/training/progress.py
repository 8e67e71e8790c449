"""What the log line of an interval says: means, speed, time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import fmean


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
            if name in ("train/lr", "train/grl_lambda")
            else fmean(step[name] for step in self.steps if name in step)
            for name in dict.fromkeys(name for step in self.steps for name in step)
        }
        self.steps = []
        return means


class Clock:
    """Speed since the last reading."""

    def __init__(self, step: int) -> None:
        self.step, self.time = step, time.monotonic()

    def steps_per_second(self, step: int) -> float:
        now = time.monotonic()
        speed = (step - self.step) / max(now - self.time, 1e-9)
        self.step, self.time = step, now
        return speed


def describe(step: int, horizon: int, last: int, metrics: Mapping[str, float], speed: float) -> str:
    """The one log line of an interval; its time left is to step `last`, where the session will end."""
    seconds = int(max(last - step, 0) / speed) if speed > 0 else 0
    eta = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    shown = {name.removeprefix("train/"): value for name, value in metrics.items() if name != "train/clipped"}
    values = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
    return f"step {step}/{horizon}  {values}  {speed:.2f} steps/s  eta {eta}"
