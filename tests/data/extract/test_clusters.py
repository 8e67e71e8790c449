"""Jobs on real local clusters of two worker processes, one of which is killed in the middle.

One test for each cluster, as tests that run side by side would each start their own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.extract.extractors import broken
from tests.data.extract.jobs import SHARD, check_complete, finished_shards, make_clips, numbered, workers
from tts_kernel.data.extract import Extractor, extract
from tts_kernel.data.extract.backends import JobError

pytestmark = pytest.mark.slow
CLIPS = 30


@pytest.fixture
def ray_address() -> Iterator[str]:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # it would write a token into the user's home
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        try:
            yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture
def dask_address() -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="needs the extra `dask`")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(params=["ray", "dask"])
def backend(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Name and address."""
    return request.param, request.getfixturevalue(f"{request.param}_address")


def kill_a_worker(data: Path, killed: list[int]) -> None:
    """Kill the process that has a shard half-written, once another one is finished."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        unfinished = {int(path.name.split(".")[-2]) for path in (data / "features").glob(".number-*.tmp")}
        at_work = unfinished & workers(data) if (data / "calls.txt").exists() else set()
        if finished_shards(data) and at_work:  # not one that has only just opened its shard
            killed.append(min(at_work))
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.01)


def test_a_killed_worker_loses_no_clip_and_a_bug_stops_the_job(backend: tuple[str, str], tmp_path: Path) -> None:
    name, address = backend
    clips = make_clips(tmp_path, CLIPS)
    (tmp_path / "clip7.wav").write_text("not audio")
    clips.append(("gone", tmp_path / "gone.wav"))
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path, killed))
    killer.start()
    report = extract(clips, tmp_path, numbered(tmp_path, seconds=0.05), backend=name, address=address, shard_size=SHARD)
    killer.join()
    assert killed, "nothing was killed"
    assert killed[0] in workers(tmp_path)
    assert os.getpid() not in workers(tmp_path)
    assert len(workers(tmp_path)) >= 2
    assert (report.made, report.missing, report.unreadable) == (CLIPS - 1, 1, 1)
    check_complete(tmp_path, set(range(CLIPS)) - {7})

    buggy = Extractor(("other",), lambda wav: broken(wav), 22_050)  # a lambda travels, too
    with pytest.raises(TypeError, match="our own bug"):
        extract(clips, tmp_path, buggy, backend=name, address=address, workers=1)
    check_complete(tmp_path, set(range(CLIPS)) - {7})


@pytest.mark.parametrize(("name", "address"), [("ray", "127.0.0.1:1"), ("dask", "tcp://127.0.0.1:1"), ("dask", None)])
def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, name: str, address: str | None) -> None:
    pytest.importorskip("distributed" if name == "dask" else name)
    with pytest.raises(JobError, match="cluster"):
        extract(make_clips(tmp_path, 2), tmp_path, numbered(tmp_path), backend=name, address=address)
