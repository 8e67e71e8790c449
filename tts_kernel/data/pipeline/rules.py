"""The reference's rules on whole columns: which utterance is kept, in which order they come, where a batch ends.

Source: FunAudioLLM/CosyVoice, dataset/processor.py and dataset/dataset.py, by the parity case pipeline.
"""

from __future__ import annotations

import random

import numpy as np

from tts_kernel.data.pipeline.accounts import Drop, first_names
from tts_kernel.data.pipeline.lengths import RATE, UNREADABLE, Lengths
from tts_kernel.data.pipeline.processors import Filter, Resample


def opened(lengths: Lengths) -> tuple[np.ndarray, list[Drop]]:
    """(rows,) bool what can be read at all, and the others, at which the reference would stop within an epoch."""
    hints = {"audio cannot be read": ("", "write the shard again from whole audio files")}
    return _drops(lengths, {"audio cannot be read": lengths.samples == UNREADABLE}, hints)


def filtered(lengths: Lengths, rule: Filter) -> tuple[np.ndarray, list[Drop]]:
    """(rows,) bool what `rule` keeps, and the others by the first reason that holds."""
    tens, text = lengths.tens, lengths.text_tokens
    ratio = np.divide(text, tens, out=np.zeros(len(tens)), where=tens != 0)
    reasons = {
        "too short": tens < rule.min_length,
        "too long": tens > rule.max_length,
        "too little text": text < rule.token_min_length,
        "too much text": text > rule.most_text,
        "no speech tokens": lengths.speech_tokens == 0,
        "no rejected speech tokens": lengths.reject_tokens == 0,
        "text/frames ratio too low": (tens != 0) & (ratio < rule.min_output_input_ratio),
        "text/frames ratio too high": (tens != 0) & (ratio > rule.max_output_input_ratio),
    }
    settings = {
        "too short": ("min_length", tens, np.min),
        "too long": ("max_length", tens, np.max),
        "too little text": ("token_min_length", text, np.min),
        "too much text": ("token_max_length", text, np.max),
        "text/frames ratio too low": ("min_output_input_ratio", ratio, np.min),
        "text/frames ratio too high": ("max_output_input_ratio", ratio, np.max),
    }
    hints: dict[str, tuple[str, str]] = {}
    for reason, bad in _first_only(reasons).items():
        if reason not in settings or not bad.any():
            continue
        name, values, worst = settings[reason]
        now, needed = getattr(rule, name), float(worst(values[bad]))
        rounded = np.floor(needed * 1e4) / 1e4 if worst is np.min else np.ceil(needed * 1e4) / 1e4
        hints[reason] = (f"{name} is {now:g}", f"{name} {rounded:g} keeps them")
        if reason == "too much text" and now == 0:
            keeps = f"{hints[reason][1]}; zero_is_no_limit reads 0 as no limit"
            hints[reason] = ("token_max_length is 0, which is a limit and drops every text", keeps)
    hints["no speech tokens"] = ("", "extract them again; the tokenizer takes 30 s at most")
    return _drops(lengths, reasons, hints)


def resampled(lengths: Lengths, rule: Resample) -> tuple[np.ndarray, list[Drop]]:
    """(rows,) bool what can be brought to 24 kHz, and the others, which the reference drops without a word."""
    low = (lengths.rates != RATE) & (lengths.rates < rule.min_sample_rate)
    rates = ", ".join(f"{rate:,}" for rate in sorted({*lengths.rates[low].tolist()}))
    keeps = "record at 16 kHz at least; telephone sound would teach the model its band"
    return _drops(lengths, {f"sample rate too low, {rates} Hz": low}, {f"sample rate too low, {rates} Hz": ("", keeps)})


def framed(lengths: Lengths) -> tuple[np.ndarray, list[Drop]]:
    """(rows,) bool what has a mel frame, and the others, which only a pipeline without a filter lets through."""
    hints = {"no mel frames": ("", "name a filter; it drops what has no speech tokens")}
    return _drops(lengths, {"no mel frames": lengths.frames == 0}, hints)


def _first_only(reasons: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every row under the first of its reasons alone."""
    free: np.ndarray | None = None
    found = {}
    for reason, bad in reasons.items():
        free = np.ones(len(bad), dtype=bool) if free is None else free
        found[reason] = bad & free
        free = free & ~bad
    return found


def _drops(
    lengths: Lengths, reasons: dict[str, np.ndarray], hints: dict[str, tuple[str, str]]
) -> tuple[np.ndarray, list[Drop]]:
    kept, drops = np.ones(len(lengths), dtype=bool), []
    for reason, bad in _first_only(reasons).items():
        kept &= ~bad
        if count := int(bad.sum()):
            names = first_names(lengths.utterances[np.flatnonzero(bad)])
            drops.append(Drop(reason, count, names, *hints.get(reason, ("", ""))))
    return kept, drops


def shuffled(rows: np.ndarray, size: int, generator: random.Random) -> np.ndarray:
    """Collect `size` rows, shuffle, hand on the first half, keep the second; at the end shuffle the rest."""
    held: list[int] = []
    out: list[int] = []
    waiting = rows.tolist()
    place = 0
    while len(waiting) - place >= size - len(held):
        taken = size - len(held)
        held += waiting[place : place + taken]
        place += taken
        generator.shuffle(held)
        out += held[: size // 2]
        held = held[size // 2 :]
    held += waiting[place:]
    generator.shuffle(held)
    return np.array(out + held, dtype=np.int64)


def in_sorted_runs(rows: np.ndarray, frames: np.ndarray, size: int) -> np.ndarray:
    """Runs of `size` rows, each sorted by frames, shortest first; equal ones stay in their order."""
    runs = np.arange(len(rows)) // size
    return rows[np.lexsort((frames[rows], runs))]


def dynamic_ends(frames: np.ndarray, limit: int) -> np.ndarray:
    """(rows,) mel frames in order -> (batches,) places where a batch ends: a row is appended while (longest, itself
    included) * (rows, itself included) stays within `limit`. A row beyond the limit becomes a batch of its own; if it
    comes first, a batch that ends at 0 comes before it, as in the reference, whose padding then fails."""
    ends: list[int] = []
    start = longest = 0
    for place, length in enumerate(frames.tolist()):
        if length > longest:
            longest = length
        if longest * (place + 1 - start) > limit:
            ends.append(place)
            start, longest = place, length
    return np.array([*ends, len(frames)] if len(frames) else ends, dtype=np.int64)


def static_ends(rows: int, size: int) -> np.ndarray:
    """Places where batches of `size` rows end; the last one may have fewer."""
    return np.minimum(np.arange(size, rows + size, size), rows)


def padded_order(batch: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The rows of a batch as padding puts them: longest first, equal ones in their order."""
    return batch[np.argsort(-frames[batch], kind="stable")]


def share_of_shards(
    shards: int, epoch: int, rank: int, ranks: int, worker: int, workers: int, shuffle: bool, partition: bool
) -> list[int]:
    """Which shards one worker of one rank reads in an epoch: all of them shuffled by the epoch's number, every
    `ranks`-th, of those every `workers`-th. Where there are too few they are repeated, so two may read the same."""
    order = list(range(shards))
    if partition:
        if shuffle:
            random.Random(epoch).shuffle(order)
        order = _dealt(order, rank, ranks)
    return _dealt(order, worker, max(workers, 1))


def _dealt(order: list[int], place: int, places: int) -> list[int]:
    if len(order) < places:
        order = (order * places)[:places]
    return order[place::places]
