"""Measure the training engine and write the report.

python -m benchmarks.training --only throughput losses --output docs/benchmarks/training.md

Each piece is kept when it has been measured, so a run that was ended goes on with --resume.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from benchmarks.data.measure import ROOT, MeasureError
from benchmarks.data.result import FAILED, Result
from benchmarks.training import checkpoints, deaths, gpu, losses, overhead, processes, throughput
from benchmarks.training.report import Piece, machine, render
from benchmarks.training.sizes import Sizes
from tts_kernel.runs import runs_folder

SUBJECTS = [throughput, losses, overhead, checkpoints, deaths, processes, gpu]
NAMES = [subject.__name__.rpartition(".")[2] for subject in SUBJECTS]
BYTES = 6_000_000_000  # of scratch that a piece needs at most, checkpoints included

log = logging.getLogger("benchmarks.training")


def measured(subject: ModuleType, name: str, sizes: Sizes) -> Piece:
    """One piece; a subject that fails says so in its table."""
    load, begun, date = os.getloadavg()[0], time.perf_counter(), f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    try:
        results = subject.run(sizes)
    except MeasureError as error:
        results = [Result(f"nothing: {error}", why=FAILED)]
    minutes = (time.perf_counter() - begun) / 60
    for result in results:
        log.info("%s: %s: %s, %s, %s %s", name, result.what, result.plain, result.ours, result.ratio, result.verdict)
    log.info("%s took %.1f minutes", name, minutes)
    return Piece(name, subject.TITLE, subject.METHOD.format(**sizes.words()), date, machine(), minutes, load, results)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = Sizes(Path())
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="pieces to measure")
    parser.add_argument("--resume", action="store_true", help="leave out what has been measured")
    for name, text in (
        ("pairs", "of the corpus"),
        ("steps", "batches in a round"),
        ("rounds", "whose median counts"),
        ("seeds", "whose losses are compared"),
        ("overhead-steps", "of a small model in a round"),
        ("kills", "of a run"),
    ):
        parser.add_argument(f"--{name}", type=int, default=getattr(sizes, name.replace("-", "_")), help=text)
    parser.add_argument("--gigabytes", type=float, default=sizes.gigabytes, help="of a checkpoint")
    parser.add_argument("--shape", choices=("large", "small"), default=sizes.shape, help="of the measured model")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for data and runs; emptied at the end")
    parser.add_argument("--kept", type=Path, default=None, help="folder of the measured pieces")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "training.md")
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    only, resume, scratch, output = (options.pop(name) for name in ("only", "resume", "scratch", "output"))
    kept = options.pop("kept") or runs_folder() / "bench-training"
    for subject, name in zip(SUBJECTS, NAMES, strict=True):
        if name not in only or (resume and (kept / f"{name}.json").exists()):
            continue
        with tempfile.TemporaryDirectory(prefix="bench-training-", dir=scratch) as folder:
            free = shutil.disk_usage(folder).free
            if free < BYTES:
                raise OSError(f"{folder}: {free / 1e9:.1f} GB free, expected {BYTES / 1e9:.0f}; name another --scratch")
            measured(subject, name, Sizes(Path(folder), **options)).save(kept)
    pieces = [Piece.read(kept / f"{name}.json") for name in NAMES if (kept / f"{name}.json").exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render(pieces), encoding="utf-8")
    log.info("written: %s", output)
    return int(any(result.verdict == FAILED for piece in pieces for result in piece.results))


if __name__ == "__main__":
    raise SystemExit(main())
