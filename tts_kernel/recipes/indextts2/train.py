"""One stage from its base checkpoint to the end of its data: what runs, in the order it runs."""

from __future__ import annotations

import logging
import zlib
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from tts_kernel.data.batch import Emotion, Limits, PairDataset, Speaker, labels
from tts_kernel.data.loader import LoaderSettings
from tts_kernel.data.manifest import Manifest, digest
from tts_kernel.data.ordering import MEL_MANIFEST
from tts_kernel.data.sampler import BatchPlan, padding_waste
from tts_kernel.data.speakers import write_mapping
from tts_kernel.data.string_keys import string_keys
from tts_kernel.models.indextts2.config import GPTConfig
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.optim.optimizers import build as build_optimizer
from tts_kernel.optim.optimizers import parameter_groups
from tts_kernel.optim.schedules import learning_rate, reversal_ramp
from tts_kernel.recipes.indextts2 import demo
from tts_kernel.recipes.indextts2.corpus import Corpus, check_files, open_corpus
from tts_kernel.recipes.indextts2.judge import When, keep_emotion_vectors
from tts_kernel.recipes.indextts2.model import base_config, build_model, stage_config
from tts_kernel.recipes.indextts2.objective import PairObjective
from tts_kernel.recipes.indextts2.settings import STAGES, Settings
from tts_kernel.runs import Run, write_yaml
from tts_kernel.training.checkpoints.averaging import average
from tts_kernel.training.launch.hold import held
from tts_kernel.training.outcome import LoopSettings, Outcome
from tts_kernel.training.processes import Processes, check_processes
from tts_kernel.training.speed import SpeedSettings, autocast, choose_device, compile_parts, switched
from tts_kernel.training.trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A run that may start: its input is checked, nothing has been trained."""

    asked: Settings  # as the user gave them
    settings: Settings  # with the demo's folder and base checkpoint where none were named
    corpus: Corpus
    config: GPTConfig  # sizes of the model to train
    plan: BatchPlan
    horizon: int  # optimiser steps the schedule is planned for

    def __str__(self) -> str:
        corpus, settings, config = self.corpus, self.settings, self.config
        waiting = len(corpus.train_rows) - corpus.available
        lines = [
            f"stage {settings.stage}, {config.layers} layers, {config.model_dim} wide, "
            f"emotion from {settings.emotion_input}",
            f"{corpus.available:,} pairs to train on, {waiting:,} more wait for a mel, "
            f"{len(corpus.validation_rows):,} to validate on",
            *(f"{count:,} rows left out: {reason}" for reason, count in corpus.dropped.items()),
        ]
        if corpus.coverage is not None:
            lines.append(f"speakers: {corpus.coverage}")
        lines.append(
            f"{self.horizon:,} steps: {settings.epochs} x {len(corpus.train_rows):,} pairs in batches of "
            f"{settings.batch_size} x {settings.grad_accumulation}, {padding_waste(self.plan):.1%} of them padding"
        )
        updates = -(-corpus.available // (settings.batch_size * settings.grad_accumulation))
        if waiting and STAGES[settings.stage].adversary:
            reached = reversal_ramp(updates, total=self.horizon, peak=settings.grl_lambda, ramp=settings.grl_schedule)
            lines.append(f"the mels last for {updates:,} steps, by when the reversal's strength is {reached:.2f}")
        if settings.conditions == "stored" and settings.stage == 1:
            lines.append("stored conditions: the conditioners are not trained; set conditions to computed to train all")
        if self.horizon <= settings.warmup_steps:
            lines.append(
                f"WARNING: the run ends inside its warm-up of {settings.warmup_steps:,} steps; lower warmup_steps, or "
                "raise epochs"
            )
        return "\n".join(lines)


def prepare(settings: Settings, run: Run) -> Prepared:
    """Open and check everything the run reads but the checkpoint's tensors. Raises ManifestError, SpeakerMapError,
    ConfigError, and ValueError for a device or precision that is not there."""
    check_processes(settings.processes, settings.device)
    autocast(choose_device(settings.device), settings.precision)
    asked, settings = settings, filled_in(settings)
    sizes = base_config(settings)
    corpus = open_corpus(settings, sizes, run)
    plan = BatchPlan(
        corpus.train_rows,
        sequence_lengths(corpus.train)[corpus.train_rows],
        corpus.available,
        settings.batch_size,
        window=BatchPlan.window if settings.length_buckets else settings.batch_size,
        seed=settings.seed,
        clips=string_keys(corpus.train.strings("target_id"))[corpus.train_rows],
    )
    horizon = plan.updates_per_epoch(settings.grad_accumulation) * settings.epochs
    config = stage_config(settings, sizes, len(corpus.mapping))
    return Prepared(asked, settings, corpus, config, plan, horizon)


def filled_in(settings: Settings) -> Settings:
    """With the demo's folder and base checkpoint where no data was named; both are made on first use."""
    return demo.fill_in(settings, lambda base, run: train(prepare(base, run), run))


def trained_further(settings: Settings, *, ours: bool) -> dict[str, Any]:
    """What changes beside base_checkpoint, by name, in the settings of a run that is to be trained on from one of its
    own checkpoints; `ours` where config.yaml lies beside it, and its vocabulary is the run's."""
    changes = {"data": filled_in(settings).data}
    return changes | {"model_config": "", "base_tokenizer": settings.tokenizer} if ours else changes


def train(prepared: Prepared, run: Run, processes: Processes | None = None) -> Outcome:
    """Train the stage, or go on where `run` stands, together with the other processes of this run if there are any.
    Leaves checkpoints and metrics, in stage 2 the held-out emotion vectors before and after, and where asked for the
    average of the best checkpoints. Raises RunError for a run in use, CheckpointError for a base that does not fit,
    TrainingError for a resume that contradicts its checkpoint: all before the first step."""
    settings = prepared.settings
    processes = processes or Processes.from_environment(settings.device, settings.fsdp)
    with held(run) if processes.main else nullcontext(), switched(speed_settings(settings), processes.device):
        trainer = make_trainer(prepared, run, processes)
        trainer.resume_if_started()
        if processes.main:
            _record(prepared, run)  # only now: a resume that was refused leaves the run's own record as it is
        adversary = STAGES[settings.stage].adversary
        if adversary and trainer.now.step == 0:
            _keep_emotion_vectors(trainer, prepared, run, "before")
        outcome = trainer.fit()
        if adversary:
            _keep_emotion_vectors(trainer, prepared, run, "after")
        if settings.average_checkpoints:
            outcome = _averaged(trainer, settings.average_checkpoints, outcome)
    return outcome


def make_trainer(prepared: Prepared, run: Run, processes: Processes) -> Trainer:
    """The trainer of this run, its model built and its features looked for; nothing is trained or resumed yet."""
    settings, corpus, config = prepared.settings, prepared.corpus, prepared.config
    model = build_model(settings, config).to(processes.device)
    speed = speed_settings(settings)
    model.use_gradient_checkpointing(speed.gradient_checkpointing)
    if processes.rank:
        torch.manual_seed(settings.seed + processes.rank)  # of dropout; the weights are everyone's
    compile_parts(model.heavy_parts(), speed.compile, processes.device)
    objective = PairObjective(model, settings, prepared.horizon)
    processes.shard(objective, model.gpt.h)
    data = dataset(settings, config, corpus.train, corpus.mapping)
    held_out = dataset(settings, config, corpus.validation, corpus.mapping)
    check_files(data, corpus.train_rows[: corpus.available])
    check_files(held_out, corpus.validation_rows)
    held_plan = BatchPlan(
        corpus.validation_rows,
        sequence_lengths(corpus.validation)[corpus.validation_rows],
        len(corpus.validation_rows),
        settings.batch_size,
        shuffle=False,
    )
    return Trainer(
        run=run,
        objective=objective,
        optimizer=_optimizer(settings, model),
        rate=learning_rate(
            settings.schedule, warmup=settings.warmup_steps, total=prepared.horizon, floor=settings.min_lr_ratio
        ),
        data=data,
        plan=prepared.plan,
        validation=(held_out, held_plan),
        settings=_loop_settings(settings),
        processes=processes,
        identity={
            "stage": settings.stage,
            "manifests": {
                "train": settings.train_manifest,
                "rows": len(corpus.train),
                "used": len(corpus.train_rows),  # a position counts these
            },
            "speakers": corpus.mapping,
            "model": config.to_mapping(),
            "emotion_input": settings.emotion_input,
            "conditions": settings.conditions,
            "duration_mode": settings.duration_mode,
            "loss_weights": {"text": settings.text_weight, "mel": settings.mel_weight},  # val/loss is by them
            "validation": _fingerprint(corpus.validation, corpus.validation_rows),
            "length_buckets": settings.length_buckets,
            "seed": settings.seed,
        },
        digest=lambda count: digest(corpus.train, corpus.train_rows[:count]),
        recorded=asdict(prepared.asked),
    )


def _fingerprint(manifest: Manifest, rows: np.ndarray) -> int:
    """Which pairs these are, in whatever order."""
    return zlib.crc32("\n".join(sorted(manifest.take(rows).strings("id").to_pylist())).encode())


def speed_settings(settings: Settings) -> SpeedSettings:
    return SpeedSettings(**{item.name: getattr(settings, item.name) for item in fields(SpeedSettings)})


def _loop_settings(settings: Settings) -> LoopSettings:
    """The fields of the same names."""
    shared = {item.name for item in fields(LoopSettings)} - {"loader"}
    loader = LoaderSettings(**{item.name: getattr(settings, item.name) for item in fields(LoaderSettings)})
    return LoopSettings(loader=loader, **{name: getattr(settings, name) for name in shared})


def _record(prepared: Prepared, run: Run) -> None:
    """What the run was made from, beside its checkpoints."""
    asked, mapping = prepared.asked, prepared.corpus.mapping
    run.save_settings(asked)
    if mapping:
        write_mapping(mapping, run.folder / "speaker_mapping.json")
    write_yaml(run.checkpoints / "config.yaml", {"gpt": prepared.config.to_mapping(), "settings": asdict(asked)})


def _keep_emotion_vectors(trainer: Trainer, prepared: Prepared, run: Run, when: When) -> None:
    """By the main process; a sharded model is put together for it."""
    settings, config, corpus = prepared.settings, prepared.config, prepared.corpus
    model = trainer.model
    assert isinstance(model, UnifiedVoice)
    if settings.fsdp:
        weights = trainer.state.weights()["model"]
        model = UnifiedVoice(config)
        if trainer.processes.main:
            model.load_state_dict(weights)
    if trainer.processes.main:
        with trainer.at_rest():
            data = dataset(settings, config, corpus.validation, corpus.mapping)
            keep_emotion_vectors(model, data, corpus.validation_rows, run, when)
    trainer.processes.wait()


def _averaged(trainer: Trainer, count: int, outcome: Outcome) -> Outcome:
    """averaged.pth of the `count` best checkpoints, and its validation."""
    target = trainer.checkpoints.folder / "averaged.pth"
    if trainer.processes.main:
        best = trainer.checkpoints.top(count)
        if len(best) < count:
            log.warning("average_checkpoints is %d, but only %d were kept: those are averaged", count, len(best))
        average(best, target)
    trainer.processes.wait()
    values = trainer.validate_file(target)
    log.info("%s  val/loss %.4g (last %.4g)", target.name, values["val/loss"], outcome.val_after["val/loss"])
    return replace(outcome, val_averaged=values)


def explain(outcome: Outcome, prepared: Prepared, run: Run) -> str:
    """How the run ended and what to do next."""
    text = f"{outcome.status}: step {outcome.step:,} of {outcome.horizon:,}"
    if outcome.val_averaged:
        text += (
            f"\naverage of the best {prepared.settings.average_checkpoints}: val/loss "
            f"{outcome.val_averaged['val/loss']:.4g}, of the last {outcome.val_after['val/loss']:.4g}"
        )
    if outcome.status == "mels exhausted":
        waiting = len(prepared.corpus.train_rows) - prepared.corpus.available
        text += (
            f". All {prepared.corpus.available:,} pairs with a mel have been seen, {waiting:,} wait for theirs. Next:\n"
            f"  1. python -m tts_kernel.data.extract {prepared.settings.data} --workers 32 --limit 500000\n"
            f"     extracts more mels and brings {MEL_MANIFEST} up to date\n"
            f"  2. run_name {run.name} goes on at the first pair not yet seen"
        )
    elif outcome.status == "stopped early":
        text += f". val/loss had not fallen for {prepared.settings.patience} validations; best_model.pth has the lowest"
    elif outcome.status == "step limit reached":
        text += f". run_name {run.name} with a higher max_steps goes on"
    return text


def dataset(settings: Settings, config: GPTConfig, manifest: Manifest, mapping: dict[str, int]) -> PairDataset:
    """The manifest's pairs as batches, by the emotion and speaker path of this stage."""
    stored = settings.conditions == "stored"
    emotion: Emotion = "stored" if stored and not STAGES[settings.stage].adversary else settings.emotion_input
    speaker: Speaker = "stored" if stored else "semantic"
    limits = Limits(
        num_text_tokens=config.number_text_tokens,
        num_codes=config.num_codes,
        max_text_tokens=config.max_text_tokens,
        max_codes=config.max_mel_tokens,
        latents=(config.condition_num_latent, config.model_dim),
        semantic_bins=config.semantic_input_size,
        emotion_bins=config.emotion_input_size,
    )
    return PairDataset(manifest, limits, labels(mapping, manifest), emotion, speaker, settings.allow_outside_paths)


def sequence_lengths(manifest: Manifest) -> np.ndarray:
    """(rows,) text tokens + codes: what a row fills of a packed sequence."""
    return manifest.numbers("target_text_len") + manifest.numbers("target_code_len")


def _optimizer(settings: Settings, model: UnifiedVoice) -> torch.optim.Optimizer:
    adversary = [] if model.speaker_classifier is None else [model.speaker_classifier]
    others = [part for part in model.children() if part is not model.speaker_classifier]
    rate, decay = settings.learning_rate, settings.weight_decay
    groups = parameter_groups(others, rate, decay) + parameter_groups(adversary, settings.classifier_rate * rate, decay)
    return build_optimizer(settings.optimizer, groups, settings.d_coef, settings.fused_optimizer)
