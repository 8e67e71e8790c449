"""Planned batches read by worker processes, which stay for the whole run."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch.utils.data import DataLoader, Dataset

from tts_kernel.data.planned import AnyBatch, Plan
from tts_kernel.data.sampler import PlannedBatch, Position

StartMethod = Literal["auto", "fork", "forkserver", "spawn"]


@dataclass(frozen=True)
class LoaderSettings:
    """How batches are read."""

    num_workers: int = 0  # processes; 0 reads in the training process
    prefetch_factor: int = 2  # batches that each worker reads ahead
    persistent_workers: bool = True  # keep them from one epoch and validation to the next
    pin_memory: bool = True  # where there is a CUDA device: quicker copies to it
    worker_start: StartMethod = "auto"  # fork where that is safe (Linux), else forkserver

    def __post_init__(self) -> None:
        if self.num_workers < 0 or self.prefetch_factor < 1:
            found = f"num_workers is {self.num_workers} and prefetch_factor {self.prefetch_factor}"
            raise ValueError(f"{found}; expected at least 0 and 1")
        available = multiprocessing.get_all_start_methods()
        if self.worker_start not in ("auto", *available):
            raise ValueError(f"worker_start is {self.worker_start!r}, expected auto or one of {', '.join(available)}")

    def start_method(self) -> str:
        if self.worker_start != "auto":
            return self.worker_start
        # macOS has fork, but its own libraries do not survive it.
        wanted = "fork" if sys.platform == "linux" else "forkserver"
        return wanted if wanted in multiprocessing.get_all_start_methods() else "spawn"


class BatchLoader:
    """The batches of a plan, from any position, by workers that are started once."""

    def __init__(self, data: Dataset[AnyBatch], plan: Plan, settings: LoaderSettings) -> None:
        self._plan = _Planned(plan)
        workers = settings.num_workers
        self._loader: DataLoader[AnyBatch] = DataLoader(
            data,
            sampler=self._plan,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=settings.prefetch_factor if workers else None,
            persistent_workers=settings.persistent_workers and workers > 0,
            multiprocessing_context=settings.start_method() if workers else None,
            pin_memory=settings.pin_memory and torch.cuda.is_available(),
            worker_init_fn=ignore_interrupts,
            generator=torch.Generator(),  # else its workers' seed would be drawn from the state that a resume restores
        )

    def batches(self, position: Position) -> Iterator[AnyBatch]:
        """From `position` to the end of its epoch, or of what is available."""
        self._plan.position = position
        return iter(self._loader)


class _Planned:
    """A sampler that begins where it is told."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.position = plan, Position()

    def __iter__(self) -> Iterator[PlannedBatch]:
        return self.plan.epoch(self.position)


def ignore_interrupts(worker: int) -> None:
    """In a worker: an interrupt is the training process's business, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
