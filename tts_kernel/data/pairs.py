"""Prompt/target pairs from clips: each clip is spoken with the voice of other clips of its speaker."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.string_keys import string_keys

TEXT, CODES = "text_len", "code_len"


class PairError(ValueError):
    """Clips that no pairs can be made of."""


@dataclass(frozen=True)
class PairLimits:
    """Which clips take part, and in how many pairs."""

    pairs_per_target: int = 2
    min_text: int = 1  # text tokens of a target
    min_codes: int = 12  # of a target: half a second at 25 a second
    max_pairs: int = 0  # of all, a random part of the targets; 0 for no cap
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("pairs_per_target", 1), ("min_text", 1), ("min_codes", 1), ("max_pairs", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise PairError(f"{name} is {getattr(self, name)}, expected at least {least}")


@dataclass(frozen=True)
class Paired:
    """Which clip (a row of the clips' table) each pair speaks, and with which clip's voice."""

    target: np.ndarray  # (pairs,)
    prompt: np.ndarray  # (pairs,)
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> clips that are no target

    def __len__(self) -> int:
        return len(self.target)


def make_pairs(clips: pa.Table, limits: PairLimits | None = None) -> Paired:
    """Pair every clip with `pairs_per_target` different others of its speaker, as many as there are. `clips` has the
    columns id, speaker, text_len (tokens) and code_len (frames). Rows of one target are neighbours, targets in the
    order of the clips; the same clips and seed give the same pairs. Raises PairError if no pair can be made."""
    limits = limits or PairLimits()
    absent = [name for name in ("id", "speaker", TEXT, CODES) if name not in clips.column_names]
    if absent:
        raise PairError(f"clips have no column {absent[0]!r}; expected id, speaker, {TEXT} and {CODES}")
    if len(np.unique(string_keys(clips.column("id")))) < len(clips):
        raise PairError("clips have ids that occur twice; a pair could be a clip with itself. Make them unique")
    speakers = clips.column("speaker").combine_chunks()
    speakers = speakers if pa.types.is_dictionary(speakers.type) else speakers.dictionary_encode()
    voices = speakers.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    text, codes = (pc.fill_null(clips.column(name), 0).to_numpy() for name in (TEXT, CODES))
    usable = {
        "no speaker": voices >= 0,
        f"fewer than {limits.min_text} text tokens": text >= limits.min_text,
        f"fewer than {limits.min_codes} codes": codes >= limits.min_codes,
    }
    kept = np.ones(len(clips), dtype=bool)
    dropped: dict[str, int] = {}
    for reason, fine in usable.items():
        dropped[reason] = int((kept & ~fine).sum())
        kept &= fine
    members = np.flatnonzero(kept)[np.argsort(voices[kept], kind="stable")]  # speaker by speaker
    _, starts, sizes = np.unique(voices[members], return_index=True, return_counts=True)
    alone = np.repeat(sizes == 1, sizes)
    dropped["only clip of its speaker"] = int(alone.sum())
    place, size = np.arange(len(members)) - np.repeat(starts, sizes), np.repeat(sizes, sizes)
    generator = np.random.default_rng(limits.seed)
    targets, prompts = [], []
    steps: list[np.ndarray] = []  # of earlier pairs, ascending: a clip's prompts are different ones
    for number in range(limits.pairs_per_target):
        left = size - 1 - number  # clips that are neither the target nor a prompt of it
        step = (generator.random(len(members)) * np.maximum(left, 1)).astype(np.int64) + 1
        for taken in steps:
            step += step >= taken
        steps = list(np.sort(np.stack([*steps, step]), axis=0)) if steps else [step]
        fine = left > 0
        prompt = members[(np.arange(len(members)) - place) + (place + step) % size]
        targets.append(members[fine])
        prompts.append(prompt[fine])
    target, prompt = np.concatenate(targets), np.concatenate(prompts)
    order = np.argsort(target, kind="stable")
    target, prompt = target[order], prompt[order]
    if limits.max_pairs and len(target) > limits.max_pairs:
        target, prompt = _capped(target, prompt, limits, generator, dropped)
    dropped = {reason: count for reason, count in dropped.items() if count}
    if not len(target):
        raise PairError(
            f"no pairs from {len(clips)} clips; left out: {dropped or 'nothing'}. Expected speakers with two clips"
        )
    return Paired(target, prompt, dropped)


def _capped(
    target: np.ndarray, prompt: np.ndarray, limits: PairLimits, generator: np.random.Generator, dropped: dict[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """`max_pairs` of the pairs: those of randomly chosen targets, so that few targets have fewer than they could."""
    names, place = np.unique(target, return_inverse=True)
    chosen = np.argsort(generator.permutation(len(names))[place], kind="stable")[: limits.max_pairs]
    chosen.sort()
    dropped["beyond max_pairs"] = len(names) - len(np.unique(target[chosen]))
    return target[chosen], prompt[chosen]
