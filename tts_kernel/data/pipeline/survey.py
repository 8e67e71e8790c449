"""A count before training: what the processors leave, the batches of an epoch, other settings, and a verdict."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tts_kernel.data.pipeline.accounts import Account
from tts_kernel.data.pipeline.lengths import (
    FRAMES_PER_TOKEN,
    TOKENS_PER_SECOND,
    Lengths,
    lengths_of_statistics,
)
from tts_kernel.data.pipeline.memory import RESERVE, Memory, memory_of
from tts_kernel.data.pipeline.plan import Counted, check, count, remarks
from tts_kernel.data.pipeline.processors import Batching, Filter, Pipeline
from tts_kernel.data.pipeline.settings import CountSettings, numbers, pipeline_of
from tts_kernel.data.pipeline.shard_lengths import read_lengths
from tts_kernel.data.pipeline.text import Encoder
from tts_kernel.runs import Run, project_path, write_atomically

FILE = "count.json"
FORMAT = 2
BARS = 40
FRAMES_PER_SECOND = FRAMES_PER_TOKEN * TOKENS_PER_SECOND


@dataclass(frozen=True)
class Source:
    """The utterances to count and the pipeline they go through."""

    pipeline: Pipeline
    lengths: Lengths
    name: str

    def __str__(self) -> str:
        hours = self.lengths.seconds[self.lengths.samples > 0].sum() / 3600
        speakers = len(np.unique(self.lengths.speakers))
        utterances = f"{len(self.lengths):,} utterances, {hours:.2f} hours, {speakers} speaker{'s' * (speakers != 1)}"
        return f"{self.name}: {utterances}\n{self.pipeline}"


def open_source(settings: CountSettings) -> Source:
    """Read the pipeline and the lengths. Raises PipelineError, all that is wrong with either in one message."""
    pipeline = pipeline_of(settings)
    if settings.utterances:
        rate = settings.text_tokens_per_second
        spread = settings.spread_seconds
        lengths = lengths_of_statistics(settings.utterances, settings.median_seconds, spread, rate, settings.seed)
        return Source(pipeline, lengths, "by statistics")
    if settings.data:
        encoder = Encoder.of(project_path(settings.tokenizer))
        return Source(pipeline, read_lengths(project_path(settings.data), encoder), settings.data)
    from tts_kernel.data.voices.demo import open_demo  # brings torch, and is made on first use

    demo = open_demo()
    encoder = Encoder.of(project_path(settings.tokenizer) if settings.tokenizer else demo / "bpe.model")
    return Source(pipeline, read_lengths(demo / "data.list", encoder), "the demo")


@dataclass(frozen=True)
class Try:
    """The same utterances with one setting changed."""

    setting: str
    value: int
    chosen: bool  # what the pipeline has
    unlimited: bool  # the value is 0 and means no limit
    kept: int
    batches: int
    steps: int
    padding: float
    memory_gb: float  # of the largest batch, weights and CUDA included


@dataclass(frozen=True)
class Survey:
    """Everything that was counted."""

    source: Source
    counted: Counted
    settings: CountSettings
    memory: Memory
    tries: tuple[Try, ...]

    @property
    def steps(self) -> int:
        """Optimiser steps per epoch."""
        return self.counted.optimiser_steps(self.settings.grad_accumulation)

    def problems(self) -> list[str]:
        """Why training should not start."""
        settings = self.settings
        return self.counted.accounts.problems(settings.min_kept, settings.allow_lost_speakers)

    def verdict(self) -> str:
        """In a sentence."""
        batches, accounts = len(self.counted), self.counted.accounts
        head = f"{batches:,} batch{'' if batches == 1 else 'es'} per epoch"
        worst = accounts.drops()
        if worst and accounts.too_few(self.settings.min_kept):
            processor, drop = worst[0]
            why = drop.setting or drop.reason
            keeps = f"; {drop.keeps}" if drop.keeps else ""
            return f"{head}: {why} ({processor}, {drop.count:,} of {accounts.entered:,} utterances){keeps}"
        if problems := self.problems():
            return f"{head}, but {problems[0]}"
        lost = accounts.entered - accounts.kept
        end = f"; {lost:,} of {accounts.entered:,} utterances are dropped" if lost else ""
        size = self.settings.grad_accumulation
        if batches < size:
            return f"{head}, fewer than the {size} of an optimiser step: an epoch is a single, smaller one{end}"
        step = f"{self.steps:,} optimiser step{'' if self.steps == 1 else 's'} of {size}"
        return f"{head}, {step}, {self.counted.padding_waste():.1%} padding{end}"

    def table(self) -> str:
        """What each other setting would change, a line each; the chosen one has a star."""
        lines = [f"{'setting':<21}{'value':>7}  {'kept':>9}{'batches':>10}{'steps':>9}{'padding':>9}{'memory':>10}"]
        for each in self.tries:
            value = "none" if each.unlimited else f"{each.value:,}"
            lines.append(
                f"{each.setting:<21}{value:>7}{'*' if each.chosen else ' ':<2}{each.kept:>9,}{each.batches:>10,}"
                f"{each.steps:>9,}{each.padding:>9.1%}{each.memory_gb:>7.1f} GB"
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        memory, settings = self.memory, self.settings
        lines = [str(self.counted.accounts), f"verdict: {self.verdict()}"]
        lines += [f"know: {line}" for line in remarks(self.counted)]
        lines.append(
            f"memory in {settings.precision}, estimated: LLM {memory.llm_weights:.1f} GB and {memory.llm:.1f} GB for "
            f"the largest batch, flow {memory.flow_weights:.1f} GB and {memory.flow:.1f} GB, CUDA {RESERVE:.1f} GB; "
            f"one after the other {memory.largest:.1f} GB"
        )
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """For result.json."""
        counted, sizes = self.counted, self.counted.sizes()
        memory = {**asdict(self.memory), "largest": self.memory.largest}
        return {
            "utterances": counted.accounts.entered,
            "kept": counted.accounts.kept,
            "batches": len(counted),
            "steps": self.steps,
            "padding": round(counted.padding_waste(), 6),
            "largest_batch": int(sizes.max(initial=0)),
            "memory": {name: round(value, 3) for name, value in memory.items()},
            "drops": {f"{processor}: {drop.reason}": drop.count for processor, drop in counted.accounts.drops()},
            "verdict": self.verdict(),
        }

    def save(self, run: Run) -> Path:
        """Write count.json, from which the figures are drawn."""
        lengths = self.source.lengths
        values = {
            "format": FORMAT,
            "source": self.source.name,
            "facts": self.facts(),
            "accounts": [_account(account) for account in self.counted.accounts.each],
            "frames": _histogram(lengths.audio_frames[lengths.samples > 0], FRAMES_PER_TOKEN),
            "text_tokens": _histogram(lengths.text_tokens),
            "speech_tokens": _histogram(lengths.speech_tokens),
            "batch_sizes": _histogram(self.counted.sizes()),
            "limits": _limits(self.source.pipeline),
            "tries": [asdict(each) for each in self.tries],
            "grad_accumulation": self.settings.grad_accumulation,
        }
        path = run.folder / FILE
        write_atomically(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        return path

    def refuse(self) -> None:
        """Raises PipelineError where too little is left to train on, unless settings.on_refusal is "report"."""
        if self.settings.on_refusal == "fail":
            check(self.counted, self.settings.min_kept, self.settings.allow_lost_speakers)


def survey(source: Source, settings: CountSettings) -> Survey:
    """Count the pipeline as it is and with each other setting."""
    counted = count(source.pipeline, source.lengths, seed=settings.seed)
    tries = []
    for kind, name, text in (
        (Batching, "max_frames_in_batch", settings.try_frames),
        (Filter, "token_max_length", settings.try_text_tokens),
    ):
        processor: Any = source.pipeline.of(kind)
        if processor is None or getattr(processor, "batch_type", "") == "static":
            continue
        now = getattr(processor, name)
        for value in sorted({*numbers(text), now}):
            other = counted
            if value != now:
                other = count(source.pipeline.changed(kind, **{name: value}), source.lengths, seed=settings.seed)
            tries.append(_try(other, settings, name, value, value == now))
    memory = memory_of(counted, settings.precision)
    return Survey(source, counted, settings, memory, tuple(tries))


def _try(counted: Counted, settings: CountSettings, name: str, value: int, chosen: bool) -> Try:
    return Try(
        setting=name,
        value=value,
        chosen=chosen,
        unlimited=value == 0 and getattr(counted.pipeline.of(Filter), "zero_is_no_limit", False),
        kept=counted.accounts.kept,
        batches=len(counted),
        steps=counted.optimiser_steps(settings.grad_accumulation),
        padding=counted.padding_waste(),
        memory_gb=memory_of(counted, settings.precision).largest,
    )


def _account(account: Account) -> dict[str, Any]:
    drops = [{"reason": drop.reason, "count": drop.count, "setting": drop.setting} for drop in account.drops]
    values = {"processor": account.processor, "entered": account.entered, "left": account.left}
    return {**values, "note": account.note, "drops": drops}


def _limits(pipeline: Pipeline) -> dict[str, list[tuple[str, float]]]:
    """What limits each length: the setting as it is written, and where that lies. What keeps everything is left out."""
    batching, rule = pipeline.batching, pipeline.of(Filter)
    frames: list[tuple[str, float]] = []
    if batching.batch_type == "dynamic":
        frames.append((f"max_frames_in_batch {batching.max_frames_in_batch:,}", batching.max_frames_in_batch))
    if rule is None:
        return {"frames": frames}
    for name, tens in (("min_length", rule.min_length), ("max_length", rule.max_length)):
        if tens:
            place = tens * FRAMES_PER_SECOND / 100
            frames.append((f"{name} {tens:,g} x 10 ms = {place:,g}", place))
    text: list[tuple[str, float]] = []
    if rule.token_min_length > 1:
        text.append((f"token_min_length {rule.token_min_length}", rule.token_min_length))
    if math.isfinite(rule.most_text):
        text.append((f"token_max_length {rule.token_max_length}", rule.token_max_length))
    return {"frames": frames, "text_tokens": text}


def _histogram(values: np.ndarray, unit: int = 1) -> dict[str, list[float]]:
    """Counts between edges from 0 to somewhat above nearly all; the last bar takes the rest. Each bar is as wide as a
    whole number of units, for another width would hold now one value more and now one less."""
    top = max(float(np.percentile(values, 99.5)) * 1.1, 1.0) if len(values) else 1.0
    width = unit * math.ceil(top / unit / BARS)
    edges = np.arange(0, top + width, width) - unit / 2
    return {"edges": edges.tolist(), "counts": np.histogram(values.clip(max=edges[-1]), edges)[0].tolist()}
