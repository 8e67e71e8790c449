"""Extract one array per clip: parallel, resumable, with every failure named.

A clip whose array exists is skipped, an array appears whole or not at all, so a job that was stopped is started again
with the same command. From the command line it extracts the mels that a manifest's targets still miss, and puts the
pairs that have one first in the mel manifest:

    python -m tts_kernel.data.extract DATA --workers 32 --limit 500000
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from tts_kernel.audio import wav as audio
from tts_kernel.audio.wav import AudioError, Hz
from tts_kernel.data.files import inside, save_array
from tts_kernel.data.manifest import ManifestError, read_manifest
from tts_kernel.data.ordering import MEL_MANIFEST, order_mel_first

CHUNK = 32  # clips per task of a worker: the extractor itself travels once per task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractionReport:
    """What an extraction did. made + skipped + missing + unreadable + left = the clips it was given."""

    made: int
    skipped: int  # their array was there before
    missing: int  # no such audio file
    unreadable: int  # audio that cannot be decoded, or that the extractor refuses
    left: int  # not tried, because of the limit
    failures: tuple[tuple[str, str], ...]  # (clip id, reason) of every missing or unreadable clip

    def __str__(self) -> str:
        return (
            f"{self.made} made, {self.skipped} skipped, {self.missing} missing audio, {self.unreadable} unreadable, "
            f"{self.left} left"
        )


def extract(
    clips: Iterable[tuple[str, Path]],
    folder: Path,
    compute: Callable[[np.ndarray], np.ndarray],
    sample_rate: Hz,
    workers: int = 1,
    limit: int | None = None,
    desc: str = "extract",
) -> ExtractionReport:
    """Write `folder/<clip id>.npy` = compute(samples at `sample_rate`) for every (clip id, audio path) without one.

    `compute` maps (samples,) float32 to an array and must be picklable when `workers` > 1: workers are started fresh
    (spawn) with one torch thread each. At most `limit` clips with audio are tried, those left are counted. A missing
    or unreadable file is a row of the report, not an exception.
    Raises UnsafePathError before any work if an id would leave the folder, ValueError if a setting is out of range.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1")
    if limit is not None and limit < 0:
        raise ValueError(f"limit is {limit}, expected 0 or more, or None for no limit")
    folder = Path(folder)
    wanted = [(clip, Path(path), _array_path(folder, clip)) for clip, path in clips]
    needed = [job for job in wanted if not job[2].exists()]
    todo = [job for job in needed if job[1].is_file()]
    # Apart, so that clips without audio cannot use up the limit of every run.
    missing = [(clip, f"{path}: no such audio file") for clip, path, _ in needed if not path.is_file()]
    chosen = todo if limit is None else todo[:limit]
    for parent in {job[2].parent for job in chosen}:
        parent.mkdir(parents=True, exist_ok=True)

    unreadable: list[tuple[str, str]] = []
    with tqdm(total=len(chosen), desc=desc, unit="clip") as bar:
        for clip, problem in _run(chosen, compute, sample_rate, workers):
            bar.update()
            if problem is not None:
                unreadable.append((clip, problem))
    return ExtractionReport(
        made=len(chosen) - len(unreadable),
        skipped=len(wanted) - len(needed),
        missing=len(missing),
        unreadable=len(unreadable),
        left=len(todo) - len(chosen),
        failures=(*missing, *unreadable),
    )


def extract_mels(
    clips: Iterable[tuple[str, Path]], folder: Path, workers: int = 1, limit: int | None = None
) -> ExtractionReport:
    """`extract` with the mel of IndexTTS-2's stage 2: float32 (frames, 80) at 22,050 Hz."""
    from tts_kernel.audio.spectrogram import indextts2_mel

    mel = indextts2_mel()
    return extract(clips, folder, mel.of_clip, mel.sample_rate, workers, limit, desc="mel")


Job = tuple[str, Path, Path]  # clip id, audio path, array path
Outcome = tuple[str, str | None]  # clip id, what went wrong


def _run(
    jobs: list[Job], compute: Callable[[np.ndarray], np.ndarray], sample_rate: Hz, workers: int
) -> Iterator[Outcome]:
    if workers == 1 or len(jobs) <= CHUNK:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker, so that the arrays do not depend on `workers`
        try:
            yield from (_make(job, compute, sample_rate) for job in jobs)
        finally:
            torch.set_num_threads(threads)
        return
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch threads may hang
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context) as pool:
        for outcomes in pool.map(partial(_make_chunk, compute=compute, sample_rate=sample_rate), chunks):
            yield from outcomes


def _make_chunk(jobs: list[Job], compute: Callable[[np.ndarray], np.ndarray], sample_rate: Hz) -> list[Outcome]:
    import torch

    torch.set_num_threads(1)  # N workers with N threads each would fight for N cores
    return [_make(job, compute, sample_rate) for job in jobs]


def _make(job: Job, compute: Callable[[np.ndarray], np.ndarray], sample_rate: Hz) -> Outcome:
    clip, audio_path, array_path = job
    try:
        samples, _ = audio.read(audio_path, sample_rate)
        array = compute(samples)
        if not np.isfinite(array).all():
            raise AudioError(f"{audio_path}: the extracted array is not finite")
    except (FileNotFoundError, ValueError) as error:  # AudioError, or the extractor's own word on this clip
        return clip, str(error)  # anything else is our bug and stops the job
    save_array(array_path, array)
    return clip, None


def _array_path(folder: Path, clip: str) -> Path:
    path = inside(folder, clip)
    return path.with_name(path.name + ".npy")


def _targets(data: Path, manifest: str) -> Iterator[tuple[str, Path]]:
    """(target id, audio path) of a pair manifest, each target once. Raises ManifestError listing every bad line."""
    pairs = read_manifest(data / manifest)
    if not pairs.has("target_audio_path").all():
        raise ManifestError([f"{pairs.path}: rows without target_audio_path; expected the audio of every target"])
    columns = (pairs.strings(name).to_pylist() for name in ("target_id", "target_audio_path"))
    for clip, path in dict(zip(*columns, strict=True)).items():
        yield clip, inside(data, path)


def main(arguments: list[str] | None = None) -> int:
    """Extract the mels that a manifest's targets miss, then bring the mel-first manifest up to date with them.
    Returns 1 if audio was unreadable, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tts_kernel.data.extract", description="Extract the mels that a manifest's targets still miss."
    )
    parser.add_argument("data", type=Path, help="data folder; mels go to its mel/")
    parser.add_argument("--manifest", default="gpt_pairs_train.jsonl", help="pair manifest in the data folder")
    parser.add_argument("--workers", type=int, default=1, help="processes, one torch thread each")
    parser.add_argument("--limit", type=int, default=None, help="clips to try at most")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    targets = _targets(options.data, options.manifest)
    report = extract_mels(targets, options.data / "mel", options.workers, options.limit)
    for clip, reason in report.failures:
        log.warning("%s: %s", clip, reason)
    log.info("%s", report)
    log.info("%s: %s", options.data / MEL_MANIFEST, order_mel_first(options.data, options.manifest))
    return 1 if report.unreadable else 0


if __name__ == "__main__":
    raise SystemExit(main())
