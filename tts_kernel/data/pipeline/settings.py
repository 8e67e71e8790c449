"""What a count of batches depends on; equal to the parameters of notebooks/01_batch_count.ipynb."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from tts_kernel.data.pipeline.processors import Batching, Filter, Pipeline, build
from tts_kernel.data.pipeline.upstream import read_pipeline
from tts_kernel.runs import project_path
from tts_kernel.settings import STRICT

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Length = Annotated[float, Field(ge=0)]


@checked_dataclass(frozen=True, config=STRICT)
class CountSettings:
    """Which utterances, which processors, and what a step is."""

    run_name: str = ""  # empty for batches-<UTC time>
    data: str = ""  # data.list or its folder; empty for the embedded demo
    tokenizer: str = ""  # SentencePiece model or folder of a Qwen2 tokenizer; empty for the demo's on the demo
    utterances: Count = 0  # count so many from the statistics below instead of reading data
    median_seconds: Annotated[float, Field(gt=0)] = 5.0
    spread_seconds: Length = 0.4  # standard deviation of the logarithm of the duration
    text_tokens_per_second: Annotated[float, Field(gt=0)] = 6.0
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
    grad_accumulation: Size = 8  # batches per optimiser step
    precision: Literal["float32", "bfloat16"] = "float32"  # of the memory estimate
    try_frames: str = "400, 1000, 2000"  # other values of max_frames_in_batch
    try_text_tokens: str = "10, 100, 400"  # other values of token_max_length
    min_kept: Annotated[float, Field(ge=0, le=1)] = 0.1  # share of utterances below which nothing should start
    allow_lost_speakers: bool = False  # go on although nothing is left of some speaker
    on_refusal: Literal["fail", "report"] = "fail"
    seed: Count = 1986  # of the shuffling

    @model_validator(mode="after")
    def _consistent(self) -> CountSettings:
        problems = []
        if self.shuffle_size == 1:
            problems.append("shuffle_size: found 1, expected 0 for none or 2 at least")
        if self.utterances and self.data:
            problems.append(f"utterances and data: found {self.utterances} and {self.data!r}; give one of them")
        if self.data and not self.tokenizer:
            problems.append("tokenizer: not given; text tokens of your data are counted by your model's tokenizer")
        for name in ("try_frames", "try_text_tokens"):
            try:
                numbers(getattr(self, name))
            except ValueError:
                found = getattr(self, name)
                problems.append(f"{name}: found {found!r}, expected whole numbers above 0 with commas between them")
        if problems:
            raise ValueError("\n  ".join(problems))
        return self


def numbers(text: str) -> list[int]:
    """`400, 1000` -> [400, 1000]; raises ValueError for anything else and for numbers below 1."""
    found = [int(part) for part in text.split(",") if part.strip()]
    if any(number < 1 for number in found):
        raise ValueError(text)
    return found


def pipeline_of(settings: CountSettings) -> Pipeline:
    """The YAML file's processors, or those of the settings. Raises PipelineError."""
    if settings.pipeline:
        read = read_pipeline(project_path(settings.pipeline))
        opted = settings.zero_is_no_limit and read.of(Filter) is not None  # none is added for its sake
        return read.changed(Filter, zero_is_no_limit=True) if opted else read
    names = ("max_length", "min_length", "token_max_length", "token_min_length", "zero_is_no_limit")
    layout: list[tuple[str, dict[str, object]]] = [("filter", {name: getattr(settings, name) for name in names})]
    sizes = (("shuffle", settings.shuffle_size), ("sort", settings.sort_size))
    layout += [(name, {f"{name}_size": size}) for name, size in sizes if size]
    layout.append(("batch", {name: getattr(settings, name) for name in Batching.__dataclass_fields__}))
    return build(layout, "parameters")
