"""What a run is asked for by its loop, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tts_kernel.data.loader import LoaderSettings
from tts_kernel.training.guards import OnOutOfMemory, OnSpike
from tts_kernel.training.speed import ScaledPrecision

Status = Literal["finished", "mels exhausted", "step limit reached", "stopped early"]


class TrainingError(RuntimeError):
    """Training cannot go on: values that are not finite, memory that does not suffice, a resume that contradicts its
    checkpoint."""


class RunInterrupted(KeyboardInterrupt):
    """The user or the system asked the run to stop; it has been saved."""


@dataclass(frozen=True)
class LoopSettings:
    """What the loop itself needs to know."""

    grad_accumulation: int = 1  # micro-batches per update
    grad_clip: float = 0.5  # largest gradient norm
    epochs: int = 1
    max_steps: int = 0  # stop here without changing the schedule's horizon; 0 for the whole horizon
    log_every: int = 100  # updates
    validate_every: int = 500
    patience: int = 0  # validations without a lower loss, after which the run ends; 0: none are too many
    save_every: int = 500
    keep_checkpoints: int = 3  # step_*.pth
    keep_best: int = 0
    background_saves: bool = False
    max_bad_steps: int = 3  # in a row
    on_spike: OnSpike = "warn"
    rollback_rate: float = 0.5
    on_out_of_memory: OnOutOfMemory = "stop"
    aim: bool = False
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    precision: ScaledPrecision = "auto"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    step: int
    horizon: int  # updates the schedule was planned for
    val_before: dict[str, float]
    val_after: dict[str, float]
    seconds: float  # of this session
    val_averaged: dict[str, float] = field(default_factory=dict)  # of averaged.pth, where one was asked for
