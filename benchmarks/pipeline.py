"""Counting CosyVoice2's batches from lengths, beside processors that go row by row and beside decoding.

python -m benchmarks.pipeline                       # writes the section "Counting" of docs/benchmarks/cosyvoice2.md
python -m benchmarks.pipeline --rows 266 20000 --repeats 1 --output counting.md
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cosyvoice2_page import PAGE, put, section
from benchmarks.data.measure import Figures, Stopwatch, measure
from benchmarks.data.report import row
from tts_kernel.data.pipeline import Lengths, Pipeline, build, count, lengths_of_statistics, read_lengths
from tts_kernel.data.pipeline.shard_lengths import keep_lengths
from tts_kernel.data.pipeline.text import Encoder

TITLE = "Counting"
GUIDE = {"max_length": 40960, "min_length": 0, "token_max_length": 400}
LIMIT, SHUFFLE, SORT = 400, 500, 500
METHOD = (
    "Made by `python -m benchmarks.pipeline`: an epoch's batches with the guide's settings (filter, shuffle "
    f"{SHUFFLE}, sort {SORT}, dynamic batches of {LIMIT} frames), from lengths drawn from statistics. Both ways count "
    "the same batches in one thread; their times are CPU time, which other programs hardly change, targets are by the "
    "clock. Medians, each run in a process of its own."
)
TARGETS = {266: 0.1, 1_000_000: 20.0}  # seconds, of the composition of batches
log = logging.getLogger("benchmarks.pipeline")


def guide_pipeline() -> Pipeline:
    layout: list[tuple[str, dict[str, Any]]] = [("filter", GUIDE), ("shuffle", {"shuffle_size": SHUFFLE})]
    layout += [("sort", {"sort_size": SORT}), ("batch", {"batch_type": "dynamic", "max_frames_in_batch": LIMIT})]
    return build(layout)


def guide_lengths(rows: int) -> Lengths:
    return lengths_of_statistics(rows, 5.9, 0.4, 6.0)


def ours(rows: int) -> Figures:
    """The composition of an epoch, lengths at hand."""
    lengths, pipeline = guide_lengths(rows), guide_pipeline()
    with Stopwatch() as whole:
        batches = len(count(pipeline, lengths))
    return {"seconds": whole.seconds, "cpu": whole.cpu, "batches": batches}


def ours_from_disk(rows: int, folder: str) -> Figures:
    """The same with the lengths read from what was kept of an earlier reading."""
    path, encoder = Path(folder) / "data.list", Encoder(len, "benchmark", "benchmark")  # type: ignore[arg-type]
    (Path(folder) / "shard.tar").touch()
    path.write_text("shard.tar\n", encoding="utf-8")
    keep_lengths(guide_lengths(rows), path, encoder)
    with Stopwatch() as whole:
        batches = len(count(guide_pipeline(), read_lengths(path, encoder)))
    return {"seconds": whole.seconds, "cpu": whole.cpu, "batches": batches}


def plain(rows: int) -> Figures:
    """Processors that take one row after the other, as upstream's do, on lengths instead of audio."""
    lengths = guide_lengths(rows)
    columns = (lengths.samples.tolist(), lengths.text_tokens.tolist(), lengths.frames.tolist())
    with Stopwatch() as whole:
        batches = sum(1 for _ in plain_batches(*columns))
    return {"seconds": whole.seconds, "cpu": whole.cpu, "batches": batches}


def plain_batches(samples: list[int], text: list[int], frames: list[int]) -> Iterator[list[dict[str, int]]]:
    generator = random.Random(1986)
    held: list[dict[str, int]] = []
    shuffled: list[dict[str, int]] = []
    for each in zip(samples, text, frames, strict=True):
        sample = {"samples": each[0], "text": each[1], "frames": each[2]}
        tens = sample["samples"] / 24_000 * 100
        if tens > GUIDE["max_length"] or not 1 <= sample["text"] <= GUIDE["token_max_length"]:
            continue
        if not 0.0005 <= sample["text"] / tens <= 1:
            continue
        held.append(sample)
        if len(held) >= SHUFFLE:
            generator.shuffle(held)
            shuffled += held[: SHUFFLE // 2]
            held = held[SHUFFLE // 2 :]
    generator.shuffle(held)
    shuffled += held
    batch: list[dict[str, int]] = []
    longest = 0
    for start in range(0, len(shuffled), SORT):
        for sample in sorted(shuffled[start : start + SORT], key=lambda sample: sample["frames"]):
            longest = max(longest, sample["frames"])
            if longest * (len(batch) + 1) > LIMIT:
                yield batch
                batch, longest = [], sample["frames"]
            batch.append(sample)
    if batch:
        yield batch


def decoded() -> Figures:
    """An epoch of the demo's batches with their audio, in this process, and the count of them."""
    from tts_kernel.data.pipeline import PipelinePlan
    from tts_kernel.data.pipeline.batches import PipelineDataset
    from tts_kernel.data.sampler import Position
    from tts_kernel.data.voices.demo import open_demo

    demo, pipeline = open_demo(), guide_pipeline()
    encoder = Encoder.of(demo / "bpe.model")
    lengths = read_lengths(demo / "data.list", encoder)
    with Stopwatch() as counting:
        batches = len(count(pipeline, lengths))
    data, read = PipelineDataset(pipeline, lengths, encoder), 0
    with Stopwatch() as whole:
        for planned in PipelinePlan(pipeline, lengths).epoch(Position()):
            read += len(data[planned].ids)
    assert read == len(lengths)
    figures = {"cpu": counting.cpu, "seconds": counting.seconds, "decoding": whole.cpu}
    return {**figures, "batches": batches, "rows": len(lengths)}


def table(rows: list[int], repeats: int) -> list[str]:
    """Lines of the section."""
    from benchmarks import pipeline as here  # by its name: a measured function is called in a process of its own

    lines = [row(("what", "row by row", "ours", "ratio", "by the clock", "target", "peak memory", "result"))]
    lines.append(row(["---", *["---:"] * 6, "---"]))
    for number in rows:
        slow, quick = (measure(function, repeats, rows=number) for function in (here.plain, here.ours))
        assert slow["batches"] == quick["batches"], "the two count differently"
        what = f"{number:,} utterances, {quick['batches']:,.0f} batches"
        target = TARGETS.get(number)
        lines.append(_line(what, slow["cpu"], quick, target))
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder:
        quick = measure(here.ours_from_disk, repeats, rows=max(rows), folder=folder)
        lines.append(_line(f"{max(rows):,} utterances with their kept lengths read from disk", None, quick, None))
    full = measure(here.decoded, repeats)
    what = f"the demo's {full['rows']:,.0f} utterances, {full['batches']:,.0f} batches: decoded, beside counted"
    lines.append(_line(what, full["decoding"], full, None))
    return lines


def _line(what: str, slow: float | None, quick: Figures, target: float | None) -> str:
    ratio = f"{slow / quick['cpu']:.1f}x" if slow else ""
    verdict = "" if target is None else "met" if quick["seconds"] < target else "**missed**"
    aim = "" if target is None else f"< {target:g} s"
    times = (_said(slow) if slow else "", _said(quick["cpu"]), ratio, _said(quick["seconds"]), aim)
    return row((what, *times, f"{quick['peak_mb']:.0f} MB", verdict))


def _said(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[266, 100_000, 1_000_000], help="utterances")
    parser.add_argument("--repeats", type=int, default=3, help="runs whose median counts")
    parser.add_argument("--output", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lines = table(given.rows, given.repeats)
    put(given.output, TITLE, section(TITLE, METHOD, lines))
    for line in lines:
        log.info(line)
    return int(any("missed" in line for line in lines))


if __name__ == "__main__":
    raise SystemExit(main())
