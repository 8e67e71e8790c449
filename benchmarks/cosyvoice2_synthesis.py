"""CosyVoice2 speaks the demo's held-out sentences, whole and streaming: how quickly, and how soon it is heard.

python -m benchmarks.cosyvoice2_synthesis        # writes the section "Synthesis" of docs/benchmarks/cosyvoice2.md
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.cosyvoice2_page import PAGE, put, section, spread
from benchmarks.data.report import row
from tts_kernel.data.pipeline import Encoder, read_lengths
from tts_kernel.data.pipeline.shards import RowReader
from tts_kernel.data.voices.demo import open_demo
from tts_kernel.models.cosyvoice2.config import HiftConfig
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.recipes.cosyvoice2 import prepare, train
from tts_kernel.recipes.cosyvoice2.demo import open_base
from tts_kernel.synthesis.cosyvoice2 import Synthesizer
from tts_kernel.synthesis.voice import Voice

TITLE = "Synthesis"
WIDTH = 128  # of HiFT's first layer, a quarter of the published one
METHOD = (
    "Made by `python -m benchmarks.cosyvoice2_synthesis`: the demo's voice speaks its held-out sentences, one by one "
    "and {count} at once, with the demo's own vocoder, Griffin-Lim, which does not stream, and with a HiFT of a "
    "quarter of the published width, whose untrained weights take as long as trained ones. Whole and streaming take "
    "turns with the same draws. The first sound of a whole synthesis comes with its last. Medians over {count} texts "
    "and {rounds} rounds; in brackets the range of nine of ten. Times are CPU time of one thread, which other programs "
    "hardly change."
)
log = logging.getLogger("benchmarks.cosyvoice2_synthesis")


@dataclass(frozen=True)
class Spoken:
    seconds: float  # that it lasts
    first: float  # seconds until the first sound
    took: float  # seconds


def demo_rows(count: int) -> list[tuple[str, Voice]]:
    """The first held-out sentences of the demo's voice, and it."""
    folder = open_demo()
    lengths = read_lengths(folder / "voice" / "cv", Encoder.of(folder / "bpe.model"))
    reader = RowReader(lengths.paths)
    rows = [reader.row(int(lengths.shards[row]), int(lengths.rows[row])) for row in range(count)]
    return [(values["text"], Voice(torch.from_numpy(values["spk_embedding"]))) for values in rows]


def timed(pieces: Iterator[np.ndarray], sample_rate: int) -> Spoken:
    began = time.process_time()
    first, samples = 0.0, 0
    for piece in pieces:
        first = first or time.process_time() - began
        samples += len(piece)
    return Spoken(samples / sample_rate, first, time.process_time() - began)


def in_one(models: Synthesizer, text: str, voice: Voice, generator: torch.Generator) -> Iterator[np.ndarray]:
    yield models.speak(text, voice, generator).wav


def measure(models: Synthesizer, texts: list[tuple[str, Voice]], rounds: int) -> dict[str, list[Spoken]]:
    """Each text as often as there are rounds, whole and, where it is not the same, streaming; after one that does not
    count."""
    models.speak(*texts[0], torch.Generator().manual_seed(0))
    ways = {"whole": in_one} | ({"streaming": Synthesizer.stream} if isinstance(models.vocoder, HiftGenerator) else {})
    found: dict[str, list[Spoken]] = {way: [] for way in ways}
    for seed in range(rounds):
        for text, voice in texts:
            for way, pieces in ways.items():
                drawn = torch.Generator().manual_seed(seed)
                found[way].append(timed(pieces(models, text, voice, drawn), models.sample_rate))
    return found


def table(models: Synthesizer, rows: list[tuple[str, Voice]], rounds: int) -> list[str]:
    """Lines of the section."""
    torch.manual_seed(0)
    hift = HiftGenerator(HiftConfig(base_channels=WIDTH)).eval()
    together = [(" ".join(text for text, _ in rows), rows[0][1])]
    columns = ("what", "way", "lasts", "first sound after", "sooner", "real-time factor")
    lines = [row(columns), row(["---", "---", *["---:"] * 4])]
    for vocoder, speaking in (("Griffin-Lim", models), ("HiFT", replace(models, vocoder=hift))):
        for what, texts in (("a sentence", rows), (f"{len(rows)} sentences", together)):
            found = measure(speaking, texts, rounds)
            until = {way: statistics.median(one.first for one in spoken) for way, spoken in found.items()}
            for way, spoken in found.items():
                line = (
                    f"{vocoder}, {what}",
                    way,
                    f"{statistics.median(one.seconds for one in spoken):.1f} s",
                    spread([one.first for one in spoken], " s"),
                    "" if way == "whole" else f"{until['whole'] / until[way]:.1f}x",
                    spread([one.took / one.seconds for one in spoken]),
                )
                log.info("%-28s%-12s%8s   %-28s%-8s%s", *line)
                lines.append(row(line))
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cosyvoice2_synthesis", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--sentences", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="times that each is spoken")
    parser.add_argument("--output", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("tts_kernel").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    models = Synthesizer.open(open_base(lambda settings, run: train(prepare(settings, run), run)))
    lines = table(models, demo_rows(given.sentences), given.rounds)
    method = METHOD.format(count=given.sentences, rounds=given.rounds)
    put(given.output, TITLE, section(TITLE, method, lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
