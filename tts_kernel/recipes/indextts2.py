"""IndexTTS-2 in three stages: basic TTS, speaker/emotion disentanglement by gradient reversal, fine-tuning.

Sources: IndexTTS2 (arXiv 2506.21619), Ganin et al. 2016 (JMLR 17(59)), `SYSTEMS.md` section 1 for the defaults.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from tts_kernel.data.batch import Batch, Emotion, Limits, PairDataset, Speaker, labels
from tts_kernel.data.manifest import Manifest, ManifestError, missing_files, read_manifest
from tts_kernel.data.ordering import available_prefix
from tts_kernel.data.sampler import BatchPlan, Position
from tts_kernel.data.speakers import (
    UNKNOWN,
    check_coverage,
    count_clips,
    coverage,
    map_speakers,
    read_mapping,
    write_mapping,
)
from tts_kernel.data.split import hold_out
from tts_kernel.models.indextts2.config import GPTConfig, read_config
from tts_kernel.models.indextts2.gpt import DurationMode, UnifiedVoice
from tts_kernel.models.indextts2.weights import load_weights
from tts_kernel.models.weights import LoadReport
from tts_kernel.optim.optimizers import OptimizerName, build, parameter_groups
from tts_kernel.optim.schedules import Ramp, Shape, learning_rate, reversal_ramp
from tts_kernel.runs import Run, project_path, write_yaml
from tts_kernel.settings import STRICT
from tts_kernel.text.tokenizer import TextTokenizer
from tts_kernel.training.speed import DeviceName, Precision, choose_device
from tts_kernel.training.trainer import LoopSettings, Outcome, Terms, Trainer

log = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


@checked_dataclass(frozen=True, config=STRICT)
class Settings:
    """Everything a run depends on, saved whole with it. Defaults are the guide's for one RTX 4090."""

    run_name: str = ""  # empty for indextts2-<UTC time>; an existing run is resumed
    stage: Literal[1, 2, 3] = 2
    data: str = ""  # corpus folder (layout: data/demo.py); empty for the embedded demo corpus
    train_manifest: str = "gpt_pairs_train_mel.jsonl"
    validation_manifest: str = "gpt_pairs_val.jsonl"
    validation_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # of clips, held out of train_manifest instead
    speaker_mapping: str = ""  # {name: id}; empty to make one from the manifest
    speaker_top_k: Count = 500
    speaker_min_clips: Count = 50
    min_speaker_coverage: Share = 0.5  # rows with a mapped speaker, below which stage 2 refuses to start
    drop_too_long: bool = False  # drop (and count) pairs longer than the model's tables, instead of refusing
    base_checkpoint: str = ""  # IndexTTS-2's gpt.pth or one of ours; empty for the demo's own base
    model_config: str = ""  # config.yaml with a gpt section; empty for the one beside base_checkpoint
    tokenizer: str = ""  # SentencePiece model of the data's text ids, if it differs from the checkpoint's
    base_tokenizer: str = ""  # the checkpoint's, to extend the text embedding by token name
    emotion_input: Literal["mel", "semantic"] = "mel"  # what the emotion encoder reads
    conditions: Literal["stored", "computed"] = "stored"  # speaker latents; in stages 1 and 3 emotion vectors too
    duration_mode: DurationMode = "binary"
    batch_size: Count = 16  # pairs per forward pass
    grad_accumulation: Count = 4  # forward passes per optimiser step
    epochs: Count = 1
    max_steps: Annotated[int, Field(ge=0)] = 0  # stop early without changing the schedule; 0 for all
    optimizer: OptimizerName = "adamw"
    learning_rate: Positive = 2.0e-4  # peak
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    d_coef: Positive = 1.0  # Prodigy's
    schedule: Shape = "wsd"
    warmup_steps: Annotated[int, Field(ge=0)] = 1000
    min_lr_ratio: Share = 0.0  # of the peak, where the schedule ends
    grad_clip: Positive = 0.5
    text_weight: Annotated[float, Field(ge=0)] = 0.2
    mel_weight: Annotated[float, Field(ge=0)] = 0.8  # of the semantic-code loss
    speaker_loss_weight: Annotated[float, Field(ge=0)] = 0.1
    classifier_rate: Positive = 1.0  # the adversary's learning rate, in multiples of learning_rate
    grl_lambda: Annotated[float, Field(ge=0)] = 1.0  # strength that the reversal grows to
    grl_schedule: Ramp = "exponential"
    log_every: Count = 100  # optimiser steps
    validate_every: Count = 500
    save_every: Count = 500
    keep_checkpoints: Annotated[int, Field(ge=0)] = 3  # step_*.pth files
    num_workers: Annotated[int, Field(ge=0)] = 4  # of the data loader
    device: DeviceName = "auto"
    precision: Precision = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    targets: Literal["require", "report"] = "report"  # whether a missed target of the judgement is an error

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        problems = []
        if self.optimizer == "prodigy" and self.learning_rate < 0.1:
            problems.append(
                f"learning_rate: found {self.learning_rate} with optimizer 'prodigy', which finds its own rate; "
                "expected 1.0 (scale it by d_coef)"
            )
        if self.optimizer == "prodigy" and self.classifier_rate != 1.0:
            problems.append(
                f"classifier_rate: found {self.classifier_rate}; Prodigy has one rate for all, expected 1.0"
            )
        if self.base_checkpoint and not self.data:
            problems.append("data: found empty with a base_checkpoint; name the corpus that fits this model")
        if self.stage != 1 and self.data and not self.base_checkpoint:
            problems.append(
                f"base_checkpoint: found empty for stage {self.stage} on your own data; name a gpt.pth (IndexTTS-2's, "
                "or a run's checkpoints/best_model.pth)"
            )
        if bool(self.tokenizer) != bool(self.base_tokenizer):
            problems.append("tokenizer and base_tokenizer: give both to extend the vocabulary, or neither")
        if self.text_weight + self.mel_weight == 0:
            problems.append("text_weight and mel_weight: found 0 and 0, expected at least one above 0")
        if problems:
            raise ValueError("\n  ".join(problems))
        return self


@dataclass(frozen=True)
class Stage:
    """Which parts of the model stay as they are, and whether the adversary takes part."""

    frozen: tuple[str, ...]
    adversary: bool = False
    needs_mel: bool = False


_SPEAKER = ("conditioning_encoder", "perceiver_encoder")
_EMOTION = ("emo_conditioning_encoder", "emo_perceiver_encoder", "emovec_layer", "emo_layer")
STAGES = {
    1: Stage(frozen=()),
    2: Stage(frozen=_SPEAKER, adversary=True, needs_mel=True),
    3: Stage(frozen=_SPEAKER + _EMOTION),
}


# Data


@dataclass(frozen=True)
class Corpus:
    """The rows to train and validate on, and what was left out of the manifest."""

    train: Manifest
    validation: Manifest
    train_rows: np.ndarray  # of `train`, in its order
    available: int  # of `train_rows`, from the head
    validation_rows: np.ndarray
    mapping: dict[str, int]  # speaker -> class; empty without an adversary
    dropped: dict[str, int]  # reason -> rows of `train`


def open_corpus(settings: Settings, config: GPTConfig, run: Run) -> Corpus:
    """Read and check both manifests before a step is spent on them. Raises ManifestError, SpeakerMapError."""
    root = project_path(settings.data)
    train = read_manifest(root / settings.train_manifest)
    stage = STAGES[settings.stage]
    by_mel = stage.needs_mel and settings.emotion_input == "mel"
    available = available_prefix(train) if by_mel else len(train)
    if available == 0:
        raise ManifestError(
            [f"{train.path}: no row has a mel; run python -m tts_kernel.data.extract {root} and start again"]
        )
    usable = np.ones(len(train), dtype=bool)
    dropped: dict[str, int] = {}
    too_long = overlong_rows(train, config)
    if too_long.any() and not settings.drop_too_long:
        raise ManifestError(_explain_overlong(train, too_long, config))
    dropped["longer than the model's tables"] = int(too_long.sum())
    usable &= ~too_long
    if settings.validation_share:
        held = hold_out(train.strings("target_id"), settings.validation_share)
        dropped["held out for validation"] = int((held & usable).sum())
        validation, validation_rows = train, np.flatnonzero(held & usable & (np.arange(len(train)) < available))
        usable &= ~held
    else:
        validation = read_manifest(root / settings.validation_manifest)
        fits = ~overlong_rows(validation, config)
        fits &= validation.has("target_mel_path") if by_mel else True
        validation_rows = np.flatnonzero(fits)
        dropped["validation rows too long or without a mel"] = len(validation) - len(validation_rows)
    rows = np.flatnonzero(usable)
    corpus = Corpus(
        train,
        validation,
        rows,
        int((rows < available).sum()),
        validation_rows,
        {},
        {k: v for k, v in dropped.items() if v},
    )
    if not corpus.available or not len(validation_rows):
        raise ManifestError(
            [f"{train.path}: {corpus.available} rows to train on and {len(validation_rows)} to validate on; {dropped}"]
        )
    if stage.adversary:
        corpus = replace(corpus, mapping=_speaker_mapping(settings, train, run))
    for reason, count in corpus.dropped.items():
        log.info("%d rows left out: %s", count, reason)
    return corpus


def overlong_rows(manifest: Manifest, config: GPTConfig) -> np.ndarray:
    """(rows,) bool: text or codes longer than the model's position tables."""
    return (manifest.numbers("target_text_len") > config.max_text_tokens) | (
        manifest.numbers("target_code_len") > config.max_mel_tokens
    )


def _explain_overlong(manifest: Manifest, too_long: np.ndarray, config: GPTConfig) -> list[str]:
    text, codes = manifest.numbers("target_text_len"), manifest.numbers("target_code_len")
    return [
        f"{manifest.path}:{row + 1}: {text[row]} text tokens and {codes[row]} codes; the model takes at most "
        f"{config.max_text_tokens} and {config.max_mel_tokens}. Remove the row or set drop_too_long"
        for row in np.flatnonzero(too_long)
    ]


def _speaker_mapping(settings: Settings, train: Manifest, run: Run) -> dict[str, int]:
    speakers = train.strings("speaker").to_pylist()
    if settings.speaker_mapping:
        mapping = read_mapping(project_path(settings.speaker_mapping))
    else:
        clips = count_clips(train.strings("target_id").to_pylist(), speakers)
        mapping = map_speakers(clips, settings.speaker_top_k, settings.speaker_min_clips)
    found = coverage(mapping, speakers)
    check_coverage(found, settings.min_speaker_coverage)
    log.info("speaker mapping: %s", found)
    write_mapping(mapping, run.folder / "speaker_mapping.json")
    return mapping


# Model


def base_config(settings: Settings) -> GPTConfig:
    """Sizes of the checkpoint that the run starts from."""
    if settings.model_config:
        return read_config(project_path(settings.model_config))
    return read_config(project_path(settings.base_checkpoint).parent / "config.yaml")


def stage_config(settings: Settings, config: GPTConfig, num_speakers: int) -> GPTConfig:
    """Sizes of the model to train: the adversary's classes, and what the emotion encoder reads where it is used."""
    if STAGES[settings.stage].adversary or settings.conditions == "computed":
        config = config.for_stage_2(num_speakers, settings.emotion_input)
    return replace(config, num_speakers=num_speakers)


def build_model(settings: Settings, config: GPTConfig) -> tuple[UnifiedVoice, LoadReport | None]:
    """The model with the base checkpoint's weights and its stage's parts frozen. Raises CheckpointError."""
    torch.manual_seed(settings.seed)
    model = UnifiedVoice(config)
    report = None
    if settings.base_checkpoint:
        tokens = {}
        if settings.tokenizer:
            tokens = {
                "file_tokens": TextTokenizer(project_path(settings.base_tokenizer)).tokens(),
                "model_tokens": TextTokenizer(project_path(settings.tokenizer)).tokens(),
            }
        report = load_weights(model, project_path(settings.base_checkpoint), **tokens)
        log.info("base checkpoint: %s", report)
    for name in STAGES[settings.stage].frozen:
        model.get_submodule(name).requires_grad_(False)
    return model, report


# Loss


class PairObjective:
    """0.2 text CE + 0.8 code CE, and in stage 2 the speaker CE behind the gradient reversal."""

    def __init__(self, model: UnifiedVoice, settings: Settings, horizon: int) -> None:
        self.model, self.settings, self.horizon = model, settings, horizon
        self.weights = {"text": settings.text_weight, "mel": settings.mel_weight}
        if model.speaker_classifier is not None:
            self.weights["speaker"] = settings.speaker_loss_weight

    def counts(self, batch: Batch) -> dict[str, int]:
        rows, codes = len(batch.ids), int(batch.code_lengths.sum())
        counts = {"text": int(batch.text_lengths.sum()) + rows, "mel": codes + rows, "mel_top1": codes + rows}
        if "speaker" in self.weights:
            counts["speaker"] = counts["speaker_acc"] = int((batch.speaker_ids != UNKNOWN).sum())
        return counts

    def before_step(self, step: int) -> dict[str, float]:
        if "speaker" not in self.weights:
            return {}
        strength = reversal_ramp(
            step, total=self.horizon, peak=self.settings.grl_lambda, ramp=self.settings.grl_schedule
        )
        self.model.reversal.strength = strength
        return {"train/grl_lambda": strength}

    def __call__(self, batch: Batch) -> Terms:
        emotion = emotion_vector(self.model, batch)
        conditions = self.model.conditions(
            speaker_latents(self.model, batch), emotion, batch.code_lengths, self.settings.duration_mode
        )
        said = self.model(conditions, batch.text_tokens, batch.text_lengths, batch.codes, batch.code_lengths)
        terms = Terms(
            {
                "text": cross_entropy(said.text_logits.float(), said.text_targets, reduction="sum"),
                "mel": cross_entropy(said.code_logits.float(), said.code_targets, reduction="sum"),
            },
            {"mel_top1": (said.code_logits.argmax(-1) == said.code_targets).sum()},
        )
        if "speaker" in self.weights:
            logits = self.model.speaker_logits(emotion).float()
            terms.sums["speaker"] = cross_entropy(logits, batch.speaker_ids, ignore_index=UNKNOWN, reduction="sum")
            terms.hits["speaker_acc"] = (logits.argmax(-1) == batch.speaker_ids).sum()
        return terms

    def summary(self, split: Literal["train", "val"], means: Mapping[str, float]) -> dict[str, float]:
        gpt = self.weights["text"] * means["text"] + self.weights["mel"] * means["mel"]
        metrics = {
            "text_loss": means["text"],
            "mel_loss": means["mel"],
            "gpt_loss" if split == "train" else "loss": gpt,
            "mel_top1": means["mel_top1"],
        }
        if "speaker" in means:
            metrics |= {"speaker_loss": means["speaker"], "speaker_acc": means["speaker_acc"]}
        return {f"{split}/{name}": value for name, value in metrics.items()}


def emotion_vector(model: UnifiedVoice, batch: Batch) -> Tensor:
    """(batch, model_dim): stored, or computed here so that the reversed gradient reaches the encoder."""
    if batch.emotion_vector is not None:
        return batch.emotion_vector
    assert batch.emotion_features is not None and batch.emotion_lengths is not None
    return model.emotion_vector(batch.emotion_features, batch.emotion_lengths)


def speaker_latents(model: UnifiedVoice, batch: Batch) -> Tensor:
    """(batch, condition_num_latent, model_dim)."""
    if batch.latents is not None:
        return batch.latents
    assert batch.speaker_features is not None and batch.speaker_lengths is not None
    return model.speaker_latents(batch.speaker_features, batch.speaker_lengths)


# Run


def train(settings: Settings, run: Run) -> Outcome:
    """One stage from its base checkpoint to the end of its data; resumes where `run` stands. Leaves checkpoints,
    metrics, and in stage 2 the held-out emotion vectors before and after. Everything that can be wrong with the
    input is raised before the first step."""
    device = choose_device(settings.device)
    corpus = open_corpus(settings, base_config(settings), run)
    config = stage_config(settings, base_config(settings), len(corpus.mapping))
    model, _ = build_model(settings, config)
    model.to(device)
    write_yaml(run.checkpoints / "config.yaml", {"gpt": config.to_mapping(), "settings": asdict(settings)})

    emotion: Emotion = "stored" if settings.conditions == "stored" else settings.emotion_input
    if STAGES[settings.stage].adversary:
        emotion = settings.emotion_input
    speaker: Speaker = "stored" if settings.conditions == "stored" else "semantic"
    limits = Limits(
        num_text_tokens=config.number_text_tokens,
        num_codes=config.num_codes,
        max_text_tokens=config.max_text_tokens,
        max_codes=config.max_mel_tokens,
        latents=(config.condition_num_latent, config.model_dim),
        semantic_bins=config.semantic_input_size,
        emotion_bins=config.emotion_input_size,
    )
    data = PairDataset(corpus.train, limits, labels(corpus.mapping, corpus.train), emotion, speaker)
    held = PairDataset(corpus.validation, limits, labels(corpus.mapping, corpus.validation), emotion, speaker)
    check_files(data, corpus.train_rows[: corpus.available])
    check_files(held, corpus.validation_rows)

    lengths = corpus.train.numbers("target_text_len") + corpus.train.numbers("target_code_len")
    plan = BatchPlan(
        corpus.train_rows, lengths[corpus.train_rows], corpus.available, settings.batch_size, seed=settings.seed
    )
    held_lengths = corpus.validation.numbers("target_text_len") + corpus.validation.numbers("target_code_len")
    held_plan = BatchPlan(
        corpus.validation_rows,
        held_lengths[corpus.validation_rows],
        len(corpus.validation_rows),
        settings.batch_size,
        shuffle=False,
    )
    loop = LoopSettings(
        grad_accumulation=settings.grad_accumulation,
        grad_clip=settings.grad_clip,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        log_every=settings.log_every,
        validate_every=settings.validate_every,
        save_every=settings.save_every,
        keep_checkpoints=settings.keep_checkpoints,
        num_workers=settings.num_workers,
        precision=settings.precision,
    )
    horizon = -(-plan.batches_per_epoch() // settings.grad_accumulation) * settings.epochs
    if horizon <= settings.warmup_steps:
        log.warning(
            "the run has %d steps and ends inside its warm-up of %d; lower warmup_steps", horizon, settings.warmup_steps
        )
    adversary = [] if model.speaker_classifier is None else [model.speaker_classifier]
    others = [part for part in model.children() if part is not model.speaker_classifier]
    rate = settings.learning_rate
    groups = parameter_groups(others, rate, settings.weight_decay)
    groups += parameter_groups(adversary, settings.classifier_rate * rate, settings.weight_decay)
    trainer = Trainer(
        run=run,
        model=model,
        objective=PairObjective(model, settings, horizon),
        optimizer=build(settings.optimizer, groups, settings.d_coef),
        rate=learning_rate(settings.schedule, warmup=settings.warmup_steps, total=horizon, floor=settings.min_lr_ratio),
        data=data,
        plan=plan,
        validation=(held, held_plan),
        settings=loop,
        device=device,
        identity={
            "stage": settings.stage,
            "manifests": {"train": settings.train_manifest, "rows": len(corpus.train)},
            "speakers": corpus.mapping,
            "model": config.to_mapping(),
            "seed": settings.seed,
        },
    )
    return trainer.fit()


def check_files(data: PairDataset, rows: np.ndarray, at_most: int = 20_000) -> None:
    """Look for the files of `rows`, of an even sample of them where there are very many. Raises ManifestError."""
    if len(rows) > at_most:
        rows = rows[np.linspace(0, len(rows) - 1, at_most).astype(int)]
    absent = [name for name in data.columns() if name not in data.manifest]
    if absent:
        raise ManifestError([f"{data.manifest.path}: no row has the field {name!r}" for name in absent])
    problems = missing_files(data.manifest, data.columns(), rows)
    if problems:
        raise ManifestError(problems)
