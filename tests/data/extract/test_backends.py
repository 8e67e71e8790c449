from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.data.extract.jobs import SHARD, calls, check_complete, finished_shards, make_clips, numbered, workers
from tts_kernel.data.extract import Extractor, backends, extract
from tts_kernel.data.extract import job as extract_job
from tts_kernel.data.extract.backends import JobError
from tts_kernel.data.features import Features
from tts_kernel.data.features.store_lock import StoreError

ROOT = Path(__file__).parents[3]
CLIPS = 40


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.01)


def start_job(data: Path, processes: int) -> subprocess.Popen[bytes]:
    """A job in a process of its own, with one shard finished and more under way."""
    command = [sys.executable, "-m", "tests.data.extract.jobs", str(data), str(CLIPS), str(processes)]
    job = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TQDM_DISABLE": "1"}, stderr=subprocess.PIPE)
    wait_until(lambda: len(finished_shards(data)) >= 1 or job.poll() is not None)
    assert job.poll() is None, job.communicate()[1].decode()
    return job


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_killed_at_once_loses_and_repeats_no_finished_shard(tmp_path: Path, processes: int) -> None:
    clips, job = make_clips(tmp_path, CLIPS), start_job(tmp_path, processes)
    with pytest.raises(StoreError, match=rf"extract extraction.*pid {job.pid}"):
        extract(clips, tmp_path, numbered(tmp_path))
    job.kill()
    job.wait()
    started, before = workers(tmp_path), len(finished_shards(tmp_path)) * SHARD
    assert len(started - {job.pid}) == (0 if processes == 1 else processes)
    assert 0 < before < CLIPS, "it was done before it was killed"
    report = extract(clips, tmp_path, numbered(tmp_path), shard_size=SHARD)
    assert report.made + report.skipped == CLIPS
    assert report.skipped >= before
    check_complete(tmp_path, set(range(CLIPS)))
    repeated = calls(tmp_path).total() - CLIPS
    assert repeated <= processes * SHARD, "more than one shard per worker was done again"
    wait_until(lambda: not any(alive(pid) for pid in started))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_stopped_job_takes_its_workers_along_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    job = start_job(tmp_path, 2)
    job.send_signal(signal.SIGINT)
    said = job.communicate(timeout=60)[1].decode()
    assert "KeyboardInterrupt" in said
    assert not any(alive(pid) for pid in workers(tmp_path))
    assert not list((tmp_path / "features").glob(".*.tmp"))
    stored = Features(tmp_path).lengths("number")["clip"].to_pylist()
    assert len(stored) >= SHARD
    check_complete(tmp_path, {int(clip.removeprefix("clip")) for clip in stored})


def test_a_killed_worker_is_replaced_and_its_clips_are_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    start = backends._start

    def start_and_kill_the_first(*arguments: object) -> object:
        worker = start(*arguments)  # type: ignore[arg-type]
        if not killed:
            wait_until(lambda: worker.shared[1] > 0)  # in the middle of its slice
            killed.append(worker.shared[0])
            os.kill(killed[0], signal.SIGKILL)
        return worker

    monkeypatch.setattr(backends, "_start", start_and_kill_the_first)
    clips = make_clips(tmp_path, 20)
    report = extract(clips, tmp_path, numbered(tmp_path, seconds=0.05), workers=2, shard_size=SHARD)
    assert (report.made, report.unreadable) == (20, 0)
    check_complete(tmp_path, set(range(20)))
    assert killed[0] in workers(tmp_path)
    assert "given to another" in caplog.text


def test_a_clip_that_kills_every_worker_is_found_and_left_out(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, 8)
    report = extract(clips, tmp_path, numbered(tmp_path, deadly=6), workers=2, shard_size=2)
    assert (report.made, report.unreadable) == (7, 1)
    [failure] = report.failures.to_pylist()
    assert failure["clip"] == "clip6"
    assert "worker that decoded it died" in failure["reason"]
    check_complete(tmp_path, set(range(8)) - {6})


class Unloadable:
    """Pickles, but a worker cannot load it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exit, ("not here",)


def test_workers_that_never_begin_stop_the_job(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, 4)
    with pytest.raises(JobError, match="ended before it began"):
        extract(clips, tmp_path, Extractor(("number",), Unloadable(), 22_050), workers=2)  # type: ignore[arg-type]


def test_workers_that_die_over_and_over_stop_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_job, "HOPELESS", 2)
    with pytest.raises(JobError, match="fewer"):
        extract(make_clips(tmp_path, 4), tmp_path, numbered(tmp_path, deadly=0), workers=2)
    assert extract(make_clips(tmp_path, 4), tmp_path, numbered(tmp_path)).made == 4


@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    for name in ("ray", "distributed"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(JobError, match=rf"tts_kernel\[{backend}\]"):
        extract(make_clips(tmp_path, 2), tmp_path, numbered(tmp_path), backend=backend)
