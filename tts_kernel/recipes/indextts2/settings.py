"""What a run of IndexTTS-2 depends on, and what each of the three stages trains.

Source of the stages: IndexTTS2 (arXiv 2506.21619). Defaults: the practitioners' guide's, for one RTX 4090.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from tts_kernel.data.loader import StartMethod
from tts_kernel.data.split import HoldOutBy
from tts_kernel.models.indextts2.gpt import DurationMode
from tts_kernel.optim.optimizers import OptimizerName
from tts_kernel.optim.schedules import Ramp, Shape
from tts_kernel.settings import STRICT
from tts_kernel.training.guards import OnOutOfMemory, OnSpike
from tts_kernel.training.launch import Launch
from tts_kernel.training.speed import Attention, CompileMode, DeviceName, Precision

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


@checked_dataclass(frozen=True, config=STRICT)
class Settings:
    """Everything a run depends on, saved whole with it. Defaults are the guide's for one RTX 4090."""

    run_name: str = ""  # empty for indextts2-<UTC time>; an existing run is resumed
    stage: Literal[1, 2, 3] = 2
    data: str = ""  # corpus folder (layout: data/demo/corpus.py); empty for the embedded demo corpus
    train_manifest: str = "gpt_pairs_train_mel.jsonl"
    validation_manifest: str = "gpt_pairs_val.jsonl"
    validation_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # of clips, held out of train_manifest instead
    validation_by: HoldOutBy = "clip"  # what is held out whole: clip, recording or speaker
    allow_outside_paths: bool = False  # let a manifest name files outside its folder
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
    batch_size: Count = 16  # pairs per forward pass, of all processes together
    grad_accumulation: Count = 4  # forward passes per optimiser step
    epochs: Count = 1
    max_steps: Annotated[int, Field(ge=0)] = 0  # stop early without changing the schedule; 0 for all
    length_buckets: bool = True  # batches of rows of like lengths; off: shuffled, with more padding
    optimizer: OptimizerName = "adamw"
    fused_optimizer: bool = True  # AdamW in one kernel
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
    standardise_adversary: bool = True  # the classifier sees standardised vectors, so that shrinking hides nothing
    classifier_rate: Positive = 1.0  # the adversary's learning rate, in multiples of learning_rate
    grl_lambda: Annotated[float, Field(ge=0)] = 1.0  # strength that the reversal grows to
    grl_schedule: Ramp = "exponential"
    log_every: Count = 100  # optimiser steps
    validate_every: Count = 500
    patience: Annotated[int, Field(ge=0)] = 0  # validations without a lower val/loss, then the run ends; 0: never
    save_every: Count = 500
    keep_checkpoints: Annotated[int, Field(ge=0)] = 3  # step_*.pth files
    keep_best: Annotated[int, Field(ge=0)] = 3  # weights of the lowest validation losses
    average_checkpoints: Annotated[int, Field(ge=0)] = 0  # of them, averaged into averaged.pth at the end
    background_saves: bool = True  # write checkpoints while training goes on
    max_bad_steps: Count = 3  # updates in a row that are not finite, after which the run stops
    on_spike: OnSpike = "warn"  # rollback: to the last good checkpoint, at a lower rate
    rollback_rate: Annotated[float, Field(gt=0, lt=1)] = 0.5  # factor on the learning rate at each rollback
    on_out_of_memory: OnOutOfMemory = "stop"  # split: the same update in smaller forward passes
    aim: bool = True  # track in Aim too, where it is installed
    num_workers: Annotated[int, Field(ge=0)] = 4  # processes that read batches
    prefetch_factor: Count = 2  # batches that each of them reads ahead
    persistent_workers: bool = True  # keep them from one epoch to the next
    pin_memory: bool = True  # where there is a CUDA device
    worker_start: StartMethod = "auto"
    device: DeviceName = "auto"
    precision: Precision = "auto"
    attention: Attention = "fused"
    tf32: bool = True  # matrix products of float32 on tensor cores
    cudnn_benchmark: bool = True  # try convolution algorithms
    compile: CompileMode = "off"
    gradient_checkpointing: bool = False  # compute activations again instead of keeping them: less memory, more time
    processes: Count = 1  # that share each batch, one GPU each
    fsdp: bool = False  # shard weights, gradients and optimiser state over the processes
    launch: Launch = "inline"  # detached: a process of its own, which outlives kernel and browser
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
        if self.stage == 1 and self.data and not self.base_checkpoint and not self.model_config:
            problems.append(
                "model_config: found empty without a base_checkpoint; name a config.yaml to make a model from"
            )
        if self.optimizer == "schedulefree" and self.schedule != "constant":
            problems.append(
                f"schedule: found {self.schedule!r} with optimizer 'schedulefree', which averages instead of decaying; "
                "expected 'constant'"
            )
        if self.processes > self.batch_size:
            problems.append(f"processes: found {self.processes}, expected at most batch_size, {self.batch_size}")
        if self.fsdp and self.processes == 1:
            problems.append("fsdp: found True with one process; raise processes, or leave it out")
        if self.fsdp and self.optimizer != "adamw":
            problems.append(
                f"fsdp: found True with optimizer {self.optimizer!r}, which needs whole weights; use 'adamw'"
            )
        if self.on_spike == "rollback" and self.keep_checkpoints == 0:
            problems.append("on_spike: found 'rollback' with keep_checkpoints 0; expected at least 1 to go back to")
        if self.on_out_of_memory == "split" and self.processes > 1:
            problems.append(
                "on_out_of_memory: found 'split' with several processes, which cannot agree on it; use 'stop'"
            )
        if self.average_checkpoints > self.keep_best:
            problems.append(
                f"average_checkpoints: found {self.average_checkpoints}, expected at most keep_best, {self.keep_best}"
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


SPEAKER_PARTS = ("conditioning_encoder", "perceiver_encoder")
EMOTION_PARTS = ("emo_conditioning_encoder", "emo_perceiver_encoder", "emovec_layer", "emo_layer")
STAGES = {
    1: Stage(frozen=()),
    2: Stage(frozen=SPEAKER_PARTS, adversary=True),
    3: Stage(frozen=SPEAKER_PARTS + EMOTION_PARTS),
}
