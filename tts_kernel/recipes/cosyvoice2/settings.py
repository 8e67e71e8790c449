"""What a run of CosyVoice2 depends on: which of its models are trained, and whether by an adapter or whole.

Defaults: the practitioners' guide's, for one voice of some 266 utterances on a 16 GB T4.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from tts_kernel.data.loader import StartMethod
from tts_kernel.data.pipeline.settings import CountSettings
from tts_kernel.optim.optimizers import OptimizerName
from tts_kernel.settings import STRICT
from tts_kernel.training.guards import OnOutOfMemory, OnSpike
from tts_kernel.training.launch import Launch
from tts_kernel.training.speed import Attention, DeviceName, Precision

ModelName = Literal["llm", "flow"]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Length = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@checked_dataclass(frozen=True, config=STRICT)
class Settings:
    """Everything a run depends on, saved whole with it."""

    run_name: str = ""  # empty for cosyvoice2-<UTC time>; an existing run is resumed
    model: Literal["llm", "flow", "both"] = "both"  # one after the other, each in a folder of its own
    method: Literal["lora", "full"] = "lora"  # an adapter beside the weights, or the weights themselves
    data: str = ""  # data.list or its folder; empty for the voice of the embedded demo
    cv_data: str = ""  # the same of held-out utterances
    tokenizer: str = ""  # SentencePiece model, or folder of a Qwen2 tokenizer such as CosyVoice-BlankEN
    base_model: str = ""  # folder with llm.pt and flow.pt; empty for the demo's
    rank: Size = 16
    alpha: Size = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    rslora: bool = False
    dora: bool = False
    train_heads: bool = False  # train the output layers whole beside the adapter
    adapter: str = ""  # run folder of an earlier one to go on from, as its llm/adapter and flow/adapter
    pipeline: str = ""  # YAML with train_data_pipeline, or upstream's; empty for the settings below
    shuffle_size: Count = 500  # 0 for none
    sort_size: Count = 500  # 0 for none
    max_length: Length = 40960.0  # frames of 10 ms
    min_length: Length = 0.0
    token_max_length: Count = 400  # text tokens
    token_min_length: Count = 1
    zero_is_no_limit: bool = False  # read token_max_length 0 as no limit
    batch_type: Literal["dynamic", "static"] = "dynamic"
    batch_size: Size = 16  # utterances, static
    max_frames_in_batch: Size = 400  # mel frames, 50 a second, dynamic
    min_kept: Share = 0.1  # share of utterances below which nothing starts
    allow_lost_speakers: bool = False  # go on although nothing is left of some speaker
    keep_decoded: Length = 1.0  # GB of decoded utterances that are kept instead of being decoded in every epoch
    grad_accumulation: Size = 8  # batches per optimiser step
    llm_epochs: Size = 30
    flow_epochs: Size = 84
    max_steps: Count = 0  # of each model, to stop early without changing the schedule; 0 for all
    optimizer: OptimizerName = "adamw"
    fused_optimizer: bool = True  # AdamW in one kernel
    learning_rate: Positive = 1.0e-5  # peak
    weight_decay: Length = 0.0
    schedule: Literal["warmuplr", "constant", "linear", "cosine", "wsd"] = "warmuplr"
    warmup_steps: Count = 200
    grad_clip: Positive = 5.0
    log_every: Size = 1  # optimiser steps
    validate_every: Size = 100
    patience: Count = 5  # validations without a lower val/loss, then the model is done; 0: never
    save_every: Size = 100
    keep_checkpoints: Count = 2  # step_*.pth files of each model
    keep_best: Count = 1  # weights of the lowest validation losses
    export: Literal["best", "last", "none"] = "best"  # which weights become epoch_N_whole.pt
    background_saves: bool = True  # write checkpoints while training goes on
    max_bad_steps: Size = 3  # updates in a row that are not finite, after which the run stops
    on_spike: OnSpike = "warn"  # rollback: to the last good checkpoint, at a lower rate
    rollback_rate: Annotated[float, Field(gt=0, lt=1)] = 0.5  # factor on the learning rate at each rollback
    on_out_of_memory: OnOutOfMemory = "stop"  # split: the same update in smaller forward passes
    aim: bool = True  # track in Aim too, where it is installed
    num_workers: Count = 0  # processes that read batches; a small voice is decoded once and kept
    prefetch_factor: Size = 2  # batches that each of them reads ahead
    persistent_workers: bool = True  # keep them from one epoch to the next
    pin_memory: bool = True  # where there is a CUDA device
    worker_start: StartMethod = "auto"
    device: DeviceName = "auto"
    precision: Precision = "auto"
    attention: Attention = "fused"
    tf32: bool = True  # matrix products of float32 on tensor cores
    cudnn_benchmark: bool = False  # try convolution algorithms; every new length is tried anew
    gradient_checkpointing: bool = False  # of the LLM: compute activations again instead of keeping them
    processes: Size = 1  # that share the batches of a step, one GPU each
    launch: Launch = "inline"  # detached: a process of its own, which outlives kernel and browser
    memory_limit: Positive = 16.0  # GB of the GPU that training should fit into, by the estimate
    spoken: Count = 6  # held-out sentences that are spoken before and after; 0 for none
    speech_tokenizer: str = ""  # speech_tokenizer_v2.onnx and campplus.onnx, to measure speaker similarity
    campplus: str = ""
    seed: Count = 1986
    targets: Literal["require", "report"] = "report"  # whether a CV loss that did not fall is an error

    @property
    def models(self) -> tuple[ModelName, ...]:
        """What is trained, in this order."""
        return ("llm", "flow") if self.model == "both" else (self.model,)

    def epochs(self, name: ModelName) -> int:
        return self.llm_epochs if name == "llm" else self.flow_epochs

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        problems = []
        own = {"cv_data": self.cv_data, "tokenizer": self.tokenizer}
        if self.method == "lora":
            own["base_model"] = self.base_model
        missing = [name for name, value in own.items() if self.data and not value]
        if missing:
            problems.append(f"{', '.join(missing)}: not given; your own data need all of {', '.join(own)}")
        given = [name for name, value in own.items() if value and not self.data]
        if given:
            problems.append(f"data: found empty with {', '.join(given)}; name the data.list that they belong to")
        if self.shuffle_size == 1:
            problems.append("shuffle_size: found 1, expected 0 for none or 2 at least")
        if bool(self.speech_tokenizer) != bool(self.campplus):
            problems.append("speech_tokenizer and campplus: give both to measure similarity, or neither")
        if self.optimizer == "prodigy" and self.learning_rate < 0.1:
            problems.append(f"learning_rate: found {self.learning_rate} with optimizer 'prodigy', expected 1.0")
        if self.optimizer == "schedulefree" and self.schedule != "constant":
            problems.append(f"schedule: found {self.schedule!r} with optimizer 'schedulefree', expected 'constant'")
        if self.method == "full" and (self.adapter or self.dora or self.rslora or self.train_heads):
            problems.append("method: found 'full' with settings of an adapter; expected 'lora', or leave them out")
        if self.on_spike == "rollback" and self.keep_checkpoints == 0:
            problems.append("on_spike: found 'rollback' with keep_checkpoints 0; expected at least 1 to go back to")
        if self.on_out_of_memory == "split" and self.processes > 1:
            problems.append("on_out_of_memory: found 'split' with several processes, which cannot agree on it")
        if problems:
            raise ValueError("\n  ".join(problems))
        return self


def counting(settings: Settings, data: str) -> CountSettings:
    """The settings that a count of the same batches has, of training data or of held-out ones."""
    shared = {item.name for item in fields(CountSettings)} & {item.name for item in fields(Settings)}
    values = {name: getattr(settings, name) for name in shared - {"precision", "run_name"}}
    return CountSettings(**{**values, "data": data})
