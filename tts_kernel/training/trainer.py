"""The training loop: update, log, validate, save, in the order it happens. The recipe hands it the loss."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, NoReturn, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from tts_kernel.data.batch import Batch
from tts_kernel.data.features import FeatureError
from tts_kernel.data.loader import BatchLoader, LoaderSettings
from tts_kernel.data.sampler import BatchPlan, Position
from tts_kernel.models.weights import CheckpointError
from tts_kernel.optim.optimizers import effective_rate
from tts_kernel.runs import Run
from tts_kernel.training.checkpoints import FORMAT, CheckpointFolder, random_state, set_random_state
from tts_kernel.training.metrics import MetricLog
from tts_kernel.training.progress import Clock, Interval, describe
from tts_kernel.training.signals import stop_signals
from tts_kernel.training.speed import Precision, autocast

log = logging.getLogger(__name__)

# What a resume takes from the settings of now, not from the optimizer's saved state.
_MAY_CHANGE = ("initial_lr", "weight_decay", "d_coef")

Status = Literal["finished", "mels exhausted", "step limit reached"]


class TrainingError(RuntimeError):
    """Training cannot go on: a value that is not finite, or a resume that contradicts its checkpoint."""


class RunInterrupted(KeyboardInterrupt):
    """The user or the system asked the run to stop; it has been saved."""


@dataclass
class Terms:
    """What a loss makes of one batch: sums, so that the mean over several batches is exact."""

    sums: dict[str, Tensor]  # by loss term, over its targets
    hits: dict[str, Tensor] = field(default_factory=dict)  # right answers, by metric name


class Objective(Protocol):
    """The recipe's loss. `weights` by term; a term's targets are counted before the forward pass, so that each
    micro-batch can be divided by the total of its update."""

    weights: Mapping[str, float]

    def counts(self, batch: Batch) -> dict[str, int]:
        """Targets of each term, and of each metric in `Terms.hits`."""

    def __call__(self, batch: Batch) -> Terms:
        """Forward pass."""

    def before_step(self, step: int) -> dict[str, float]:
        """Called before every update, with its number counted from 0; returns metrics to log, with full names."""

    def summary(self, split: Literal["train", "val"], means: Mapping[str, float]) -> dict[str, float]:
        """Mean of each term and metric -> metrics under their full names, `train/...` or `val/...`."""


@dataclass(frozen=True)
class LoopSettings:
    """What the loop itself needs to know."""

    grad_accumulation: int = 1  # micro-batches per update
    grad_clip: float = 0.5  # largest gradient norm
    epochs: int = 1
    max_steps: int = 0  # stop here without changing the schedule's horizon; 0 for the whole horizon
    log_every: int = 100  # updates
    validate_every: int = 500
    save_every: int = 500
    keep_checkpoints: int = 3  # step_*.pth
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    precision: Precision = "auto"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status
    step: int
    horizon: int  # updates the schedule was planned for
    val_before: dict[str, float]
    val_after: dict[str, float]
    seconds: float  # of this session


class Trainer:
    """One run of one objective. `fit` starts or, where the run folder holds a checkpoint, resumes exactly."""

    def __init__(
        self,
        *,
        run: Run,
        model: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        data: Dataset[Batch],
        plan: BatchPlan,
        validation: tuple[Dataset[Batch], BatchPlan],
        settings: LoopSettings,
        device: torch.device,
        identity: Mapping[str, Any],
        digest: Callable[[int], int],
    ) -> None:
        """`rate` is the factor on the peak rate by update. `identity` holds what a resume must not change (the
        horizon is added), by name, as plain values; it is stored in every checkpoint. `digest(n)` is a checksum of
        the first n rows of the plan and their order: a resume compares it over the rows begun with."""
        self.run, self.model, self.objective, self.optimizer = run, model, objective, optimizer
        self.plan, self.settings, self.device = plan, settings, device
        loading = replace(settings.loader, pin_memory=settings.loader.pin_memory and device.type == "cuda")
        self.loader = BatchLoader(data, plan, loading)
        self.held_loader = BatchLoader(*validation, loading)
        self.horizon = plan.updates_per_epoch(settings.grad_accumulation) * settings.epochs
        self.identity = {**identity, "horizon": self.horizon}
        self.digest = lru_cache(maxsize=1)(digest)  # over millions of rows; asked at every save, new once a window
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        self.autocast = autocast(device, settings.precision)
        self.trainable = [p for group in optimizer.param_groups for p in group["params"]]
        self.checkpoints = CheckpointFolder(run.checkpoints, settings.keep_checkpoints)
        self.step, self.position = 0, Position()
        self.val_before: dict[str, float] = {}
        self.val_last: dict[str, float] = {}
        self.train_last: dict[str, float] = {}
        self.interval = Interval()
        self.resumed = False
        self._saved_at = self._validated_at = -1

    # One update

    def update(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        """One optimiser step. Losses are sums over targets, divided once by their total, so the gradient does not
        depend on how the batch was split (but for an adversary that standardises each micro-batch). A gradient that is
        not finite raises before it reaches a weight."""
        extra = self.objective.before_step(self.step)
        totals: dict[str, int] = defaultdict(int)
        for batch in micro_batches:
            for name, count in self.objective.counts(batch).items():
                totals[name] += count
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        try:
            for batch in micro_batches:
                terms = self._backward(batch.to(self.device), totals)
                for name, value in {**terms.sums, **terms.hits}.items():
                    sums[name] += value.detach()
        except torch.OutOfMemoryError as error:
            half, double = max(self.plan.batch_size // 2, 1), 2 * self.settings.grad_accumulation
            raise TrainingError(
                f"step {self.step + 1}: out of GPU memory at batch_size {self.plan.batch_size}; resume run "
                f"{self.run.name} with batch_size {half} and grad_accumulation {double}, which is the same update"
            ) from error
        means = {name: (value / totals[name]).item() for name, value in sums.items() if totals[name]}
        try:
            norm = clip_grad_norm_(self.trainable, self.settings.grad_clip, error_if_nonfinite=True).item()
        except RuntimeError as error:
            self._refuse_non_finite(micro_batches, means, error)
        rate = effective_rate(self.optimizer)  # the one this step uses
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        own = {"train/lr": rate, "train/grad_norm": norm, "train/clipped": float(norm > self.settings.grad_clip)}
        return {**self.objective.summary("train", means), **extra, **own}

    def _backward(self, batch: Batch, totals: Mapping[str, int]) -> Terms:
        with self.autocast():
            terms = self.objective(batch)
            parts = [w * terms.sums[name] / max(totals[name], 1) for name, w in self.objective.weights.items()]
        torch.stack(parts).sum().backward()
        return terms

    def _refuse_non_finite(self, micro_batches: Sequence[Batch], means: Mapping[str, float], error: Exception) -> None:
        ids = [name for batch in micro_batches for name in batch.ids]
        raise TrainingError(
            f"step {self.step + 1}: the gradient is not finite (losses {means}); the step was not taken and the "
            f"weights are as they were. Pairs: {', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}. "
            f"Look at these clips, or resume run {self.run.name} with a lower learning_rate or grad_clip"
        ) from error

    # Validation

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The whole validation split, by the path that training takes."""
        self.model.eval()
        sums: dict[str, float] = defaultdict(float)
        totals: dict[str, int] = defaultdict(int)
        for batch in self.held_loader.batches(Position()):
            for name, count in self.objective.counts(batch).items():
                totals[name] += count
            with self.autocast():
                terms = self.objective(batch.to(self.device))
            for name, value in {**terms.sums, **terms.hits}.items():
                sums[name] += value.item()
        self.model.train()
        means = {name: value / totals[name] for name, value in sums.items() if totals[name]}
        return self.objective.summary("val", means)

    # The loop

    def fit(self) -> Outcome:
        """Train from where the run folder stands to the end of the data. Raises RunInterrupted after SIGINT or SIGTERM
        and FeatureError for a bad file, both after saving; TrainingError when a step must not be taken (the last
        checkpoint stands)."""
        started = time.monotonic()
        self.resume_if_started()
        begun = (self.run.folder / "metrics.jsonl").exists()  # also by a session that died before its first checkpoint
        with (
            MetricLog(self.run.folder, (self.step if self.resumed else -1) if begun else None) as metrics,
            stop_signals() as stop,
            tqdm(total=self.last_step, initial=self.step, desc=self.run.name, unit="step", mininterval=1.0) as bar,
        ):
            self.model.train()
            if not self.resumed:
                self.val_before = self._validate_and_log(metrics)
            try:
                status = self._train(metrics, stop, bar)
            except FeatureError:
                self.save()
                raise
            except TrainingError:
                raise
            except RuntimeError:
                if not stop.is_set():
                    raise
                self._save_and_stop()  # the signal went to the loader's processes as well
            if self._validated_at != self.step:
                self._validate_and_log(metrics)
            if self._saved_at != self.step:
                self.save()
        return Outcome(status, self.step, self.horizon, self.val_before, self.val_last, time.monotonic() - started)

    @property
    def last_step(self) -> int:
        """Where this session will end: the horizon, or before it the last available row or the step limit."""
        plan = self.plan
        last = self.horizon
        if plan.available < len(plan.rows):
            last = min(last, -(-plan.available // (plan.batch_size * self.settings.grad_accumulation)))
        return min(last, self.settings.max_steps or last)

    def _train(self, metrics: MetricLog, stop: threading.Event, bar: tqdm) -> Status:
        clock = Clock(self.step)
        limit = self.settings.max_steps
        for micro_batches in self._updates():
            if limit and self.step >= limit:
                return "step limit reached"
            self.interval.add(self.update(micro_batches))
            assert micro_batches[-1].position is not None
            self.position = micro_batches[-1].position
            bar.update()
            if self.step % self.settings.log_every == 0 or self.step == 1:
                self.train_last = self.interval.means()
                speed = clock.steps_per_second(self.step)
                metrics.write(self.step, {**self.train_last, "train/steps_per_second": speed})
                log.info(describe(self.step, self.horizon, self.last_step, self.train_last, speed))
            if self.step % self.settings.validate_every == 0:
                self._validate_and_log(metrics)
                clock = Clock(self.step)  # the speed is that of training
            if self.step % self.settings.save_every == 0:
                self.save()
                clock = Clock(self.step)
            if stop.is_set():
                self._save_and_stop()
        return "finished" if self.position.epoch >= self.settings.epochs else "mels exhausted"

    def _save_and_stop(self) -> NoReturn:
        self.save()
        raise RunInterrupted(
            f"run {self.run.name} stopped at step {self.step} of {self.horizon} and is saved in "
            f"{self.checkpoints.latest_full}; start it again with run_name {self.run.name} to go on"
        )

    def _validate_and_log(self, metrics: MetricLog) -> dict[str, float]:
        self.val_last = self.validate()
        self._validated_at = self.step
        metrics.write(self.step, self.val_last)
        # What the run started from is no result of it, however low its loss.
        better = self.checkpoints.save_best(self._weights(), self.val_last) if self.step else []
        values = "  ".join(f"{name.removeprefix('val/')} {value:.4g}" for name, value in self.val_last.items())
        log.info("step %d  validation  %s%s", self.step, values, f"  -> {', '.join(better)}" if better else "")
        return self.val_last

    def _updates(self) -> Iterator[list[Batch]]:
        """Micro-batches by update, to the end of the last epoch or of what is available. The last update of an epoch
        may have fewer."""
        while self.position.epoch < self.settings.epochs:
            epoch = self.position.epoch
            group: list[Batch] = []
            for batch in self.loader.batches(self.position):
                group.append(batch)
                if len(group) == self.settings.grad_accumulation:
                    yield group
                    group = []
            if group:
                yield group
            if self.plan.exhausted(self.position):
                return
            if self.position.epoch == epoch:
                self.position = Position(epoch + 1)

    # Checkpoints

    def _weights(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "step": self.step, "epoch": self.position.epoch, "format": FORMAT}

    def save(self) -> None:
        """latest_full.pth, latest.pth and the step file."""
        weights = self._weights()
        full = {
            **weights,
            "optimizer": self.optimizer.state_dict(),
            "optimizer_type": type(self.optimizer).__name__.lower(),
            "scheduler": {"last_epoch": self.schedule.last_epoch},
            "scaler": None,  # bfloat16 needs none; the key is the guide's
            "manifests": self.identity.get("manifests"),
            "identity": self.identity,
            "position": self.position.to_mapping(),
            "batch_size": self.plan.batch_size,
            "rows_begun": self._rows_begun(self.position),
            "rows_digest": self.digest(self._rows_begun(self.position)),
            "random": random_state(),
            "val_before": self.val_before,
            **{name.replace("/", "_"): value for name, value in {**self.train_last, **self.val_last}.items()},
            "val_last": self.val_last,
            "train_last": self.train_last,
            "interval": self.interval.steps,
        }
        self.checkpoints.save_latest(weights, full, self.step)
        self._saved_at = self.step

    def _rows_begun(self, position: Position) -> int:
        """How many rows, from the head, a resume must find as they were."""
        return position.end if position.epoch == 0 else self.plan.available

    def resume_if_started(self) -> None:
        """`resume`, once, where the run folder holds a checkpoint."""
        if not self.resumed and self.checkpoints.latest_full.is_file():
            self.resume()

    def resume(self) -> None:
        """Weights, optimiser, schedule, sampler position and random states as they were saved. Raises TrainingError,
        naming each difference, if the run's identity changed."""
        content = self.checkpoints.read_latest()
        before = content["identity"]
        changed = [
            f"{name}: {before.get(name)!r} when it was saved, {value!r} now"
            for name, value in self.identity.items()
            if before.get(name) != value
        ]
        begun = content["rows_begun"]
        if not changed and content["rows_digest"] != self.digest(begun):
            changed = [f"manifest: its first {begun:,} rows, which were trained on, are others or in another order"]
        if changed:
            raise TrainingError(
                f"run {self.run.name} cannot go on at step {content['step']} with other facts than it began with:\n  "
                + "\n  ".join(changed)
                + "\nUse the old values, or start a new run with base_checkpoint "
                + str(self.checkpoints.folder / "latest.pth")
            )
        missing, unexpected = self.model.load_state_dict(content["model"], strict=False)
        if missing or unexpected:
            raise CheckpointError(f"{self.checkpoints.latest_full}: missing {missing[:4]}, unexpected {unexpected[:4]}")
        kind = type(self.optimizer).__name__.lower()
        if content["optimizer_type"] == kind:
            asked = [
                {name: group[name] for name in _MAY_CHANGE if name in group} for group in self.optimizer.param_groups
            ]
            self.optimizer.load_state_dict(content["optimizer"])
            for group, values in zip(self.optimizer.param_groups, asked, strict=True):
                group.update(values)
            self._saved_at = content["step"]
        else:
            log.warning(
                "the checkpoint's optimizer is %s, this run's is %s: weights kept, optimizer state dropped",
                content["optimizer_type"],
                kind,
            )
        self.step = content["step"]
        self.position = Position(**content["position"])
        if content["batch_size"] != self.plan.batch_size and self.position.batch:
            log.warning(
                "batch_size was %d and is %d: the current window of %d rows is begun again",
                content["batch_size"],
                self.plan.batch_size,
                min(self.plan.window, self.position.end - self.position.start - self.position.row),
            )
            self.position = replace(self.position, batch=0)
        self.schedule.last_epoch = self.step
        for group, peak, factor in zip(
            self.optimizer.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True
        ):
            group["lr"] = peak * factor(self.step)
        self.val_before, self.val_last = content["val_before"], content["val_last"]
        self.train_last = content["train_last"]
        self.interval.steps = content["interval"]
        set_random_state(content["random"])
        self.resumed = True
        log.info("run %s resumed at step %d of %d", self.run.name, self.step, self.horizon)
