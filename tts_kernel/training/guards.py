"""What keeps a bad update from a weight, and a run that goes wrong from doing so unseen."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from torch import Tensor

from tts_kernel.data.sampler import Position
from tts_kernel.runs import write_atomically

OnSpike = Literal["ignore", "warn", "rollback"]
OnOutOfMemory = Literal["stop", "split"]

MOST_ROLLBACKS = 3  # a run that spikes again after so many needs a person


@dataclass(frozen=True)
class BadStep:
    """An update that was not taken: its loss or its gradient is not finite."""

    step: int  # counted from 1
    losses: Mapping[str, float | None]  # mean of each term; null where it is not finite
    gradient_norm: float | None
    learning_rate: float
    pairs: Sequence[Mapping[str, Any]]  # id and lengths of each
    parameters: Mapping[str, int]  # name -> how many values of its gradient are not finite
    position: Position | None  # where the data go on
    stands: str = "the weights are as they were"

    def __str__(self) -> str:
        names = ", ".join(str(pair["id"]) for pair in self.pairs[:4]) + (" ..." if len(self.pairs) > 4 else "")
        return (
            f"step {self.step}: the loss or its gradient is not finite (losses {dict(self.losses)}, gradient norm "
            f"{self.gradient_norm}); the step was not taken and {self.stands}. Pairs: {names}; the rest "
            f"is in {self.file}"
        )

    @property
    def file(self) -> str:
        """Where in the run folder it is written."""
        return f"bad_steps/step_{self.step:05d}.json"

    def write(self, folder: Path) -> Path:
        path = folder / self.file
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
        return path


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def not_finite(gradients: Mapping[str, Tensor | None]) -> dict[str, int]:
    """How many values of each gradient are not finite, of those that have some."""
    counts = {name: int((~grad.isfinite()).sum()) for name, grad in gradients.items() if grad is not None}
    return {name: count for name, count in counts.items() if count}


@dataclass(frozen=True)
class Spike:
    """The loss has left its usual range and stayed out."""

    value: float
    usual: float  # median of the window before
    spread: float  # robust standard deviation there
    updates: int  # that have been out of it, this one included

    def __str__(self) -> str:
        return f"the loss is {self.value:.4g}, and was {self.usual:.4g} +- {self.spread:.2g} before"


class SpikeWatch:
    """Tells a loss that has left its range from one unlucky batch.

    An update is out of range when its loss is more than `width` robust standard deviations (1.4826 times the median
    absolute deviation) above the median of the `window` updates before it that were in range. `patience` of them in a
    row are a spike: a single bad batch is not, and neither does it widen the range. A slow rise moves the range along
    and is no spike; that is for the validation loss to tell. After a whole window out of range, that is the range; but
    until the loss is back where it was before, it counts as suspicious."""

    def __init__(self, window: int = 100, least: int = 20, width: float = 6.0, patience: int = 5) -> None:
        self._window, self._least, self._width, self._patience = window, least, width, patience
        self._usual: deque[float] = deque(maxlen=window)
        self._out = 0
        self._limit: float | None = None  # that the loss left, and is not below again

    @property
    def suspicious(self) -> bool:
        """Whether weights saved now may be damaged: the loss is out of its range, or has been since it left it."""
        return self._out > 0 or self._limit is not None

    def add(self, loss: float) -> Spike | None:
        """Judge one more update's loss: the spike, from the update on that makes it one until it is over."""
        if len(self._usual) >= self._least:
            usual = median(self._usual)
            # With hardly any noise the smallest move would be many deviations: a hundredth of the loss is none.
            spread = max(1.4826 * median(abs(value - usual) for value in self._usual), 0.01 * abs(usual))
            if self._limit is not None and usual < self._limit:
                self._limit = None
            if loss > usual + self._width * spread:
                self._out += 1
                out = self._out
                if out == self._window:
                    self._limit = usual + self._width * spread if self._limit is None else self._limit
                    self._usual.clear()
                    self._out = 0
                return Spike(loss, usual, spread, out) if out >= self._patience else None
        self._out = 0
        self._usual.append(loss)
        return None

    def state(self) -> dict[str, Any]:
        return {"usual": list(self._usual), "out": self._out, "limit": self._limit}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._usual.clear()
        self._usual.extend(state["usual"])
        self._out, self._limit = state["out"], state["limit"]
