"""Prompt/target pairs of one speaker from a list of utterances."""

from __future__ import annotations

import random
from collections import defaultdict

import pyarrow as pa

from benchmarks.data.generate import PAIRS_PER_TARGET, Clips, make_clips
from benchmarks.data.measure import Figures, Stopwatch, measure
from benchmarks.data.result import Result, Sizes, below

MIN_CODES = 12  # as make_pairs has it


def plain(clips: int) -> Figures:
    """Clips grouped by speaker in a dictionary, prompts drawn per target, one record per pair."""
    made = make_clips(clips)
    utterances = list(zip(made.ids.to_pylist(), made.speakers.to_pylist(), made.codes.tolist(), strict=True))
    rng = random.Random(0)
    with Stopwatch() as whole:
        by_speaker = defaultdict(list)
        for name, speaker, codes in utterances:
            if codes >= MIN_CODES:
                by_speaker[speaker].append(name)
        pairs = []
        for speaker, members in by_speaker.items():
            for name in members:
                others = rng.sample(members, min(len(members), PAIRS_PER_TARGET + 1))
                for prompt in [other for other in others if other != name][:PAIRS_PER_TARGET]:
                    pairs.append(
                        {"id": f"{name}__{prompt}", "target_id": name, "prompt_id": prompt, "speaker": speaker}
                    )
    return {"seconds": whole.seconds / clips}


def ours(clips: int) -> Figures:
    from tts_kernel.data.pairs import make_pairs

    utterances = table(make_clips(clips))
    with Stopwatch() as whole:
        pairs = make_pairs(utterances)
    return {"seconds": whole.seconds, "pairs": len(pairs)}


def table(clips: Clips) -> pa.Table:
    return pa.table(
        {
            "id": clips.ids,
            "audio": clips.audio,
            "speaker": clips.speakers,
            "text_len": clips.text_tokens,
            "code_len": clips.codes,
        }
    )


TITLE = "Pairs"
METHOD = """Two prompts per target, of the same speaker and never the target itself, for {utterances:,} utterances.
The plain way draws them with `random.sample` from a dictionary of lists (time scaled from a sample)."""


def run(sizes: Sizes) -> list[Result]:
    clips = sizes.rows // PAIRS_PER_TARGET
    loop = measure(plain, sizes.repeats, clips=sizes.sampled // PAIRS_PER_TARGET)["seconds"] * clips
    columns = measure(ours, sizes.repeats, clips=clips)
    return [
        below(f"{columns['pairs']:,.0f} pairs", columns["seconds"], plain=loop),
        below("peak memory", columns["peak_mb"], None, "MB"),
    ]
