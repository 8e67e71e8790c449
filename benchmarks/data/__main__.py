"""Measure the data layer's targets and write the report.

python -m benchmarks.data --rows 5483856 --output docs/benchmarks/data.md
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import ModuleType

from benchmarks.data import audit, halves, loading, manifest, mel, opening, ordering, pairs, sampling, speakers, store
from benchmarks.data.generate import make_file
from benchmarks.data.measure import ROOT, MeasureError, measure
from benchmarks.data.report import Section, render
from benchmarks.data.result import CLIPS, FAILED, MELS, Result, Sizes

SUBJECTS = [manifest, opening, sampling, ordering, speakers, pairs, store, mel, loading, audit, halves]
NAMES = [subject.__name__.rpartition(".")[2] for subject in SUBJECTS]
BYTES_PER_ROW = 2600  # manifest, import, mel-first manifest, its import, the parts of an import under way
BYTES_PER_CLIP = 400_000  # arrays as .npy and packed, mels of some

log = logging.getLogger("benchmarks.data")


def run(sizes: Sizes, subjects: list[ModuleType]) -> list[Section]:
    """Measure subject after subject; one that fails says so in its table, and the others go on."""
    measure(make_file, 1, path=sizes.manifest, rows=sizes.rows)
    measure(make_file, 1, path=sizes.sample_manifest, rows=sizes.sampled)
    sections = []
    for subject in subjects:
        start = time.perf_counter()
        try:
            results = subject.run(sizes)
        except MeasureError as error:
            results = [Result(f"nothing: {error}", why=FAILED)]
        seconds = time.perf_counter() - start
        sections.append(Section(subject.TITLE, subject.METHOD.format(**sizes.words()), results, seconds))
        for result in results:
            log.info("%s: %s: %s %s %s", subject.TITLE, result.what, result.ours, result.ratio, result.verdict)
        log.info("%s took %.0f s", subject.TITLE, seconds)
    return sections


def check_space(sizes: Sizes) -> None:
    """Raises OSError if the scratch folder's disk is too small."""
    needed = sizes.rows * BYTES_PER_ROW + sizes.clips * BYTES_PER_CLIP + sizes.mels * 4096
    free = shutil.disk_usage(sizes.folder).free
    if free < needed:
        raise OSError(
            f"{sizes.folder}: {free / 1e9:.1f} GB free, expected {needed / 1e9:.1f}; name another folder with "
            "--scratch (SCRATCH=... in make), or fewer --rows"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__.splitlines()[0])
    sizes = Sizes(Path())
    parser.add_argument("--rows", type=int, default=sizes.rows, help="pairs in the manifest; default: the guide's")
    parser.add_argument("--mels", type=int, default=MELS, help="mels to order by")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips in the feature store")
    parser.add_argument("--sample", type=int, default=sizes.sample, help="rows for the plain ways")
    parser.add_argument("--repeats", type=int, default=sizes.repeats, help="runs whose median counts")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for the data; emptied at the end")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "data.md")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="subjects to measure")
    parser.add_argument("--drop-caches", action="store_true", help="cold reads empty the system's caches (root)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-data-", dir=options.scratch) as folder:
        counts = {
            name: getattr(options, name) for name in ("rows", "mels", "clips", "sample", "repeats", "drop_caches")
        }
        sizes = Sizes(Path(folder), **counts)
        check_space(sizes)
        chosen = [subject for subject, name in zip(SUBJECTS, NAMES, strict=True) if name in options.only]
        sections = run(sizes, chosen)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(render(sections, sizes, (before, os.getloadavg()[0])), encoding="utf-8")
    log.info("written: %s", options.output)
    return int(any(result.verdict == FAILED for section in sections for result in section.results))


if __name__ == "__main__":
    raise SystemExit(main())
