"""Adapters on the language model and on the flow, one after the other: what runs, in the order it runs.

A run folder has a folder for each model, llm/ and flow/, which is a run folder of its own: metrics, checkpoints of what
is trained, and at the end adapter/, epoch_N_whole.pt (merged, under upstream's names) and result.json.
"""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import nn

from tts_kernel.data.loader import LoaderSettings
from tts_kernel.lora import Adapted, digest
from tts_kernel.models.cosyvoice2.config import FlowConfig, LLMConfig
from tts_kernel.models.weights import read_checkpoint
from tts_kernel.optim.optimizers import build as build_optimizer
from tts_kernel.optim.optimizers import parameter_groups
from tts_kernel.optim.schedules import learning_rate, warmup_lr
from tts_kernel.recipes.cosyvoice2 import demo
from tts_kernel.recipes.cosyvoice2.corpus import Corpus, fingerprint, layout, open_corpus
from tts_kernel.recipes.cosyvoice2.memory import Needed, estimate, largest_batches
from tts_kernel.recipes.cosyvoice2.model import Sizes, build_model, check_models, lora_of, read_sizes
from tts_kernel.recipes.cosyvoice2.objective import TokenObjective, VelocityObjective
from tts_kernel.recipes.cosyvoice2.settings import ModelName, Settings
from tts_kernel.runs import Run, RunError, project_path
from tts_kernel.training.checkpoints import save as save_checkpoint
from tts_kernel.training.launch.hold import held
from tts_kernel.training.outcome import LoopSettings, Outcome, Status
from tts_kernel.training.processes import Processes, check_processes
from tts_kernel.training.speed import SpeedSettings, autocast, choose_device, switched
from tts_kernel.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A run that may start: its input is checked, nothing has been trained."""

    asked: Settings  # as the user gave them
    settings: Settings  # with the demo's files where none were named
    corpus: Corpus
    sizes: Sizes
    needed: dict[ModelName, Needed]

    def horizon(self, name: ModelName) -> int:
        """Optimiser steps that one model's training is planned for."""
        plan = self.corpus.train.share(0, self.settings.processes)
        return plan.updates_per_epoch(self.settings.grad_accumulation) * self.settings.epochs(name)

    def __str__(self) -> str:
        settings, lines = self.settings, [str(self.corpus)]
        for name in settings.models:
            how = f"LoRA of rank {settings.rank}" if settings.method == "lora" else "trained whole"
            lines.append(
                f"{name}: {how}, {self.horizon(name):,} steps: {settings.epochs(name)} epochs of "
                f"{len(self.corpus.train.first):,} batches, {settings.grad_accumulation} to a step"
            )
            lines.append(f"{name}: memory by estimate {self.needed[name]}")
            checkpointed = name == "llm" and settings.gradient_checkpointing
            if self.needed[name].total > settings.memory_limit and not checkpointed:
                lines.append(
                    f"WARNING: {name} will not fit into {settings.memory_limit:g} GB; lower max_frames_in_batch"
                    + (", or set gradient_checkpointing" if name == "llm" else "")
                )
            if self.horizon(name) <= settings.warmup_steps and settings.schedule != "constant":
                lines.append(f"WARNING: {name} ends inside its warm-up of {settings.warmup_steps:,} steps; lower it")
        return "\n".join(lines)


def prepare(settings: Settings, run: Run) -> Prepared:
    """Open and check everything the run reads, of both models before the first is trained. Raises PipelineError,
    ConfigError, CheckpointError, and ValueError for a device or precision that is not there."""
    check_processes(settings.processes, settings.device)
    autocast(choose_device(settings.device), settings.precision)
    asked, settings = settings, filled_in(settings)
    sizes = read_sizes(project_path(settings.base_model))
    corpus = open_corpus(settings)
    check_models(settings, sizes)
    return Prepared(asked, settings, corpus, sizes, memory_of(settings, corpus, sizes))


def memory_of(settings: Settings, corpus: Corpus, sizes: Sizes) -> dict[ModelName, Needed]:
    """By estimate, with models of these sizes."""
    needed = {}
    for name in settings.models:
        lora = lora_of(settings, name) if settings.method == "lora" else None
        batches = largest_batches(corpus.train, name)
        each = [estimate(name, sizes, lora, *batch, optimizer=settings.optimizer) for batch in batches]
        needed[name] = max(each, key=lambda found: found.total)
    return needed


def published_memory(prepared: Prepared) -> dict[ModelName, Needed]:
    """What the same batches would take with models of the published sizes."""
    return memory_of(prepared.settings, prepared.corpus, Sizes(LLMConfig(), FlowConfig()))


def filled_in(settings: Settings) -> Settings:
    """With the demo's voice and base models where no data were named; both are made on first use."""
    return demo.fill_in(settings, lambda base, run: train(prepare(base, run), run))


def train(prepared: Prepared, run: Run, processes: Processes | None = None) -> Outcome:
    """Train what the settings name, or go on where `run` stands, together with the other processes of this run if there
    are any. The outcome's losses are by model: `llm/val/loss`. Raises RunError for a run in use, CheckpointError and
    LoraError for a base or adapter that has changed since, TrainingError for a resume that contradicts its checkpoint.
    """
    settings = prepared.settings
    processes = processes or Processes.from_environment(settings.device)
    outcomes: dict[ModelName, Outcome] = {}
    with held(run) if processes.main else nullcontext(), switched(_speed_settings(settings), processes.device):
        for name in settings.models:
            log.info("%s of run %s", name, run.name)
            outcomes[name] = _train_one(prepared, name, run, processes)
    return _together(outcomes)


def _train_one(prepared: Prepared, name: ModelName, run: Run, processes: Processes) -> Outcome:
    part = run.part(name)
    trainer = make_trainer(prepared, name, part, processes)
    trainer.resume_if_started()
    if processes.main:
        for record in (run, part):  # only now: a resume that was refused leaves the run's own as they are
            record.save_settings(prepared.asked)
    outcome = trainer.fit()
    if processes.main and not _concluded(prepared.settings, part, outcome):
        _conclude(prepared.settings, name, trainer.model, part, outcome)
    processes.wait()
    return outcome


def make_trainer(prepared: Prepared, name: ModelName, part: Run, processes: Processes) -> Trainer:
    """The trainer of one model; nothing is trained or resumed yet."""
    settings, corpus = prepared.settings, prepared.corpus
    model = build_model(settings, name, prepared.sizes).to(processes.device)
    base = model.base.digest if isinstance(model, Adapted) else digest(model.state_dict())
    if processes.rank:
        torch.manual_seed(settings.seed + processes.rank)  # of dropout; the weights are everyone's
    groups = parameter_groups([model], settings.learning_rate, settings.weight_decay)
    horizon = prepared.horizon(name)
    warmup = settings.warmup_steps
    rate = None if settings.schedule == "warmuplr" else learning_rate(settings.schedule, warmup=warmup, total=horizon)
    train, held_out = fingerprint(corpus.train), fingerprint(corpus.held)
    lora = asdict(lora_of(settings, name)) if settings.method == "lora" else {}
    return Trainer(
        run=part,
        objective=TokenObjective(model, settings.seed) if name == "llm" else VelocityObjective(model, settings.seed),
        optimizer=build_optimizer(settings.optimizer, groups, fused=settings.fused_optimizer),
        rate=rate or (lambda step: warmup_lr(step, warmup=warmup)),
        data=corpus.data(corpus.train, settings.keep_decoded, *prepared.sizes.tokens),
        plan=corpus.train,
        validation=(corpus.data(corpus.held, settings.keep_decoded, *prepared.sizes.tokens), corpus.held),
        settings=_loop_settings(settings, name),
        processes=processes,
        identity={
            "model": name,
            "base": base,
            "lora": {shape: value for shape, value in lora.items() if shape != "dropout"},
            "adapter": settings.adapter,
            "data": train,
            "cv_data": held_out,
            "tokenizer": corpus.encoder.fingerprint,
            "pipeline": layout(corpus.train.pipeline),
            "seed": settings.seed,
        },
        digest=lambda count: train,  # an epoch is batched anew from all of it
        recorded=asdict(prepared.asked),
    )


def _speed_settings(settings: Settings) -> SpeedSettings:
    """The fields of the same names."""
    shared = {item.name for item in fields(SpeedSettings)} & {item.name for item in fields(Settings)}
    return SpeedSettings(**{name: getattr(settings, name) for name in shared})


def _loop_settings(settings: Settings, name: ModelName) -> LoopSettings:
    """The fields of the same names."""
    shared = {item.name for item in fields(LoopSettings)} - {"loader", "epochs"}
    loader = LoaderSettings(**{item.name: getattr(settings, item.name) for item in fields(LoaderSettings)})
    values = {item: getattr(settings, item) for item in shared}
    return LoopSettings(loader=loader, epochs=settings.epochs(name), **values)


def _concluded(settings: Settings, part: Run, outcome: Outcome) -> bool:
    """Whether result.json and what it names are of this step and as they are asked for now."""
    if not (part.folder / "result.json").exists():
        return False
    result = part.result()
    there = not result["whole"] or (part.folder / result["whole"]).is_file()
    return there and (result["step"], result.get("export")) == (outcome.step, settings.export)


def _conclude(settings: Settings, name: ModelName, model: nn.Module, part: Run, outcome: Outcome) -> None:
    """What is asked for of the weights, and result.json."""
    whole = None if settings.export == "none" else _export(settings, name, model, part)
    part.write_result(
        model=name,
        status=outcome.status,
        step=outcome.step,
        horizon=outcome.horizon,
        export=settings.export,
        whole=whole.name if whole else "",
        adapter="adapter" if whole and settings.method == "lora" else "",
        validation_before=outcome.val_before,
        validation=outcome.val_after,
        best=best_trained(part),
    )


def best_trained(part: Run) -> float:
    """The lowest CV loss of what was trained; what it began with does not count. Raises RunError where none is
    finite."""
    values = [value for step, value in zip(*part.series("val/loss"), strict=True) if step and math.isfinite(value)]
    if not values:
        raise RunError(f"{part.folder}: no CV loss after the start is finite; look at its metrics.jsonl")
    return min(values)


def _export(settings: Settings, name: ModelName, model: nn.Module, part: Run) -> Path:
    """adapter/ and epoch_N_whole.pt of the weights that are asked for; N counts epochs from 0, as upstream's does."""
    chosen = part.checkpoints / "best_model.pth"
    if settings.export == "last" or not chosen.is_file():
        chosen = part.checkpoints / "latest.pth"
    content = read_checkpoint(chosen)
    model.load_state_dict(content["model"])
    whole = part.folder / f"epoch_{min(content['epoch'], settings.epochs(name) - 1)}_whole.pt"
    if isinstance(model, Adapted):
        model.export(whole)
        model.save(part.folder / "adapter")
    else:
        save_checkpoint(whole, model.state_dict())
    log.info("%s: step %d of %s", whole, content["step"], chosen.name)
    return whole


def _together(outcomes: dict[ModelName, Outcome]) -> Outcome:
    """One outcome: the first status that is not "finished", steps and seconds in all, losses by model."""
    each = list(outcomes.values())
    unfinished: list[Status] = [outcome.status for outcome in each if outcome.status != "finished"]
    return Outcome(
        status=unfinished[0] if unfinished else "finished",
        step=sum(outcome.step for outcome in each),
        horizon=sum(outcome.horizon for outcome in each),
        val_before={f"{name}/{key}": value for name, one in outcomes.items() for key, value in one.val_before.items()},
        val_after={f"{name}/{key}": value for name, one in outcomes.items() for key, value in one.val_after.items()},
        seconds=sum(outcome.seconds for outcome in each),
    )


def explain(outcome: Outcome, prepared: Prepared, run: Run) -> str:
    """How each model ended, and where its result lies."""
    lines = [f"{outcome.status}: {outcome.step:,} of {outcome.horizon:,} steps"]
    for name in prepared.settings.models:
        part = run.part(name)
        result = part.result()
        before, after = outcome.val_before[f"{name}/val/loss"], outcome.val_after[f"{name}/val/loss"]
        best, whole = result["best"], result["whole"]
        lines.append(f"{name}: CV loss {before:.4g} before, {best:.4g} at best, {after:.4g} at the end")
        if not best < before:
            lines.append(f"WARNING: {name}: the CV loss never fell, so the base is better than what was trained")
        if result["status"] == "stopped early":
            lines.append(
                f"{name}: done at step {result['step']:,} of {result['horizon']:,}: the CV loss had not fallen for "
                f"{prepared.settings.patience} validations"
            )
        if whole:
            lines.append(f"{name}: {part.folder / whole}")
    if any(run.part(name).result()["status"] == "step limit reached" for name in prepared.settings.models):
        lines.append(f"run_name {run.name} with a higher max_steps goes on")
    return "\n".join(lines)
