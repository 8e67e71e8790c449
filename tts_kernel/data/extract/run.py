"""Extract arrays from audio, one per clip: parallel, resumable, with every failure named.

Clips that have their array are skipped, packed or as .npy; the others become shards of a few thousand clips in
`features/` (see data/features/shards.py), which appear whole or not at all. So a job that was stopped or killed is
started again with the same command and redoes at most one unfinished shard per worker. From the command line it
extracts the mels that a manifest's targets still miss, and puts the pairs that have one first in the mel manifest:

    python -m tts_kernel.data.extract DATA --workers 32 --limit 500000
    python -m tts_kernel.data.extract DATA --backend dask --address tcp://head:8786
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import signal
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
from tqdm.auto import tqdm

from tts_kernel.data.extract.backends import BACKENDS, JobError, run
from tts_kernel.data.extract.clip_list import listed, targets
from tts_kernel.data.extract.clip_work import Extractor, Work
from tts_kernel.data.extract.job import ExtractionReport, Job
from tts_kernel.data.features import FeatureError
from tts_kernel.data.features.features import FOLDER, Features
from tts_kernel.data.features.store_lock import WORKERS, StoreError, locked, remove_unfinished, writing
from tts_kernel.data.files import UnsafePathError
from tts_kernel.data.manifest import ManifestError, read_manifest
from tts_kernel.data.ordering import MEL_MANIFEST, TRAIN, order_mel_first

SHARD_SIZE = 4096  # clips
SHOWN = 10  # reasons in the summary

log = logging.getLogger(__name__)


def extract(
    clips: pa.Table | Iterable[tuple[str, Path]],
    data: Path,
    extractor: Extractor,
    *,
    audio_root: Path | None = None,
    workers: int | None = None,
    limit: int | None = None,
    shard_size: int = SHARD_SIZE,
    half: bool = False,
    backend: str = "local",
    address: str | None = None,
    desc: str = "extract",
) -> ExtractionReport:
    """Store the extractor's kinds in `data` for every clip that lacks one of them.

    `clips` has the columns clip and audio, or is (clip, audio path) pairs; relative paths start at `audio_root`, which
    is `data` if not given. At most `limit` clips are made. `half` stores floating point values as float16. `backend`
    "local" works in this process or in `workers` fresh ones; "ray" and "dask" on the cluster at `address`, with
    `workers` slices at a time (None: as many as it has CPUs).
    A missing or unreadable file is a row of the report and of its table, not an exception.
    Raises StoreError if another job writes there or the disk is full, JobError if the workers or the cluster fail,
    UnsafePathError before any work if a clip's name would leave its folder, ValueError if a setting is out of range.
    """
    _check(workers, limit, shard_size, backend, address)
    data, audio_root = Path(data), Path(audio_root or data)
    store, columns = data / FOLDER, listed(clips)
    work = Work(store, audio_root, extractor, half)
    with writing(store, f"{desc} extraction"):
        job = Job(columns, data, extractor.kinds, audio_root, limit=limit, shard_size=shard_size, workers=workers or 1)
        try:
            with (
                tqdm(total=job.expected, desc=desc, unit="clip", smoothing=0.05) as bar,
                closing(run(work, job.pull, bar.update, backend, workers, address)) as finished,
            ):
                for todo, outcome in finished:
                    job.note(todo, outcome)
                    bar.total = job.expected
                    bar.set_postfix_str(job.describe())
        finally:
            _sweep(store)
            job.save()
    return job.report()


def extract_mels(clips: pa.Table | Iterable[tuple[str, Path]], data: Path, **options: Any) -> ExtractionReport:
    """`extract` with the mel of IndexTTS-2's stage 2: float32 (frames, 80) at 22,050 Hz."""
    from tts_kernel.audio.spectrogram import indextts2_mel

    mel = indextts2_mel().clip_mel()
    return extract(clips, data, Extractor(("mel",), mel, mel.sample_rate), desc="mel", **options)


def _check(workers: int | None, limit: int | None, shard_size: int, backend: str, address: str | None) -> None:
    problems = []
    if backend not in BACKENDS:
        problems.append(f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
    if backend == "local" and address is not None:
        problems.append(f"address is {address!r}, expected none with the backend 'local'")
    for name, value, low in (("workers", workers, 1), ("limit", limit, 0), ("shard_size", shard_size, 1)):
        if value is not None and value < low:
            problems.append(f"{name} is {value}, expected at least {low}")
    if problems:
        raise ValueError("; ".join(problems))


def _sweep(store: Path) -> None:
    """Remove what killed workers of this job left half-written, unless one is still at it."""
    with locked(store / WORKERS, fcntl.LOCK_EX) as (_, alone):
        if alone:
            remove_unfinished(store)


def main(arguments: list[str] | None = None) -> int:
    """Extract the mels that a manifest's targets miss, then bring the mel-first manifest up to date with them.
    Returns 1 if audio was unreadable, a shard is damaged or the job could not go on, 130 if it was stopped, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tts_kernel.data.extract", description="Extract the mels that a manifest's targets still miss."
    )
    parser.add_argument("data", type=Path, help="data folder; mels go to shards in its features/")
    parser.add_argument("--manifest", default=TRAIN, help="pair manifest in the data folder")
    parser.add_argument("--workers", type=int, help="processes; on a cluster slices at a time (all its CPUs)")
    parser.add_argument("--limit", type=int, help="mels to make at most")
    parser.add_argument("--shard-size", type=int, default=SHARD_SIZE, help="clips in a file (%(default)s)")
    parser.add_argument("--half", action="store_true", help="store float16: half the space")
    parser.add_argument("--backend", choices=BACKENDS, default="local", help="where to work (%(default)s)")
    parser.add_argument("--address", help="of the Ray or Dask cluster")
    parser.add_argument("--allow-outside-paths", action="store_true", help="follow audio paths that leave the folder")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        report = extract_mels(
            targets(read_manifest(options.data / options.manifest, allow_outside=options.allow_outside_paths)),
            options.data,
            workers=options.workers,
            limit=options.limit,
            shard_size=options.shard_size,
            half=options.half,
            backend=options.backend,
            address=options.address,
        )
    except KeyboardInterrupt:
        log.error("stopped; finished shards stay, the same command goes on from here")
        return 130
    except (StoreError, JobError) as error:
        log.error("%s\nFinished shards stay, the same command goes on from here", error)
        return 1
    except (ManifestError, FeatureError, UnsafePathError, ValueError) as error:
        log.error("%s", error)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    for line in _summary(report):
        log.info("%s", line)
    damaged = Features(options.data).problems
    for line in damaged:
        log.warning("%s", line)
    if options.manifest != TRAIN:
        log.info("%s stays as it is: only %s is put in order", MEL_MANIFEST, TRAIN)
        return int(bool(report.unreadable or damaged))
    try:
        ordered = order_mel_first(options.data, TRAIN, allow_outside=options.allow_outside_paths)
    except ManifestError as error:
        log.error("the mels are made, but %s could not be brought up to date:\n%s", MEL_MANIFEST, error)
        return 1
    log.info("%s: %s", options.data / MEL_MANIFEST, ordered)
    return int(bool(report.unreadable or damaged))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _summary(report: ExtractionReport) -> Iterable[str]:
    yield f"mel: {report}"
    if report.made:
        rate = report.made / report.wall_seconds
        yield f"{rate:,.0f} clips/s, {report.audio_seconds / report.wall_seconds:,.0f}x real time"
    if len(report.failures):
        counts = report.failures.group_by(["status", "reason"]).aggregate([("clip", "count"), ("clip", "min")])
        for row in counts.sort_by([("clip_count", "descending")]).slice(0, SHOWN).to_pylist():
            yield f"  {row['clip_count']} {row['status']}: {row['reason']} (such as {row['clip_min']})"
        yield f"every one of them: {report.table}"
