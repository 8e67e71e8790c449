"""MeloTTS's training beside the loop that it is usually trained by (melotts_plain.py): clips per second, and alignment.

python -m benchmarks.melotts                      # writes docs/benchmarks/melotts.md, 10 minutes
python -m benchmarks.melotts --sizes demo --rounds 1 --output melotts.md
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import soundfile
import torch

from benchmarks import melotts_plain
from benchmarks.data.measure import ROOT, Figures, measure
from benchmarks.data.report import COLUMNS, row
from benchmarks.data.result import Result, faster, more
from benchmarks.melotts_plain import Step
from benchmarks.training.report import machine
from tts_kernel.audio.wav import read, write
from tts_kernel.data.sampler import Position
from tts_kernel.data.spoken.clips import HOP
from tts_kernel.data.spoken.sounds import RATE
from tts_kernel.models.melotts.alignment import monotonic_durations
from tts_kernel.recipes import melotts as recipe
from tts_kernel.recipes.melotts import Prepared, Settings
from tts_kernel.recipes.melotts import model as networks
from tts_kernel.recipes.melotts.demo import WIDTH, open_demo
from tts_kernel.recipes.melotts.objective import VoiceObjective
from tts_kernel.runs import Run

AT_LEAST, AIM = 1.0, 1.5  # times the plain loop's clips
ALIGNED = (6, 500, 120)  # batch, frames, tokens
log = logging.getLogger("benchmarks.melotts")

METHOD = """Both loops train the same networks from the same weights, in batches of {batch} clips and segments of 16,384
samples, float32, one thread, in one process that reads its own batches; each run is an epoch in a process of its own,
its caches on the disk as an epoch before leaves them, and both take turns in {rounds} rounds; medians. An epoch's clips
are batches of a larger corpus, taken evenly from all lengths. "Plain" is MeloTTS's loop as its facts and
`benchmarks/melotts_plain.py` describe it; the clips that it repeats to fill its last batches count as clips. "Ours" is
the recipe's own run with its guards and metrics, logging every step. Seconds are of processor time, which other
programs hardly change."""


@dataclass(frozen=True)
class Size:
    """What is trained, on clips that are put together of the demo's."""

    title: str
    clips: int  # of an epoch, in whole batches
    pool: int  # clips that they are taken from
    joined: int = 1  # demo clips one after the other, at most
    model: dict[str, Any] = field(default_factory=dict)  # of config_bge_m3.json; nothing for the demo's own sizes
    narrow: int = networks.NARROW  # what part of the published widths the discriminators have


_MIDDLE = {
    "inter_channels": 32,
    "hidden_channels": 96,
    "filter_channels": 192,
    "n_layers": 4,
    "gin_channels": 64,
    "resblock_kernel_sizes": (3, 5),
    "resblock_dilation_sizes": ((1, 3), (1, 3)),
    "upsample_initial_channel": 96,
    "bert_channels": WIDTH,
}
SIZES = {
    "demo": Size("demo networks, clips of 1.4 to 2.9 s", 54, 104),
    "middle": Size("twice as wide, clips of 1.4 to 8 s", 42, 420, 3, _MIDDLE, narrow=4),
}


def make_data(data: str, size: str, clips: int) -> Figures:
    """Lists and recordings at 44.1 kHz, and everything that both loops keep on the disk."""
    folder, demo, chosen = Path(data), open_demo(), SIZES[size]
    (folder / "wavs").mkdir(parents=True)
    lines = _joined(demo, folder, clips or chosen.clips, chosen)
    (folder / "train_list.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "val_list.txt").write_text("".join(lines[:2]), encoding="utf-8")
    shutil.copytree(demo / "bge-m3", folder / "bge-m3")
    if chosen.model:
        values = {"train": {}, "data": {}, "model": chosen.model}
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    ready, _ = prepared(data, size, f"{data}-run", 0)
    melotts_plain.write_files(ready)
    return {"clips": len(ready.corpus.train)}


def _joined(demo: Path, folder: Path, count: int, chosen: Size) -> list[str]:
    """Lines of a list. Of the pool's clips, each of one to `joined` of a speaker's one after the other, those of some
    batches, taken evenly from all lengths: a large corpus in small, in which a clip finds others of its length."""
    of_speaker: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for line in (demo / "train_list.txt").read_text(encoding="utf-8").splitlines():
        name, text, speaker, code = line.split("|")
        of_speaker[speaker, code].append((name, text))
    kinds, pool = sorted(of_speaker), []
    for number in range(chosen.pool):
        turn, kind = divmod(number, len(kinds))
        own = of_speaker[kinds[kind]]
        parts = [own[(turn + place) % len(own)] for place in range(turn % chosen.joined + 1)]
        pool.append((sum(soundfile.info(str(demo / name)).duration for name, _ in parts), number, kinds[kind], parts))
    pool.sort()
    batch = Settings().batch_size
    whole, batches = len(pool) // batch, -(-count // batch)
    starts = [int((place + 0.5) / batches * whole) * batch for place in range(batches)]
    lines = []
    for _, number, (speaker, code), parts in [clip for start in starts for clip in pool[start : start + batch]][:count]:
        wave = np.concatenate([read(demo / name, RATE)[0] for name, _ in parts])
        write(folder / "wavs" / f"{number:03d}.wav", wave, RATE)
        lines.append(f"wavs/{number:03d}.wav|{' '.join(text for _, text in parts)}|{speaker}|{code}\n")
    return lines


def prepared(data: str, size: str, run: str, round_number: int) -> tuple[Prepared, Run]:
    folder = Run(Path(run))
    folder.checkpoints.mkdir(parents=True)
    settings = Settings(
        data=data,
        encoder=f"{data}/bge-m3",
        store=f"{data}/store",
        config=f"{data}/config.json" if SIZES[size].model else "",
        model="demo",
        n_speakers=8,
        epochs=1,
        log_every=1,
        validate_every=1_000_000,
        save_every=1_000_000,
        keep_checkpoints=1,
        keep_best=0,
        samples=0,
        aim=False,
        device="cpu",
        precision="float32",
        seed=round_number,
    )
    return recipe.prepare(settings, folder), folder


def plain(data: str, size: str, run: str, round_number: int) -> Figures:
    """An epoch of the plain loop."""
    torch.set_num_threads(1)
    ready, _ = prepared(data, size, run, round_number)
    with mock.patch.object(networks, "NARROW", SIZES[size].narrow):
        built = networks.build_networks(ready.settings, ready.config, ready.symbols, ready.corpus.speakers, "")
    return _figures(melotts_plain.train(ready, built, round_number))


def ours(data: str, size: str, run: str, round_number: int) -> Figures:
    """An epoch of the recipe."""
    torch.set_num_threads(1)
    ready, folder = prepared(data, size, run, round_number)
    marks, summary = list[tuple[float, float]](), VoiceObjective.summary
    batches = [planned.rows for planned in ready.plan.epoch(Position())]

    def noting(self: VoiceObjective, split: Literal["train", "val"], means: Mapping[str, float]) -> dict[str, float]:
        if len(marks) <= len(batches):  # after the validation before the first update, then after every update
            marks.append((time.process_time(), time.perf_counter()))
        return summary(self, split, means)

    with (
        mock.patch.object(networks, "NARROW", SIZES[size].narrow),
        mock.patch.object(VoiceObjective, "summary", noting),
    ):
        recipe.train(ready, folder)
    lengths = ready.corpus.train.frames
    assert sorted(np.concatenate(batches)) == list(range(len(lengths))), "an epoch has lost clips"
    done = [Step(*marks[0])]
    for mark, rows in zip(marks[1:], batches, strict=True):
        done.append(Step(*mark, len(rows), int(lengths[rows].sum()), int(lengths[rows].max()) * len(rows)))
    return _figures(done)


def _figures(done: Sequence[Step]) -> Figures:
    """Of all updates; the first of `done` says when they began."""
    cpu, clock = done[-1].cpu - done[0].cpu, done[-1].clock - done[0].clock
    clips, frames, padded = (sum(getattr(step, name) for step in done[1:]) for name in ("clips", "frames", "padded"))
    return {
        "clips": clips / cpu,
        "audio": frames * HOP / RATE / cpu,
        "clips_by_clock": clips / clock,
        "padding": 1.0 - frames / padded,
    }


def trained(folder: Path, size: str, rounds: int, clips: int = 0) -> list[Result]:
    """Both loops in turns."""
    from benchmarks import melotts as here  # by its name: a measured function is called in a process of its own

    data, judged = str(folder / size), not clips
    measure(here.make_data, 1, data=data, size=size, clips=clips)
    found: dict[str, list[Figures]] = {"plain": [], "ours": []}
    for number in range(rounds):
        turns: Sequence[tuple[str, Callable[..., Figures]]] = (("plain", here.plain), ("ours", here.ours))
        for name, function in turns if number % 2 == 0 else reversed(turns):
            run = folder / f"{size}-{name}-{number}"
            found[name].append(measure(function, 1, data=data, size=size, run=run, round_number=number))
            log.info("%s, round %d, %s: %s", size, number + 1, name, found[name][-1])
            shutil.rmtree(run)
    return _compared(SIZES[size].title, found["plain"], found["ours"], judged)


def _compared(title: str, plain_runs: Sequence[Figures], our_runs: Sequence[Figures], judged: bool) -> list[Result]:
    first, second = (
        {
            key: statistics.median(figures[key] for figures in runs)
            for key in ("clips", "audio", "clips_by_clock", "padding")
        }
        for runs in (plain_runs, our_runs)
    )
    ratios = [own["clips"] / other["clips"] for other, own in zip(plain_runs, our_runs, strict=True)]
    return [
        more(f"{title}: clips", first["clips"], second["clips"], AT_LEAST, judged=judged),
        more(f"{title}: seconds of audio", first["audio"], second["audio"]),
        more(f"{title}: clips, by the clock", first["clips_by_clock"], second["clips_by_clock"]),
        Result(f"{title}: padding", f"{first['padding']:.0%}", f"{second['padding']:.0%}"),
        Result(f"{title}: clips, ratios of the rounds", ratio=", ".join(f"{ratio:.2f}x" for ratio in ratios)),
    ]


def aligned(rounds: int) -> list[Result]:
    """The search alone, both in turns in this process."""
    batch, frames, tokens = ALIGNED
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(ALIGNED, generator=generator)
    lengths = torch.full((batch,), tokens), torch.full((batch,), frames)
    ways = {"plain": melotts_plain.plain_durations, "ours": monotonic_durations}
    found = {name: way(scores, *lengths) for name, way in ways.items()}  # compiles
    assert torch.equal(found["plain"], found["ours"]), "the two align differently"
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way(scores, *lengths)
            times[name].append(time.perf_counter() - begun)
    first, second = (statistics.median(times[name]) for name in ways)
    return [faster(f"alignment search, {batch} x {frames} frames x {tokens} tokens", first, second, AT_LEAST)]


def page(results: Sequence[Result], rounds: int, minutes: float, load: float) -> str:
    """Markdown."""
    judged = [result for result in results if result.met is not None]
    beyond = [result for result in judged if float(result.ratio.removesuffix("x")) >= AIM]
    lines = [
        "# MeloTTS, measured",
        "",
        "Made by `python -m benchmarks.melotts`.",
        "",
        f"**{sum(bool(result.met) for result in judged)} of {len(judged)} targets met**; {len(beyond)} of them reach "
        f"the aim beyond, {AIM:g}x.",
        "",
        f"Machine: {machine()}.",
        "",
        "## Training and alignment",
        "",
        " ".join(METHOD.format(batch=Settings().batch_size, rounds=rounds).split()),
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC in {minutes:.1f} minutes, after a load of {load:.1f}.",
        "",
        row(COLUMNS),
        row(["---", *["---:"] * 4, "---"]),
        *(row((one.what, one.plain, one.ours, one.ratio, one.target, one.verdict)) for one in results),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.melotts", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3, help="whose median counts")
    parser.add_argument("--clips", type=int, default=0, help="of an epoch, fewer than is judged by; 0 for all")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for data and runs; emptied at the end")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "melotts.md")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    load, begun, results = os.getloadavg()[0], time.perf_counter(), aligned(100)
    for size in given.sizes:
        with tempfile.TemporaryDirectory(prefix="bench-melotts-", dir=given.scratch) as folder:
            results += trained(Path(folder), size, given.rounds, given.clips)
    minutes = (time.perf_counter() - begun) / 60
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(page(results, given.rounds, minutes, load), encoding="utf-8")
    for result in results:
        log.info("%s: %s, %s, %s %s", result.what, result.plain, result.ours, result.ratio, result.verdict)
    return int(any(result.met is False for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
