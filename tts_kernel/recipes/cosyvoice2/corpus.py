"""What a run reads: the pipeline, the utterances to train on and those held out, decoded once where they are few."""

from __future__ import annotations

import logging
import zlib
from dataclasses import astuple, dataclass, replace

import numpy as np
from torch.utils.data import Dataset

from tts_kernel.data.pipeline import Encoder, Pipeline, PipelineError, PipelinePlan, read_lengths, remarks
from tts_kernel.data.pipeline.batches import PipelineDataset, Spoken, VoiceBatch, collate
from tts_kernel.data.pipeline.settings import pipeline_of
from tts_kernel.data.sampler import PlannedBatch
from tts_kernel.recipes.cosyvoice2.settings import Settings, counting
from tts_kernel.runs import project_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """Both splits through one pipeline."""

    encoder: Encoder
    train: PipelinePlan
    held: PipelinePlan

    def data(self, plan: PipelinePlan, gigabytes: float, text_tokens: int, speech_tokens: int) -> Decoded:
        """The batches of one of the plans, for models with so many of either token."""
        data = PipelineDataset(plan.pipeline, plan.lengths, self.encoder)
        return Decoded(data, gigabytes, text_tokens, speech_tokens)

    def __str__(self) -> str:
        lines = [str(self.train.first.accounts)]
        lines += [f"know: {line}" for line in remarks(self.train.first)]
        held = self.held.first
        lines += [f"cv_data: {name} drops {drop}" for name, drop in held.accounts.drops()]
        lines += [f"cv_data: {line}" for line in remarks(held)]
        batches, waste = len(self.train.first), self.train.first.padding_waste()
        lines.append(
            f"{len(self.train.rows):,} utterances to train on in {batches:,} batches per epoch, {waste:.1%} of them "
            f"padding; {len(self.held.rows):,} to validate on"
        )
        return "\n".join(lines)


def open_corpus(settings: Settings) -> Corpus:
    """Read both lists and put them through the pipeline. Raises PipelineError with the problems of both, before
    anything is decoded."""
    encoder = Encoder.of(project_path(settings.tokenizer))
    pipeline = pipeline_of(counting(settings, settings.data))
    plans, problems = [], []
    for name, path in (("data", settings.data), ("cv_data", settings.cv_data)):
        plan = PipelinePlan(pipeline, read_lengths(project_path(path), encoder), settings.seed)
        plans.append(plan)
        found = plan.first.accounts.problems(settings.min_kept, settings.allow_lost_speakers)
        problems += [f"{name}: {problem}" for problem in found]
    train, held = plans
    both = sorted(set(_kept(train)) & set(_kept(held)))
    if both:
        problems.append(f"{len(both):,} utterances are in data and in cv_data, such as {', '.join(both[:3])}")
    if problems:
        raise PipelineError("\n  ".join(["the pipeline cannot be trained on:", *problems]))
    return Corpus(encoder, train, held)


def fingerprint(plan: PipelinePlan) -> int:
    """Which utterances these are, in which order and of what lengths."""
    lengths, rows = plan.lengths, plan.rows
    columns = ("samples", "rates", "text_tokens", "speech_tokens")
    found = zlib.crc32("\n".join(_kept(plan)).encode())
    for name in columns:
        found = zlib.crc32(np.ascontiguousarray(getattr(lengths, name)[rows], dtype=np.int64).tobytes(), found)
    return found


def layout(pipeline: Pipeline) -> list[str]:
    """The processors with their settings, as plain values."""
    return [f"{type(item).__name__}{astuple(item)}" for item in pipeline.processors]


def _kept(plan: PipelinePlan) -> list[str]:
    return [str(name) for name in plan.lengths.utterances[plan.rows]]


class Decoded(Dataset[VoiceBatch]):
    """The pipeline's batches; what has been decoded stays in memory while there is room, for a voice is small and its
    epochs are many. Workers keep their own."""

    def __init__(self, data: PipelineDataset, gigabytes: float, text_tokens: int, speech_tokens: int) -> None:
        self.data, self.left = data, gigabytes * 1e9
        self.text_tokens, self.speech_tokens = text_tokens, speech_tokens
        self.kept: dict[int, Spoken] = {}

    def __getitem__(self, planned: PlannedBatch) -> VoiceBatch:
        rows = [self.spoken(int(row)) for row in planned.rows]
        return replace(collate(rows, self.data.by_speaker), position=planned.after, idle=planned.idle)

    def spoken(self, row: int) -> Spoken:
        """One row of the lengths. Raises PipelineError naming an utterance with tokens that the models do not have."""
        if row in self.kept:
            return self.kept[row]
        found = self.data.spoken(row)
        for kind, tokens, size in (
            ("text", found.text_tokens, self.text_tokens),
            ("speech", found.speech_tokens, self.speech_tokens),
        ):
            if len(tokens) and not 0 <= tokens.min() <= tokens.max() < size:
                raise PipelineError(
                    f"{found.name}: {kind} tokens {tokens.min()} to {tokens.max()}, expected 0 to {size - 1}; "
                    f"make them by the base model's own {kind} tokenizer"
                )
        size = found.mel.nbytes + found.text_tokens.nbytes + found.speech_tokens.nbytes
        if size <= self.left:
            self.kept[row] = found
            self.left -= size
        return found
