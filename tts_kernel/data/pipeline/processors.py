"""The processors of a pipeline by the names of CosyVoice's functions, with their settings, checked all at once.

    parquet_opener, tokenize, filter, resample, compute_fbank, parse_embedding, shuffle, sort, batch, padding

Filter, shuffle and sort are done where they stand and may be left out; of the others those that are not named are
filled in. Defaults are the reference's. Source: FunAudioLLM/CosyVoice, dataset/processor.py (parity case pipeline).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from tts_kernel.settings import STRICT, SettingsError, read_settings

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Frames10ms = Annotated[float, Field(ge=0)]  # lengths of audio in frames of 10 ms
Ratio = Annotated[float, Field(ge=0)]
MEL = {
    "n_fft": 1920,
    "num_mels": 80,
    "sampling_rate": 24_000,
    "hop_size": 480,
    "win_size": 1920,
    "fmin": 0,
    "fmax": 8000,
    "center": False,
}


class PipelineError(ValueError):
    """A pipeline or its data that cannot be used; the message names every problem and what to do."""


@checked_dataclass(frozen=True, config=STRICT)
class ParquetOpener:
    """Shards named in data.list, row after row."""

    mode: Literal["train"] = "train"


@checked_dataclass(frozen=True, config=STRICT)
class Tokenize:
    """Text to tokens; with which tokenizer, the caller says."""

    get_tokenizer: dict[str, Any] | None = None  # upstream's constructor, not called
    allowed_special: str = "all"


@checked_dataclass(frozen=True, config=STRICT)
class Filter:
    """Which utterances are kept. Every limit itself is kept."""

    max_length: Frames10ms = 10240  # frames of 10 ms
    min_length: Frames10ms = 10
    token_max_length: Count = 200  # text tokens; 0 drops every text
    token_min_length: Count = 1
    min_output_input_ratio: Ratio = 0.0005  # text tokens per frame of 10 ms
    max_output_input_ratio: Ratio = 1.0
    zero_is_no_limit: bool = False  # ours: read token_max_length 0 as no limit

    @property
    def most_text(self) -> float:
        """`token_max_length` as it counts."""
        return math.inf if self.zero_is_no_limit and self.token_max_length == 0 else self.token_max_length

    @model_validator(mode="after")
    def _ordered(self) -> Filter:
        for low, high in (("min_length", "max_length"), ("min_output_input_ratio", "max_output_input_ratio")):
            if getattr(self, low) > getattr(self, high):
                found = f"found {getattr(self, low):g} and {getattr(self, high):g}"
                raise ValueError(f"{low} and {high}: {found}, expected the first not above the second")
        return self


@checked_dataclass(frozen=True, config=STRICT)
class Resample:
    """To the rate of the mel. Files of another rate below `min_sample_rate` are dropped."""

    resample_rate: Literal[24_000] = 24_000  # Hz
    min_sample_rate: Literal[16_000] = 16_000


@checked_dataclass(frozen=True, config=STRICT)
class ComputeFbank:
    """The mel, 50 frames a second; the flow needs two of them per speech token, so nothing here may differ."""

    feat_extractor: dict[str, Any] | None = None  # None for MEL
    num_frames: Literal[960] = 960  # samples at 24 kHz to a multiple of which audio is padded
    token_mel_ratio: Literal[2] = 2

    @model_validator(mode="after")
    def _as_the_model_needs(self) -> ComputeFbank:
        given = {name: value for name, value in (self.feat_extractor or {}).items() if name != "name"}
        odd = [
            f"{name} {value!r} (the model's is {MEL.get(name, 'none')!r})"
            for name, value in given.items()
            if name not in MEL or value != MEL[name]
        ]
        if odd:
            raise ValueError(f"feat_extractor: found {', '.join(odd)}; the flow was trained on the model's mel")
        return self


@checked_dataclass(frozen=True, config=STRICT)
class ParseEmbedding:
    """Speaker embeddings, to unit length."""

    normalize: bool = True


@checked_dataclass(frozen=True, config=STRICT)
class Shuffle:
    """Collect so many rows, shuffle, hand on the first half."""

    shuffle_size: Annotated[int, Field(ge=2)] = 10_000  # of 1 nothing would ever be handed on


@checked_dataclass(frozen=True, config=STRICT)
class Sort:
    """Collect so many rows, sort them by their number of frames."""

    sort_size: Size = 500


@checked_dataclass(frozen=True, config=STRICT)
class Batching:
    """Rows to batches: by the frames of the padded batch (dynamic) or by number (static)."""

    batch_type: Literal["static", "dynamic"] = "static"
    batch_size: Size = 16  # utterances, static
    max_frames_in_batch: Size = 12_000  # mel frames, padding included, dynamic


@checked_dataclass(frozen=True, config=STRICT)
class Padding:
    """A batch's rows by length, longest first, padded with zeros."""

    use_spk_embedding: bool = False  # the speaker's embedding instead of the utterance's
    gan: Literal[False] = False
    dpo: Literal[False] = False


Processor = (
    ParquetOpener | Tokenize | Filter | Resample | ComputeFbank | ParseEmbedding | Shuffle | Sort | Batching | Padding
)
KINDS: dict[str, type[Any]] = {
    "parquet_opener": ParquetOpener,
    "tokenize": Tokenize,
    "filter": Filter,
    "resample": Resample,
    "compute_fbank": ComputeFbank,
    "parse_embedding": ParseEmbedding,
    "shuffle": Shuffle,
    "sort": Sort,
    "batch": Batching,
    "padding": Padding,
}
NAMES = {kind: name for name, kind in KINDS.items()}
_PLACES = {name: place for place, name in enumerate(KINDS)}
_OPTIONAL = {"filter", "shuffle", "sort"}
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Pipeline:
    """Processors in their order; made by `build` or `read_pipeline`."""

    processors: tuple[Processor, ...]
    filled_in: tuple[str, ...] = ()  # names that the source did not have

    def of(self, kind: type[Kind]) -> Kind | None:
        """The processor of this kind, if there is one."""
        return next((item for item in self.processors if isinstance(item, kind)), None)

    @property
    def batching(self) -> Batching:
        found = self.of(Batching)
        assert found is not None  # `build` has seen to it
        return found

    def changed(self, kind: type[Any], **values: Any) -> Pipeline:
        """The same with other settings of one processor, which is added where it usually stands if it is missing."""
        layout = [(NAMES[type(item)], _given(item)) for item in self.processors]
        name = NAMES[kind]
        if self.of(kind) is None:
            place = next(at for at, (other, _) in enumerate(layout) if _PLACES[other] > _PLACES[name])
            layout.insert(place, (name, {}))
        return build([(other, {**conf, **values} if other == name else conf) for other, conf in layout])

    def __str__(self) -> str:
        return " -> ".join(NAMES[type(item)] for item in self.processors)


def build(
    layout: Iterable[tuple[str, Mapping[str, Any]]], source: str = "pipeline", unreadable: Sequence[str] = ()
) -> Pipeline:
    """Processors from (name, settings). Raises PipelineError listing what was `unreadable` besides, every unknown name
    or setting, every value out of range, and an order that cannot work."""
    layout = list(layout)
    problems, found = list(unreadable), []
    for name, conf in layout:
        if name not in KINDS:
            near = difflib.get_close_matches(name, KINDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KINDS)}"
            problems.append(f"processor {name!r}: unknown; {hint}")
            continue
        try:
            found.append(read_settings(KINDS[name], _checkable(name, conf)))
        except (SettingsError, PipelineError) as error:
            lines = str(error).splitlines()
            problems += [f"processor {name}: {line.strip()}" for line in lines[1:] or lines]
    if not unreadable:  # what it was would have to be guessed
        problems += _order([name for name, _ in layout if name in KINDS])
    if problems:
        raise PipelineError("\n  ".join([f"{source}: {len(problems)} problems:", *problems]))
    names = {NAMES[type(item)] for item in found}
    missing = [name for name in KINDS if name not in names and name not in _OPTIONAL]
    for name in missing:
        later = (at for at, item in enumerate(found) if _PLACES[NAMES[type(item)]] > _PLACES[name])
        found.insert(next(later, len(found)), KINDS[name]())
    return Pipeline(tuple(found), tuple(missing))


def _checkable(name: str, conf: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as `read_settings` takes them: it passes over what does not look like one."""
    if not isinstance(conf, Mapping):
        raise PipelineError(f"conf is {conf!r}, expected settings by name")
    odd = [str(key) for key in conf if not isinstance(key, str) or key.startswith("_")]
    if odd:
        known = ", ".join(item.name for item in fields(KINDS[name]))
        raise PipelineError(f"{', '.join(odd)}: no setting; known are {known}")
    return dict(conf)


def _order(names: list[str]) -> list[str]:
    problems = [f"processor {name}: named twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if "batch" not in names:
        problems.append("processor batch: missing; name one with batch_type dynamic and max_frames_in_batch")
    for first, second in (("tokenize", "filter"), ("resample", "compute_fbank")):
        if first in names and second in names and names.index(first) > names.index(second):
            problems.append(f"processor {second}: stands before {first}, which makes what it reads")
    if "parquet_opener" in names[1:]:
        problems.append("processor parquet_opener: expected first")
    if "batch" in names:
        behind = names[names.index("batch") + 1 :]
        late = [name for name in behind if name != "padding"]
        problems += [f"processor {name}: stands behind batch, expected before it" for name in late]
        if "padding" in names[: names.index("batch")]:
            problems.append("processor padding: stands before batch, expected behind it")
    return problems


def _given(processor: Any) -> dict[str, Any]:
    return {item.name: getattr(processor, item.name) for item in fields(processor)}
