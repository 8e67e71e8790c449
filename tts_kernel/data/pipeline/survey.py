"""A count before training: what the processors leave, the batches of an epoch, other settings, and a verdict."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tts_kernel.data.pipeline.lengths import TOKENS_PER_SECOND, Lengths, lengths_of_statistics
from tts_kernel.data.pipeline.memory import Memory, memory_of
from tts_kernel.data.pipeline.plan import Counted, check, count, remarks
from tts_kernel.data.pipeline.processors import Batching, Filter, Pipeline
from tts_kernel.data.pipeline.settings import CountSettings, numbers, pipeline_of
from tts_kernel.data.pipeline.shard_lengths import read_lengths
from tts_kernel.data.pipeline.text import Encoder
from tts_kernel.runs import Run, project_path, write_atomically

FILE = "count.json"
FORMAT = 1
BARS = 40


@dataclass(frozen=True)
class Source:
    """The utterances to count and the pipeline they go through."""

    pipeline: Pipeline
    lengths: Lengths
    name: str

    def __str__(self) -> str:
        hours = self.lengths.seconds[self.lengths.samples > 0].sum() / 3600
        speakers = len(np.unique(self.lengths.speakers))
        utterances = f"{len(self.lengths):,} utterances, {hours:.2f} hours, {speakers} speakers"
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
    kept: int
    batches: int
    steps: int
    padding: float
    memory_gb: float  # of the largest batch, weights included


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
        if self.problems() and worst:
            processor, drop = worst[0]
            why = drop.setting or drop.reason
            keeps = f"; {drop.keeps}" if drop.keeps else ""
            return f"{head}: {why} ({processor}, {drop.count:,} of {accounts.entered:,} utterances){keeps}"
        size = self.settings.grad_accumulation
        if batches < size:
            return f"{head}, too few for one optimiser step of {size}; lower grad_accumulation"
        step = f"{self.steps:,} optimiser step{'' if self.steps == 1 else 's'} of {size}"
        return f"{head}, {step}, {self.counted.padding_waste():.1%} padding"

    def __str__(self) -> str:
        memory, settings = self.memory, self.settings
        lines = [str(self.counted.accounts), f"verdict: {self.verdict()}"]
        lines += [f"know: {line}" for line in remarks(self.counted)]
        lines.append(
            f"memory of the largest batch in {settings.precision}, estimated: LLM {memory.llm:.1f} GB and "
            f"{memory.llm_weights:.1f} GB of weights, flow {memory.flow:.1f} GB and {memory.flow_weights:.1f} GB"
        )
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """For result.json."""
        counted, sizes = self.counted, self.counted.sizes()
        return {
            "utterances": counted.accounts.entered,
            "kept": counted.accounts.kept,
            "batches": len(counted),
            "steps": self.steps,
            "padding": round(counted.padding_waste(), 6),
            "largest_batch": int(sizes.max(initial=0)),
            "memory": {name: round(value, 3) for name, value in asdict(self.memory).items()},
            "drops": {f"{processor}: {drop.reason}": drop.count for processor, drop in counted.accounts.drops()},
            "verdict": self.verdict(),
        }

    def save(self, run: Run) -> Path:
        """Write count.json, from which the figures are drawn."""
        lengths, batching = self.source.lengths, self.source.pipeline.batching
        limits = self.source.pipeline.of(Filter)
        values = {
            "format": FORMAT,
            "source": self.source.name,
            "facts": self.facts(),
            "accounts": [_account(account) for account in self.counted.accounts.each],
            "frames": _histogram(lengths.audio_frames[lengths.samples > 0]),
            "text_tokens": _histogram(lengths.text_tokens, whole=True),
            "speech_tokens": _histogram(lengths.speech_tokens),
            "batch_sizes": _histogram(self.counted.sizes(), whole=True),
            "limits": {
                "frames": [batching.max_frames_in_batch] if batching.batch_type == "dynamic" else [],
                "text_tokens": [limits.token_max_length] if limits else [],
                "speech_tokens": [30 * TOKENS_PER_SECOND],
            },
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
        now = getattr(source.pipeline.of(kind), name, None)
        if kind is Batching and source.pipeline.batching.batch_type == "static":
            continue
        for value in sorted({*numbers(text), *([] if now is None else [now])}):
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
        kept=counted.accounts.kept,
        batches=len(counted),
        steps=counted.optimiser_steps(settings.grad_accumulation),
        padding=counted.padding_waste(),
        memory_gb=memory_of(counted, settings.precision).largest,
    )


def _account(account: Any) -> dict[str, Any]:
    drops = [{"reason": drop.reason, "count": drop.count, "setting": drop.setting} for drop in account.drops]
    return {"processor": account.processor, "entered": account.entered, "left": account.left, "drops": drops}


def _histogram(values: np.ndarray, whole: bool = False) -> dict[str, list[float]]:
    """Counts between edges from 0 to somewhat above nearly all; the last bar takes the rest. `whole`: a bar for each
    whole number."""
    top = float(np.percentile(values, 99.5)) * 1.1 if len(values) else 1.0
    edges = np.arange(-0.5, max(top, 1) + 1.5) if whole and top < BARS else np.linspace(0, max(top, 1.0), BARS + 1)
    return {"edges": edges.round(3).tolist(), "counts": np.histogram(values.clip(max=edges[-1]), edges)[0].tolist()}
