"""The training loop: update, log, validate, save, in the order it happens. The recipe hands it the loss."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from tts_kernel.models.weights import CheckpointError, read_checkpoint
from tts_kernel.optim.optimizers import evaluation_mode, training_mode
from tts_kernel.runs import Run
from tts_kernel.training.checkpoints import CheckpointFolder
from tts_kernel.training.checkpoints.room import full_size, size_of
from tts_kernel.training.guards import (
    MOST_ROLLBACKS,
    BadStep,
    Spike,
    SpikeWatch,
    finite_or_none,
    not_finite,
)
from tts_kernel.training.metrics import MetricLog
from tts_kernel.training.outcome import LoopSettings, Outcome, RunInterrupted, Status, TrainingError
from tts_kernel.training.processes import Processes
from tts_kernel.training.progress import Clock, Interval, Pace, describe, memory_gb
from tts_kernel.training.signals import StopRequests, stop_requests
from tts_kernel.training.speed import autocast
from tts_kernel.training.state import RunState, Standing
from tts_kernel.training.update import Objective, TakesSteps, Updated, Updater

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
        self.run, self.objective, self.optimizer, self.rate = run, objective, optimizer, rate
        self.model, self.processes, self.settings = objective.model, processes, settings
        assert isinstance(objective, nn.Module)
        rank, world = processes.rank, processes.world
        held, held_plan = validation
        self.plan = plan.share(rank, world)
        pinned = settings.loader.pin_memory and processes.device.type == "cuda"
        loading = replace(settings.loader, pin_memory=pinned)
        self.loader = BatchLoader(data, self.plan, loading)
        self.held_loader = BatchLoader(held, held_plan.share(rank, world), loading)
        self.horizon = self.plan.updates_per_epoch(settings.grad_accumulation) * settings.epochs
        self.state = RunState(
            objective.model,
            optimizer,
            self.plan,
            processes,
            identity={**identity, "horizon": self.horizon},
            digest=digest,
            settings=recorded,
        )
        self.autocast = autocast(processes.device, settings.precision)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.after_validation, self.after_save = after_validation, after_save
        self.updater: TakesSteps = updater or Updater(
            objective,
            processes.wrap(objective),
            optimizer,
            processes,
            grad_clip=settings.grad_clip,
            autocast=self.autocast,
            on_out_of_memory=settings.on_out_of_memory,
        )
        self.checkpoints = CheckpointFolder(
            run.checkpoints, settings.keep_checkpoints, settings.keep_best, background=settings.background_saves
        )
        self.watch = SpikeWatch()
        self.interval, self.pace = Interval(), Pace()
        self.resumed = False
        self._metrics: MetricLog | None = None  # on the main process, during `fit`
        self._saved_at = self._validated_at = -1

    # One update

    def update(self, micro_batches: Sequence[AnyBatch], totals: Mapping[str, int]) -> Updated:
        """One optimiser step, by the schedule's rate. One that is not finite is reported and not taken; raises
        TrainingError after too many of them in a row, and where memory does not suffice."""
        factor = self.rate(self.now.step) * self.now.rate_scale
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        try:
            done = self.updater(micro_batches, totals)
        except torch.OutOfMemoryError as error:
            way = self.updater.advice(self.plan.batch_size, self.settings.grad_accumulation)
            raise TrainingError(
                f"step {self.now.step + 1}: out of GPU memory at batch_size {self.plan.batch_size}; resume run "
                f"{self.run.name} with {way}"
            ) from error
        self.now.step += 1
        self.now.parts = self.updater.parts
        if done.taken:
            self.now.bad_steps = 0
        elif done.excused:
            self.updater.clear()
        else:
            self._refuse(micro_batches, done)
        return done

    def _refuse(self, micro_batches: Sequence[AnyBatch], done: Updated) -> None:
        """Keep what there is to know of an update that was not taken; stop after too many in a row."""
        self.now.bad_steps += 1
        gradients = not_finite({name: p.grad for name, p in self.model.named_parameters()})
        self.updater.clear()
        shares = self.processes.gather([fact for b in micro_batches if not b.idle for fact in b.facts()])
        bad = BadStep(
            step=self.now.step,
            losses={name: finite_or_none(value) for name, value in done.means.items()},
            gradient_norm=finite_or_none(done.norm),
            learning_rate=done.rate,
            pairs=[fact for share in shares for fact in share],
            parameters=gradients,
            position=micro_batches[-1].position,
            stands=done.stands,
        )
        if self.processes.main:
            bad.write(self.run.folder)
        if self.now.bad_steps >= self.settings.max_bad_steps:
            raise TrainingError(
                f"{bad}. {self.now.bad_steps} in a row (max_bad_steps): the run stops, its last checkpoint stands. "
                f"Look at these clips, or resume run {self.run.name} with a lower learning_rate or grad_clip, or with "
                "precision 'float32'"
            )
        log.warning("%s", bad)

    # Validation

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The whole validation split, by the path that training takes."""
        self.model.eval()
        names, device = self.objective.names, self.processes.device
        sums = {name: torch.zeros((), device=device) for name in names}
        totals: dict[str, int] = defaultdict(int)
        with self.at_rest():
            for batch in self.held_loader.batches(Position()):
                with self.autocast():
                    found = self.objective(batch.to(device))  # also where idle: a sharded model needs all
                if batch.idle:
                    continue
                for name, count in self.objective.counts(batch).items():
                    totals[name] += count
                for name, value in found.items():
                    sums[name] += value
        self.model.train()
        counted = torch.tensor([totals[name] for name in names], dtype=torch.float64)
        summed = torch.stack([sums[name].double() for name in names]).cpu()
        both = self.processes.total(torch.stack([summed, counted]).to(device)).tolist()
        means = {name: value / count for name, value, count in zip(names, *both, strict=True) if count}
        return self.objective.summary("val", means)

    def validate_file(self, path: Path) -> dict[str, float]:
        """The validation split with the weights of a checkpoint, which the model then has."""
        weights = read_checkpoint(path)["model"]
        evaluation_mode(self.optimizer)  # which would otherwise mix its own into them
        self.model.load_state_dict(self.processes.parts_of(weights, self.model.state_dict()))
        return self.validate()

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """The model has the weights that are to be used and kept, where the optimizer trains on others; those are put
        back to the bit."""
        trained = [(p, p.detach().clone()) for p in self.updater.trainable] if self.two_kinds else []
        evaluation_mode(self.optimizer)
        try:
            yield
        finally:
            training_mode(self.optimizer)
            with torch.no_grad():
                for parameter, value in trained:
                    parameter.copy_(value)

    @property
    def two_kinds(self) -> bool:
        """Whether the optimizer is one that trains on other weights than are to be used."""
        return "train_mode" in self.optimizer.param_groups[0]

    # The loop

    def fit(self) -> Outcome:
        """Train from where the run folder stands to the end of the data. Raises RunInterrupted when asked to stop and
        FeatureError for a bad file, both after saving; TrainingError when a step must not be taken (the last
        checkpoint stands); CheckpointError for a full disk, also before the first step."""
        started = time.monotonic()
        self.resume_if_started()
        if self.processes.main:
            weights = self.model.state_dict()
            self.checkpoints.check_room(size_of(weights), full_size(weights, self.optimizer))
        begun = (self.run.folder / "metrics.jsonl").exists()  # also by a session that died before its first checkpoint
        with ExitStack() as stack:
            stack.push(self._close_checkpoints)
            stop = stack.enter_context(stop_requests(self.run.stop_file))
            silent = {} if self.processes.main else {"disable": True}
            shown = {"desc": self.run.name, "unit": "step", "mininterval": 1.0}
            bar = stack.enter_context(tqdm(total=self.last_step, initial=self.now.step, **shown, **silent))
            stack.callback(self._close_metrics)
            self._open_metrics((self.now.step if self.resumed else -1) if begun else None)
            self.model.train()
            training_mode(self.optimizer)
            if not self.resumed:
                self.now.val_before = self._validate_and_log()
            try:
                status = self._train(stop, bar)
                if self._validated_at != self.now.step:
                    self._validate_and_log()
            except FeatureError:
                if self._saved_at != self.now.step and self.processes.world == 1:
                    self.save()
                raise
            except RuntimeError as error:
                # A signal that went to the processes that read batches as well is a stop, nothing else is.
                if "DataLoader worker" not in str(error) or not stop.is_set() or self.processes.world > 1:
                    raise
                self._save_and_stop(stop.why)
            if self._saved_at != self.now.step:
                self.save()
            self.checkpoints.wait()
        self.processes.wait()
        now = self.now
        return Outcome(status, now.step, self.horizon, now.val_before, now.val_last, time.monotonic() - started)

    @property
    def last_step(self) -> int:
        """Where this session will end: the horizon, or before it the last available row or the step limit."""
        plan = self.plan
        last = self.horizon
        if plan.available < len(plan.rows):
            last = min(last, -(-plan.available // (plan.batch_size * self.settings.grad_accumulation)))
        return min(last, self.settings.max_steps or last)

    @property
    def impatient(self) -> bool:
        """The validation loss has not fallen for as long as the settings allow."""
        return 0 < self.settings.patience <= self.now.since_best

    def _train(self, stop: StopRequests, bar: tqdm) -> Status:
        """From the position of now to the end, and again from an earlier one after each rollback."""
        told = False  # that there is a spike
        self.pace = Pace()
        if self.impatient:
            return "stopped early"
        while True:
            clock = Clock(self.now.step)
            for micro_batches, failure in self._updates():
                if self.settings.max_steps and self.now.step >= self.settings.max_steps:
                    return "step limit reached"
                requests = [stop.is_set(), failure is not None]
                totals, (stopping, failed) = self.updater.totals(micro_batches, requests)
                if failed:
                    self.save()
                    self.checkpoints.wait()
                    self.processes.wait()  # the first that ends takes the others along
                    raise failure or FeatureError("another process could not use a file of its rows; it says which")
                spike = self._step(micro_batches, totals, clock)
                bar.update()
                if spike is not None and self.settings.on_spike == "rollback":
                    self._roll_back(spike)
                    bar.n = self.now.step
                    told = False
                    break
                if spike is not None and not told:
                    log.warning("step %d: %s", self.now.step, spike)
                told = spike is not None
                if self.now.step % self.settings.log_every == 0 or self.now.step == 1:
                    self._log_interval(clock)
                if self.now.step % self.settings.validate_every == 0:
                    self._validate_and_log()
                    clock = Clock(self.now.step)  # the speed is that of training
                    if self.impatient:
                        return "stopped early"
                if self.now.step % self.settings.save_every == 0:
                    self.save()
                    clock = Clock(self.now.step)
                if stopping or (self.processes.world == 1 and stop.is_set()):
                    self._save_and_stop(stop.why)
            else:
                return "finished" if self.now.position.epoch >= self.settings.epochs else "mels exhausted"

    def _step(self, micro_batches: Sequence[AnyBatch], totals: Mapping[str, int], clock: Clock) -> Spike | None:
        """One update and its metrics; the spike, while there is one."""
        extra = self.objective.before_step(self.now.step)
        done = self.update(micro_batches, totals)
        assert micro_batches[-1].position is not None
        self.now.position = micro_batches[-1].position
        clock.add(done.tokens)
        self.pace.steps += 1
        metrics = {**extra, **done.extra, "train/lr": done.rate, "train/skipped": float(not done.taken)}
        if not done.taken:
            self.interval.add(metrics)
            return None
        clipped = float(done.norm > self.settings.grad_clip)
        own = {"train/grad_norm": done.norm, "train/clipped": clipped}
        self.interval.add({**self.objective.summary("train", done.means), **metrics, **own})
        if self.settings.on_spike == "ignore":
            return None
        weights = self.objective.weights
        return self.watch.add(sum(weights[name] * done.means[name] for name in self.objective.tokens))

    def _log_interval(self, clock: Clock) -> None:
        self.now.train_last = self.interval.means()
        speed = clock.read(self.now.step)
        left = max(self.last_step - self.now.step, 0)
        now = {
            "train/steps_per_second": speed.steps,
            "train/tokens_per_second": speed.tokens,
            "train/memory_gb": memory_gb(self.processes.device),
            "train/eta_seconds": self.pace.seconds(left),
        }
        self._log(self.now.step, {**self.now.train_last, **now})
        log.info(describe(self.now.step, self.horizon, {**self.now.train_last, **now}))

    def _save_and_stop(self, why: str = "") -> NoReturn:
        if self._saved_at != self.now.step:
            self.save()
        self.checkpoints.wait()
        self.processes.wait()  # nobody says that it is saved before it is
        by = f" ({why})" if why else ""
        raise RunInterrupted(
            f"run {self.run.name} stopped at step {self.now.step} of {self.horizon}{by} and is saved in "
            f"{self.checkpoints.latest_full}; start it again with run_name {self.run.name} to go on"
        )

    def _validate_and_log(self) -> dict[str, float]:
        self.now.val_last = self.validate()
        if self.after_validation is not None and self.processes.main:
            with self.at_rest():
                self.model.eval()
                self.after_validation(self.now.step)
                self.model.train()
        self._validated_at = self.now.step
        self._log(self.now.step, self.now.val_last)
        loss = self.now.val_last["val/loss"]
        if self.now.step:
            better = loss < self.now.best_loss
            self.now.best_loss = min(loss, self.now.best_loss)
            self.now.since_best = 0 if better else self.now.since_best + 1
        # What the run started from is no result of it, however low its loss.
        kept = self._save_best() if self.now.step else []
        values = "  ".join(f"{name.removeprefix('val/')} {value:.4g}" for name, value in self.now.val_last.items())
        log.info("step %d  validation  %s%s", self.now.step, values, f"  -> {', '.join(kept)}" if kept else "")
        return self.now.val_last

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

    # Metrics

    def _open_metrics(self, resumed_at: int | None) -> None:
        if self.processes.main:
            self._metrics = MetricLog(self.run.folder, resumed_at, aim=self.settings.aim)

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._metrics is None:
            return
        try:
            self._metrics.write(step, metrics)
        except OSError as error:
            raise TrainingError(
                f"{self.run.folder}: its metrics could not be written ({error.strerror}); the checkpoints stand. Make "
                "room and resume the run"
            ) from error

    # Checkpoints

    @property
    def now(self) -> Standing:
        """Where the run stands."""
        return self.state.now

    def _save_best(self) -> list[str]:
        with self.at_rest():
            weights = self.state.weights()
            if not self.processes.main:
                return []
            return self.checkpoints.save_best(weights, self.now.val_last, self.now.step)

    def save(self) -> None:
        """latest_full.pth, latest.pth and the step file. All processes have to call it."""
        self.now.interval, self.now.usual_loss = self.interval.steps, self.watch.state()
        self.now.updater = self.updater.state()
        weights = self.state.weights()
        full = self.state.full(weights)  # with the weights that are trained on
        if self.two_kinds:
            with self.at_rest():
                weights["model"] = {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.processes.main:
            self.checkpoints.save_latest(weights, full, self.now.step, healthy=not self.watch.suspicious)
            if self.after_save is not None:
                self.after_save(self.state)
        self._saved_at = self.now.step

    def resume_if_started(self) -> None:
        """Once, where the run folder holds a checkpoint: weights, optimiser, position and random states as they were
        saved. Raises TrainingError, naming each difference, if the run's identity changed."""
        if self.resumed or not self.checkpoints.begun():
            return
        content = self.checkpoints.read_latest()
        self.state.check(content, self.run.name, self.checkpoints.folder / "latest.pth")
        self._restore(content)
        self.resumed = True
        log.info("run %s resumed at step %d of %d", self.run.name, self.now.step, self.horizon)
        same = content["settings"].get("learning_rate") == self.state.settings.get("learning_rate")
        if self.now.rate_scale != 1.0 and same and self.settings.on_spike == "rollback":
            log.info("the rate is x %g after %d rollbacks", self.now.rate_scale, self.now.rollbacks)
        else:
            self.now.rate_scale, self.now.rollbacks = 1.0, 0

    def _restore(self, content: Mapping[str, Any]) -> None:
        if self.state.restore(content):
            self._saved_at = self.now.step
        self.updater.parts = self.now.parts if self.settings.on_out_of_memory == "split" else 1
        self.updater.restore(self.now.updater)
        self.interval.steps = list(self.now.interval)
        self.watch.restore(self.now.usual_loss)

    def _close_checkpoints(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End the writing. What goes wrong there does not hide what ended the training."""
        try:
            self.checkpoints.close()
        except CheckpointError as unwritten:
            if error is None:
                raise
            log.error("%s", unwritten)

    def _roll_back(self, spike: Spike) -> None:
        """Back to a checkpoint from before the spike, at a lower rate. The loss of an update judges the weights before
        it, so the newest that was judged is older than the first update out of range by two; a spike that begins at the
        same place again was in the weights already, and goes back further. Raises TrainingError where that has been
        tried too often or there is none."""
        now = self.now
        begun, rollbacks, scale = now.step - spike.updates + 1, now.rollbacks + 1, now.rate_scale
        if rollbacks > MOST_ROLLBACKS:
            raise TrainingError(
                f"step {now.step}: {spike}, for the {rollbacks}th time, each at a lower rate (now x {scale:g}); the "
                f"run stops, its checkpoints stand. Look at the data around step {begun}"
            )
        if self.processes.main:
            self.checkpoints.wait()
        self.processes.wait()
        again = rollbacks > 1 and begun <= now.spiked_at + spike.updates
        try:
            try:
                content = self.checkpoints.read_last_good(now.rolled_back_to if again else begun - 1)
            except CheckpointError:
                if not again:
                    raise
                content = self.checkpoints.read_last_good(begun - 1)
        except CheckpointError as error:
            raise TrainingError(
                f"step {now.step}: {spike}, and there is no good checkpoint to go back to ({error}); start again "
                "with a lower learning_rate, or save more often (save_every)"
            ) from error
        was = now.step
        self._restore(content)
        self.now.rollbacks, self.now.rate_scale = rollbacks, scale * self.settings.rollback_rate
        self.now.spiked_at, self.now.rolled_back_to = begun, self.now.step
        log.warning(
            "step %d: %s: rolled back to step %d; the rate is now x %g", was, spike, self.now.step, self.now.rate_scale
        )
        if self._metrics is not None:
            self._metrics.take_back(self.now.step)
        self.save()  # else a run that is killed now would go on with the weights of the spike
        self._validated_at = -1
