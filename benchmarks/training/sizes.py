"""How much is measured, and where."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.training.corpus import PAIRS, SHAPES


@dataclass(frozen=True)
class Sizes:
    """Targets are judged at these sizes, not below."""

    folder: Path  # scratch
    pairs: int = PAIRS
    shape: str = "large"  # of the model whose throughput is measured
    steps: int = 8  # batches in a round
    rounds: int = 3
    seeds: int = 3  # runs whose losses are compared
    overhead_steps: int = 60  # of a small model, in a round
    gigabytes: float = 1.5  # of a checkpoint
    kills: int = 200  # of a run, at random moments

    @property
    def full(self) -> bool:
        return self.pairs >= PAIRS and self.shape == "large" and self.steps >= 8 and self.rounds >= 3

    def words(self) -> dict[str, object]:
        """What a subject's METHOD may name."""
        names = ("pairs", "steps", "rounds", "seeds", "overhead_steps", "kills", "gigabytes")
        counts = {name: getattr(self, name) for name in names}
        size = SHAPES[self.shape]
        return counts | {"cores": os.cpu_count() or 1, "shape": f"{size.layers} layers, {size.model_dim} wide"}
