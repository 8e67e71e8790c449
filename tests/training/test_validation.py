"""Validation metrics of an objective whose sums are known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tts_kernel.training.processes import Processes
from tts_kernel.training.validation import validation_metrics


@dataclass(frozen=True)
class Rows:
    values: list[float]
    idle: bool = False

    def to(self, device: torch.device) -> Rows:
        return self


class Sums(nn.Module):
    """The loss is the value itself; only values above 1 are targets of `top`, and nothing is one of `never`."""

    names = ("loss", "top", "never")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.with_gradient: list[bool] = []

    def counts(self, batch: Rows) -> dict[str, int]:
        return {"loss": len(batch.values), "top": sum(value > 1 for value in batch.values)}

    def forward(self, batch: Rows) -> dict[str, Tensor]:
        values = torch.tensor(batch.values) * self.weight
        self.with_gradient.append(values.requires_grad)
        return {"loss": values.sum(), "top": values[values > 1].sum()}

    def summary(self, split: str, means: dict[str, float]) -> dict[str, float]:
        return {f"{split}/{name}": value for name, value in means.items()}


class Loader:
    def __init__(self, *batches: Rows) -> None:
        self.given = batches

    def batches(self, position: Any) -> Iterator[Rows]:
        yield from self.given


def metrics(*batches: Rows, objective: Sums | None = None) -> dict[str, float]:
    objective, loader = objective or Sums(), Loader(*batches)
    return validation_metrics(objective, loader, Processes(torch.device("cpu")), nullcontext)  # type: ignore[arg-type]


def test_means_are_over_targets_however_batches_are_cut() -> None:
    found = metrics(Rows([1.0, 2.0, 3.0]), Rows([6.0]))
    assert found == pytest.approx({"val/loss": 3.0, "val/top": 11 / 3})
    assert metrics(Rows([1.0]), Rows([2.0, 3.0, 6.0])) == pytest.approx(found)


def test_an_idle_batch_is_computed_and_not_counted() -> None:
    objective = Sums()
    assert metrics(Rows([1.0]), Rows([5.0], idle=True), objective=objective)["val/loss"] == 1.0
    assert len(objective.with_gradient) == 2, "a sharded model needs all processes"


def test_a_sum_without_a_target_is_left_out_and_not_divided_by_nothing() -> None:
    assert metrics(Rows([0.5, 1.0])) == {"val/loss": 0.75}


def test_nothing_is_kept_for_a_backward_pass() -> None:
    objective = Sums()
    metrics(Rows([1.0]), objective=objective)
    assert objective.with_gradient == [False]
    assert torch.is_grad_enabled()
