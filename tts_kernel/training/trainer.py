"""The training loop: update, log, validate, save, in the order it happens. The recipe hands it the loss.

Each part of it lies in a file of its own: `guarded` (an update at its rate), `validation`, `keeping` (saving, and going
on from what was saved), `rollback` and `report` (what is logged).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from tts_kernel.data.features import FeatureError
from tts_kernel.data.loader import BatchLoader
from tts_kernel.data.planned import AnyBatch, Plan
from tts_kernel.data.sampler import Position
from tts_kernel.models.weights import read_checkpoint
from tts_kernel.optim.optimizers import evaluation_mode, training_mode
from tts_kernel.runs import Run
from tts_kernel.training.guarded import GuardedUpdater
from tts_kernel.training.guards import Spike, SpikeWatch
from tts_kernel.training.keeping import Keeper
from tts_kernel.training.outcome import LoopSettings, Outcome, RunInterrupted, Status
from tts_kernel.training.processes import Processes
from tts_kernel.training.report import Report
from tts_kernel.training.rollback import roll_back
from tts_kernel.training.signals import StopRequests, stop_requests
from tts_kernel.training.speed import autocast
from tts_kernel.training.state import RunState, Standing
from tts_kernel.training.update import Objective, TakesSteps, Updated, Updater
from tts_kernel.training.used_weights import at_rest
from tts_kernel.training.validation import validation_metrics

log = logging.getLogger(__name__)


class Trainer:
    """One run of one objective. `fit` starts or, where the run folder holds a checkpoint, resumes exactly."""

    def __init__(
        self,
        *,
        run: Run,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        data: Dataset[AnyBatch],
        plan: Plan,
        validation: tuple[Dataset[AnyBatch], Plan],
        settings: LoopSettings,
        processes: Processes,
        identity: Mapping[str, Any],
        digest: Callable[[int], int],
        recorded: Mapping[str, Any],
        updater: TakesSteps | None = None,
        after_validation: Callable[[int], None] | None = None,
        after_save: Callable[[RunState], None] | None = None,
    ) -> None:
        """`rate` is the factor on the peak rate by update. `identity` holds what a resume must not change (the
        horizon is added), by name, as plain values; it is stored in every checkpoint, as are the settings in
        `recorded`. `digest(n)` is a checksum of the first n rows of the plan and their order: a resume compares it over
        the rows begun with. `updater` takes the steps of an objective that is more than one loss. The main process
        calls `after_validation` with the step, the model in eval mode, and `after_save` with what was saved."""
        self.run, self.objective, self.optimizer, self.model = run, objective, optimizer, objective.model
        self.processes, self.settings, self.after_validation = processes, settings, after_validation
        assert isinstance(objective, nn.Module)
        held, held_plan = validation
        loading = replace(settings.loader, pin_memory=settings.loader.pin_memory and processes.device.type == "cuda")
        self.plan = plan.share(processes.rank, processes.world)
        self.loader = BatchLoader(data, self.plan, loading)
        self.held_loader = BatchLoader(held, held_plan.share(processes.rank, processes.world), loading)
        self.horizon = self.plan.updates_per_epoch(settings.grad_accumulation) * settings.epochs
        identity = {**identity, "horizon": self.horizon}
        self.state = RunState(
            self.model, optimizer, self.plan, processes, identity=identity, digest=digest, settings=recorded
        )
        self.autocast = autocast(processes.device, settings.precision)
        self.updater: TakesSteps = updater or Updater(
            objective,
            processes.wrap(objective),
            optimizer,
            processes,
            grad_clip=settings.grad_clip,
            autocast=self.autocast,
            on_out_of_memory=settings.on_out_of_memory,
        )
        self.guarded = GuardedUpdater(self.updater, self.state, rate, run, settings)
        self.watch, self.report = SpikeWatch(), Report(run, processes, self.horizon, settings.aim)
        self.keeper = Keeper(run, self.state, settings, self.updater, self.report.interval, self.watch, after_save)
        self.checkpoints = self.keeper.checkpoints
        self.resumed = False
        self._validated_at = -1

    # Where it stands

    @property
    def now(self) -> Standing:
        """Of the run: an object that a rollback replaces."""
        return self.state.now

    @property
    def last_step(self) -> int:
        """Where this session will end: the horizon, or before it the last available row or the step limit."""
        plan, last = self.plan, self.horizon
        if plan.available < len(plan.rows):
            last = min(last, -(-plan.available // (plan.batch_size * self.settings.grad_accumulation)))
        return min(last, self.settings.max_steps or last)

    @property
    def impatient(self) -> bool:
        """The validation loss has not fallen for as long as the settings allow."""
        return 0 < self.settings.patience <= self.now.since_best

    # The loop

    def fit(self) -> Outcome:
        """Train from where the run folder stands to the end of the data. Raises RunInterrupted when asked to stop and
        FeatureError for a bad file, both after saving; TrainingError when a step must not be taken (the last
        checkpoint stands); CheckpointError for a full disk, also before the first step."""
        started = time.monotonic()
        self.resume_if_started()
        self.keeper.check_room()
        shown = {"desc": self.run.name, "unit": "step", "mininterval": 1.0}
        shown |= {} if self.processes.main else {"disable": True}
        with (
            self.keeper.closing(),
            stop_requests(self.run.stop_file) as stop,
            tqdm(total=self.last_step, initial=self.now.step, **shown) as bar,
            self.report.open(self.now.step if self.resumed else -1),
        ):
            self.model.train()
            training_mode(self.optimizer)
            if not self.resumed:
                self.now.val_before = self._validate_and_log()
            try:
                status = self._train(stop, bar)
                if self._validated_at != self.now.step:
                    self._validate_and_log()
            except FeatureError:
                if self.processes.world == 1:
                    self.keeper.save_if_new()
                raise
            except RuntimeError as error:
                # A signal that went to the processes that read batches as well is a stop, nothing else is.
                if "DataLoader worker" not in str(error) or not stop.is_set() or self.processes.world > 1:
                    raise
                self._save_and_stop(stop.why)
            self.keeper.save_if_new()
            self.checkpoints.wait()
        self.processes.wait()
        now = self.now
        return Outcome(status, now.step, self.horizon, now.val_before, now.val_last, time.monotonic() - started)

    def _train(self, stop: StopRequests, bar: tqdm) -> Status:
        """From the position of now to the end, and again from an earlier one after each rollback."""
        settings, told = self.settings, False  # that there is a spike
        self.report.begin(self.now.step)
        if self.impatient:
            return "stopped early"
        while True:
            for micro_batches, failure in self._updates():
                if settings.max_steps and self.now.step >= settings.max_steps:
                    return "step limit reached"
                requests = [stop.is_set(), failure is not None]
                totals, (stopping, failed) = self.updater.totals(micro_batches, requests)
                if failed:
                    self.save()
                    self.keeper.settle()  # the first that ends takes the others along
                    raise failure or FeatureError("another process could not use a file of its rows; it says which")
                spike = self._step(micro_batches, totals)
                bar.update()
                if spike is not None and settings.on_spike == "rollback":
                    self._roll_back(spike)
                    bar.n = self.now.step
                    told = False
                    break
                if spike is not None and not told:
                    log.warning("step %d: %s", self.now.step, spike)
                told = spike is not None
                if self.now.step % settings.log_every == 0 or self.now.step == 1:
                    left = max(self.last_step - self.now.step, 0)
                    self.now.train_last = self.report.tell_interval(self.now.step, left)
                if self.now.step % settings.validate_every == 0:
                    self._validate_and_log()
                    if self.impatient:
                        return "stopped early"
                if self.now.step % settings.save_every == 0:
                    self.save()
                if stopping or (self.processes.world == 1 and stop.is_set()):
                    self._save_and_stop(stop.why)
            else:
                return "finished" if self.now.position.epoch >= settings.epochs else "mels exhausted"

    def _updates(self) -> Iterator[tuple[list[AnyBatch], FeatureError | None]]:
        """Micro-batches by update, to the end of the last epoch or of what is available; the last update of an epoch
        may have fewer. A file that cannot be used comes out as the error that it is, last."""
        while self.now.position.epoch < self.settings.epochs:
            epoch = self.now.position.epoch
            batches = self.loader.batches(self.now.position)
            try:
                while group := list(islice(batches, self.settings.grad_accumulation)):
                    yield group, None
            except FeatureError as error:
                yield [], error
                return
            if self.plan.exhausted(self.now.position):
                return
            if self.now.position.epoch == epoch:
                self.now.position = Position(epoch + 1)

    def _step(self, micro_batches: Sequence[AnyBatch], totals: Mapping[str, int]) -> Spike | None:
        """One update and its metrics; the spike, while there is one."""
        extra = self.objective.before_step(self.now.step)
        done = self.update(micro_batches, totals)
        assert micro_batches[-1].position is not None
        self.now.position = micro_batches[-1].position
        metrics = {**extra, **done.extra, "train/lr": done.rate, "train/skipped": float(not done.taken)}
        if not done.taken:
            self.report.add(metrics, done.tokens)
            return None
        own = {"train/grad_norm": done.norm, "train/clipped": float(done.norm > self.settings.grad_clip)}
        self.report.add({**self.objective.summary("train", done.means), **metrics, **own}, done.tokens)
        if self.settings.on_spike == "ignore":
            return None
        weights = self.objective.weights
        return self.watch.add(sum(weights[name] * done.means[name] for name in self.objective.watched))

    def _validate_and_log(self) -> dict[str, float]:
        self.now.val_last = values = self.validate()
        if self.after_validation is not None and self.processes.main:
            with self.at_rest():
                self.model.eval()
                self.after_validation(self.now.step)
                self.model.train()
        self._validated_at = self.now.step
        self.report.write(self.now.step, values)
        kept: list[str] = []
        if self.now.step:  # what the run started from is no result of it, however low its loss
            self.now.note_validation(values["val/loss"])
            kept = self.keeper.save_best()
        self.report.tell_validation(self.now.step, values, kept)
        self.report.restart_clock(self.now.step)
        return values

    def _roll_back(self, spike: Spike) -> None:
        roll_back(spike, self.keeper, self.settings.rollback_rate)
        self.report.take_back(self.now.step)
        self.save()  # else a run that is killed now would go on with the weights of the spike
        self._validated_at = -1

    def _save_and_stop(self, why: str = "") -> NoReturn:
        self.keeper.save_if_new()
        self.keeper.settle()  # nobody says that it is saved before it is
        by = f" ({why})" if why else ""
        raise RunInterrupted(
            f"run {self.run.name} stopped at step {self.now.step} of {self.horizon}{by} and is saved in "
            f"{self.checkpoints.latest_full}; start it again with run_name {self.run.name} to go on"
        )

    # What the loop does, for those who do without it

    def update(self, micro_batches: Sequence[AnyBatch], totals: Mapping[str, int]) -> Updated:
        """One optimiser step, by the schedule's rate. One that is not finite is reported and not taken; raises
        TrainingError after too many of them in a row, and where memory does not suffice."""
        return self.guarded(micro_batches, totals)

    def validate(self) -> dict[str, float]:
        """The whole validation split, by the path that training takes."""
        self.model.eval()
        with self.at_rest():
            found = validation_metrics(self.objective, self.held_loader, self.processes, self.autocast)
        self.model.train()
        return found

    def validate_file(self, path: Path) -> dict[str, float]:
        """The validation split with the weights of a checkpoint, which the model then has."""
        weights = read_checkpoint(path)["model"]
        evaluation_mode(self.optimizer)  # which would otherwise mix its own into them
        self.model.load_state_dict(self.processes.parts_of(weights, self.model.state_dict()))
        return self.validate()

    def at_rest(self) -> AbstractContextManager[None]:
        """The model has the weights that are to be used and kept, where the optimizer trains on others."""
        return at_rest(self.optimizer)

    def save(self) -> None:
        """latest_full.pth, latest.pth and the step file. All processes have to call it."""
        self.keeper.save()
        self.report.restart_clock(self.now.step)

    def resume_if_started(self) -> None:
        """Once, where the run folder holds a checkpoint: weights, optimiser, position and random states as they were
        saved. Raises TrainingError, naming each difference, if the run's identity changed."""
        self.resumed = self.resumed or self.keeper.resume()
