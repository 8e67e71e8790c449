"""What training needs of a batch, and of the plan that says which rows form it, whatever the family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from tts_kernel.data.sampler import PlannedBatch, Position


class AnyBatch(Protocol):
    """One padded batch."""

    @property
    def ids(self) -> list[str]: ...

    @property
    def position(self) -> Position | None:
        """Where the plan goes on after this batch."""

    @property
    def idle(self) -> bool:
        """Another process has these rows; this one only keeps it company."""

    def facts(self) -> list[dict[str, Any]]:
        """Id and lengths of each row, for a report."""

    def split(self, parts: int) -> Sequence[Self]:
        """The same rows in at most `parts` batches."""

    def to(self, device: torch.device) -> Self: ...

    def pin_memory(self) -> Self: ...


class Plan(Protocol):
    """Which rows form which batch; equal plans give equal batches."""

    @property
    def rows(self) -> np.ndarray:
        """That are trained on, available or not."""

    @property
    def available(self) -> int:
        """How many of `rows`, from the head, can be used now."""

    @property
    def batch_size(self) -> int:
        """Rows of the largest batch, of all processes together."""

    @property
    def window(self) -> int:
        """Rows among which a batch finds its company."""

    def share(self, rank: int, world: int) -> Self:
        """The same plan for one of several processes."""

    def updates_per_epoch(self, grad_accumulation: int = 1) -> int:
        """Of all rows: what a learning-rate horizon is computed from."""

    def exhausted(self, position: Position) -> bool:
        """Whether everything available is used up although the epoch has more rows."""

    def epoch(self, position: Position) -> Iterator[PlannedBatch]:
        """From `position` to the end of its epoch, or of what is available."""


def each_tensor(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A batch (a dataclass) with every tensor changed."""
    values = {item.name: getattr(batch, item.name) for item in fields(batch)}
    return replace(batch, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})
