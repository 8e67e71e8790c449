"""A recipe without a model, for tests of how a run is started, followed and ended: it counts steps, all processes
together, and does on one of them what its settings say."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from pydantic.dataclasses import dataclass as checked_dataclass

from tts_kernel.runs import Run, write_atomically
from tts_kernel.settings import STRICT
from tts_kernel.training.launch import Launch
from tts_kernel.training.launch.hold import held
from tts_kernel.training.outcome import Outcome, RunInterrupted, TrainingError
from tts_kernel.training.processes import environment_rank, environment_world
from tts_kernel.training.signals import stop_requests
from tts_kernel.training.speed import DeviceName

log = logging.getLogger("tts_kernel.recipes.stand_in")


@checked_dataclass(frozen=True, config=STRICT)
class Settings:
    run_name: str = ""
    launch: Launch = "inline"
    processes: int = 1
    device: DeviceName = "cpu"
    steps: int = 5
    pause: float = 0.02  # seconds per step
    prepare_for: float = 0.0  # seconds
    wrong: Literal["", "error", "bug", "killed", "exit"] = ""  # what happens ...
    wrong_rank: int = 0  # ... on this process ...
    wrong_step: int = 3  # ... at this step
    others: Literal["", "stuck"] = ""  # what the others are at that step, where Python hears no signal


@dataclass(frozen=True)
class Prepared:
    asked: Settings


def prepare(settings: Settings, run: Run) -> Prepared:
    with (run.folder / "prepared.txt").open("a", encoding="utf-8") as file:
        file.write(f"{environment_world()} {os.environ.get('RANK', '-')}\n")
    time.sleep(settings.prepare_for)
    return Prepared(settings)


def train(prepared: Prepared, run: Run) -> Outcome:
    settings, rank, world = prepared.asked, environment_rank(), environment_world()
    if world > 1:
        dist.init_process_group("gloo")
    log.warning("begins in process %d", os.getpid())
    state = run.folder / "checkpoints" / "step.txt"
    with held(run) if rank == 0 else nullcontext(), stop_requests(run.folder / "stop") as stop:
        step = int(state.read_text()) if state.exists() else 0
        while step < settings.steps:
            step += 1
            time.sleep(settings.pause)
            if settings.wrong and (step, rank) == (settings.wrong_step, settings.wrong_rank):
                _go_wrong(settings.wrong)
            if settings.others and step == settings.wrong_step and rank != settings.wrong_rank:
                while True:
                    ctypes.CDLL(None).sleep(600)
            asked = torch.tensor([float(stop.is_set())])
            if world > 1:
                dist.all_reduce(asked)
            if rank == 0:
                with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, "time": time.time(), "train/loss": 1 / step}) + "\n")
                log.info("step %d of %d", step, settings.steps)
            if asked.item():
                if rank == 0:
                    time.sleep(0.3)  # the others are through by now
                    write_atomically(state, str(step))
                raise RunInterrupted(f"run {run.name} stopped by {stop.why or 'another process'} at step {step}")
    return Outcome("finished", step, settings.steps, {"val/loss": 1.0}, {"val/loss": 0.5}, 0.1)


def _go_wrong(how: str) -> None:
    if how == "error":
        raise TrainingError("the loss of clip_17 is not finite; look at the clip")
    elif how == "bug":
        {}["missing"]
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        os._exit(7)


def explain(outcome: Outcome, prepared: Prepared, run: Run) -> str:
    return f"{outcome.status}: step {outcome.step}"
