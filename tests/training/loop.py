"""What the tests of the training loop share: a run's shape, ways to look into it and to disturb it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from tests.tiny_voice import Bench
from tts_kernel.data.batch import Batch
from tts_kernel.recipes.indextts2.objective import PairObjective
from tts_kernel.training.update import Updated, Updater

# Three epochs of three updates, the last of each of one micro-batch; metrics over two updates, so that a stop falls
# between two log lines; validation in between.
LONG: dict[str, Any] = {"epochs": 3, "log_every": 2, "validate_every": 2, "save_every": 4}

# What the clock and the machine decide.
_NOT_REPEATED = ("steps_per_second", "tokens_per_second", "memory_gb", "eta_seconds")


def at_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call `act` at the beginning of every update, with its number counted from 0."""
    own = PairObjective.before_step

    def before_step(self: PairObjective, step: int) -> dict[str, float]:
        act(step)
        return own(self, step)

    monkeypatch.setattr(PairObjective, "before_step", before_step)


def change_sums(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[PairObjective, Batch, dict[str, Any]], None]
) -> None:
    """Call `change` with what every training forward pass returns, before it is used."""
    own = PairObjective.forward

    def forward(self: PairObjective, batch: Batch) -> dict[str, Any]:
        sums = own(self, batch)
        if self.model.training:
            change(self, batch, sums)
        return sums

    monkeypatch.setattr(PairObjective, "forward", forward)


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int], term: str = "mel", by: float = float("nan")) -> None:
    """Multiply one loss of these updates, counted from 0."""
    now = [0]
    at_step(monkeypatch, lambda step: now.__setitem__(0, step))

    def change(objective: PairObjective, batch: Batch, sums: dict[str, Any]) -> None:
        if now[0] in steps:
            sums[term] = sums[term] * by

    change_sums(monkeypatch, change)


def record_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of all pairs trained on from now."""
    seen: list[str] = []
    own = Updater.__call__

    def update(self: Updater, micro_batches: Sequence[Batch], totals: dict[str, int]) -> Updated:
        done = own(self, micro_batches, totals)
        seen.extend(name for batch in micro_batches for name in batch.ids)
        return done

    monkeypatch.setattr(Updater, "__call__", update)
    return seen


def before_update(monkeypatch: pytest.MonkeyPatch, look: Callable[[Updater], None]) -> None:
    """Call `look` before every optimiser step."""
    own = Updater.__call__

    def update(self: Updater, micro_batches: Sequence[Batch], totals: dict[str, int]) -> Updated:
        look(self)
        return own(self, micro_batches, totals)

    monkeypatch.setattr(Updater, "__call__", update)


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Bit-equal, however nested."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_equal(one[name], other[name], f"{where}/{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}/{number}")
    else:
        assert one == other, where


def logged(bench: Bench, name: str = "run") -> dict[str, dict[int, float]]:
    """metric -> step -> value, of what another run of the same settings would log too."""
    metrics = {key for record in bench.run(name).records() for key in record} - {"step", "time"}
    return {
        key: dict(zip(*bench.run(name).series(key), strict=True)) for key in metrics if not key.endswith(_NOT_REPEATED)
    }


def assert_same_run(bench: Bench, finished: Bench, name: str = "run") -> None:
    """Weights, optimiser, random state and what was logged; a stop may have validated once more."""
    ours, expected = bench.saved(name), finished.saved()
    for key in ("model", "optimizer", "scheduler", "step", "epoch", "standing", "random"):
        assert_equal(ours[key], expected[key], key)
    got, wanted = logged(bench, name), logged(finished)
    assert got.keys() == wanted.keys()
    assert {key: {step: got[key].get(step) for step in values} for key, values in wanted.items()} == wanted
