"""One stage from its base checkpoint to the end of its data: what runs, in the order it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from tts_kernel.data.batch import Emotion, Limits, PairDataset, Speaker, labels
from tts_kernel.data.loader import LoaderSettings
from tts_kernel.data.manifest import Manifest, digest
from tts_kernel.data.ordering import MEL_MANIFEST
from tts_kernel.data.sampler import BatchPlan, padding_waste
from tts_kernel.data.speakers import write_mapping
from tts_kernel.models.indextts2.config import GPTConfig
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.optim.optimizers import build as build_optimizer
from tts_kernel.optim.optimizers import parameter_groups
from tts_kernel.optim.schedules import learning_rate, reversal_ramp
from tts_kernel.recipes.indextts2 import demo
from tts_kernel.recipes.indextts2.corpus import Corpus, check_files, open_corpus
from tts_kernel.recipes.indextts2.judge import keep_emotion_vectors
from tts_kernel.recipes.indextts2.model import base_config, build_model, stage_config
from tts_kernel.recipes.indextts2.objective import PairObjective
from tts_kernel.recipes.indextts2.settings import STAGES, Settings
from tts_kernel.runs import Run, write_yaml
from tts_kernel.training.speed import autocast, choose_device
from tts_kernel.training.trainer import LoopSettings, Outcome, Trainer


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
    autocast(choose_device(settings.device), settings.precision)
    asked, settings = settings, demo.fill_in(settings, lambda base, run: train(prepare(base, run), run))
    sizes = base_config(settings)
    corpus = open_corpus(settings, sizes, run)
    plan = BatchPlan(
        corpus.train_rows,
        sequence_lengths(corpus.train)[corpus.train_rows],
        corpus.available,
        settings.batch_size,
        seed=settings.seed,
    )
    horizon = plan.updates_per_epoch(settings.grad_accumulation) * settings.epochs
    config = stage_config(settings, sizes, len(corpus.mapping))
    return Prepared(asked, settings, corpus, config, plan, horizon)


def train(prepared: Prepared, run: Run) -> Outcome:
    """Train the stage, or go on where `run` stands. Leaves checkpoints and metrics, and in stage 2 the held-out
    emotion vectors before and after. Raises CheckpointError for a base that does not fit, TrainingError for a resume
    that contradicts its checkpoint: both before the first step."""
    settings, corpus, config = prepared.settings, prepared.corpus, prepared.config
    device = choose_device(settings.device)
    model = build_model(settings, config).to(device)
    data = dataset(settings, config, corpus.train, corpus.mapping)
    held = dataset(settings, config, corpus.validation, corpus.mapping)
    check_files(data, corpus.train_rows[: corpus.available])
    check_files(held, corpus.validation_rows)
    held_plan = BatchPlan(
        corpus.validation_rows,
        sequence_lengths(corpus.validation)[corpus.validation_rows],
        len(corpus.validation_rows),
        settings.batch_size,
        shuffle=False,
    )
    trainer = Trainer(
        run=run,
        model=model,
        objective=PairObjective(model, settings, prepared.horizon),
        optimizer=_optimizer(settings, model),
        rate=learning_rate(
            settings.schedule, warmup=settings.warmup_steps, total=prepared.horizon, floor=settings.min_lr_ratio
        ),
        data=data,
        plan=prepared.plan,
        validation=(held, held_plan),
        settings=LoopSettings(
            grad_accumulation=settings.grad_accumulation,
            grad_clip=settings.grad_clip,
            epochs=settings.epochs,
            max_steps=settings.max_steps,
            log_every=settings.log_every,
            validate_every=settings.validate_every,
            save_every=settings.save_every,
            keep_checkpoints=settings.keep_checkpoints,
            loader=LoaderSettings(
                num_workers=settings.num_workers,
                prefetch_factor=settings.prefetch_factor,
                persistent_workers=settings.persistent_workers,
                pin_memory=settings.pin_memory,
                worker_start=settings.worker_start,
            ),
            precision=settings.precision,
        ),
        device=device,
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
            "seed": settings.seed,
        },
        digest=lambda count: digest(corpus.train, corpus.train_rows[:count]),
    )
    trainer.resume_if_started()
    # Only now: a resume that was refused leaves the run's own record as it is.
    run.save_settings(prepared.asked)
    if corpus.mapping:
        write_mapping(corpus.mapping, run.folder / "speaker_mapping.json")
    write_yaml(run.checkpoints / "config.yaml", {"gpt": config.to_mapping(), "settings": asdict(prepared.asked)})
    if STAGES[settings.stage].adversary and trainer.step == 0:
        keep_emotion_vectors(model, held, corpus.validation_rows, run, "before")
    outcome = trainer.fit()
    if STAGES[settings.stage].adversary:
        keep_emotion_vectors(model, held, corpus.validation_rows, run, "after")
    return outcome


def explain(outcome: Outcome, prepared: Prepared, run: Run) -> str:
    """How the run ended and what to do next."""
    text = f"{outcome.status}: step {outcome.step:,} of {outcome.horizon:,}"
    if outcome.status == "mels exhausted":
        waiting = len(prepared.corpus.train_rows) - prepared.corpus.available
        text += (
            f". All {prepared.corpus.available:,} pairs with a mel have been seen, {waiting:,} wait for theirs. Next:\n"
            f"  1. python -m tts_kernel.data.extract {prepared.settings.data} --workers 32 --limit 500000\n"
            f"     extracts more mels and brings {MEL_MANIFEST} up to date\n"
            f"  2. run_name {run.name} goes on at the first pair not yet seen"
        )
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
    return build_optimizer(settings.optimizer, groups, settings.d_coef)
