"""What a run of MeloTTS with BGE-M3 depends on. Defaults: the practitioners' guide's, `config_bge_m3.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from tts_kernel.data.loader import StartMethod
from tts_kernel.settings import STRICT
from tts_kernel.training.guards import OnSpike
from tts_kernel.training.launch import Launch
from tts_kernel.training.speed import DeviceName, ScaledPrecision

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Length = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
HOP = 512  # samples of a frame


@checked_dataclass(frozen=True, config=STRICT)
class Settings:
    """Everything a run depends on, saved whole with it."""

    run_name: str = ""  # empty for melotts-<UTC time>; an existing run is resumed
    data: str = ""  # folder with the lists and the wavs that they name; empty for the embedded demo corpus
    train_list: str = "train_list.txt"  # wavs/a.wav|text|SPEAKER|KR, the language may be left out
    val_list: str = "val_list.txt"
    config: str = ""  # config_bge_m3.json, whose values go before the defaults here
    encoder: str = ""  # folder of BGE-M3; empty for the demo's, on the demo corpus only
    store: str = ""  # where phones and features are kept; empty for a folder of the cache
    base_generator: str = ""  # G_*.pth to begin with, its config.json beside it; empty for fresh weights
    base_discriminator: str = ""  # D_*.pth
    base_duration: str = ""  # DUR_*.pth
    model: Literal["public", "demo"] = "public"  # sizes, where no config names others
    n_speakers: Size = 256  # rows of the table; speakers of the lists must fit in
    batch_size: Size = 6  # clips per update, of all processes together
    batching: Literal["windows", "buckets"] = "windows"  # like lengths; MeloTTS's buckets leave clips out
    epochs: Size = 1000
    max_steps: Count = 0  # stop early without changing the schedule; 0 for all
    segment_size: Size = 16_384  # samples that the decoder learns from at once; 8192 where memory is short
    learning_rate: Positive = 3.0e-4
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.999875  # factor with every epoch
    weight_decay: Length = 0.01
    c_mel: Length = 45.0  # weight of the mel loss
    c_kl: Length = 1.0
    duration_discriminator: bool = True
    reference_losses: bool = False  # MeloTTS's own duration losses: swapped arguments, padding counted
    grad_clip: Positive = 1000.0  # largest gradient norm of each network; MeloTTS has no limit
    log_every: Size = 200  # updates
    validate_every: Size = 1000
    patience: Count = 0  # validations without a lower val/loss, then the run ends; 0: never
    save_every: Size = 1000
    keep_checkpoints: Size = 5  # of each kind
    keep_best: Count = 1  # weights of the lowest validation losses
    background_saves: bool = True  # write the run's own checkpoints while training goes on
    max_bad_steps: Size = 3  # updates in a row that are not finite, after which the run stops
    on_spike: OnSpike = "warn"
    rollback_rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    samples: Count = 4  # fixed sentences that are spoken at each validation, languages in turn; 0: no pictures either
    aim: bool = True  # track in Aim too, where it is installed
    keep_decoded: Length = 2.0  # GB of waveforms, spectrograms and features that are kept in memory
    keep_on_disk: Length = 20.0  # GB of spectrograms that are kept in the store
    num_workers: Count = 0  # processes that read batches
    prefetch_factor: Size = 2
    persistent_workers: bool = True
    pin_memory: bool = True
    worker_start: StartMethod = "auto"
    device: DeviceName = "auto"
    precision: ScaledPrecision = "auto"  # float16 scales its losses
    tf32: bool = True
    cudnn_benchmark: bool = False  # try convolution algorithms; every new length is tried anew
    processes: Size = 1  # that share each batch, one GPU each
    launch: Launch = "inline"  # detached: a process of its own, which outlives kernel and browser
    seed: Count = 52
    targets: Literal["require", "report"] = "report"  # whether a mel loss that did not fall is an error

    @property
    def segment_frames(self) -> int:
        return self.segment_size // HOP

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        problems = []
        if self.segment_size % HOP:
            near = max(self.segment_size // HOP, 1) * HOP
            problems.append(f"segment_size: found {self.segment_size}, expected a multiple of {HOP}, such as {near}")
        if self.data and not self.encoder:
            problems.append("encoder: found empty; your own data need the folder of BGE-M3")
        if self.processes > self.batch_size:
            problems.append(f"processes: found {self.processes}, expected at most batch_size, {self.batch_size}")
        if self.c_mel + self.c_kl == 0:
            problems.append("c_mel and c_kl: found 0 and 0, expected at least one above 0")
        if problems:
            raise ValueError("\n  ".join(problems))
        return self
