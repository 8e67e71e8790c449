"""Measure the diagnosis of damaged runs on simulated ones, and write the page.

python -m benchmarks.diagnosis --each 100 --output docs/benchmarks/recovery.md
"""

from __future__ import annotations

import argparse
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.data.measure import ROOT
from benchmarks.recovery import figures
from benchmarks.recovery.measure import judge_all, read_all
from benchmarks.recovery.recommend import agreements
from benchmarks.recovery.report import Summary, render

SEED = 1_000_000  # of the page; while thresholds are set, use others
EXAMPLES = 19  # of the pictures, from the first: a seed in which all shapes can be seen

log = logging.getLogger("benchmarks.diagnosis")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.diagnosis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=100, help="histories of every kind")
    parser.add_argument("--phases", type=int, default=200, help="first phases of every kind")
    parser.add_argument("--seed", type=int, default=SEED, help="of the first history")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "recovery.md")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    reads = read_all(options.seed, options.each)
    phases = judge_all(options.seed, options.phases)
    same = agreements(options.seed, options.each)
    pictures = {"examples": figures.examples(options.seed + EXAMPLES), "onset": figures.onsets(reads)}
    pictures["phase_1"] = figures.judgements(phases)
    for folder in (options.images, options.output.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures.items():
        figure.savefig(options.images / f"recovery_{name}.png")
    date, images = f"{datetime.now(UTC):%Y-%m-%d %H:%M}", os.path.relpath(options.images, options.output.parent)
    options.output.write_text(render(reads, phases, same, options.seed, date, images), encoding="utf-8")
    met = Summary.of(reads).met
    for what, reached in met.items():
        log.info("%s: %s", "met" if reached else "missed", what)
    log.info("written: %s", options.output)
    return int(not all(met.values()))


if __name__ == "__main__":
    raise SystemExit(main())
