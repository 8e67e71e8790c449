"""An extraction job on a cluster that is running already: Ray or Dask, both optional extras.

Every node needs this package in the same versions and sees the data folder under the same path. A slice travels as
two Arrow columns, its arrays never travel: the worker writes the shard. Progress moves a shard at a time.
"""

from __future__ import annotations

import logging
import pickle
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tts_kernel.data.extract.backends import Died, Finished, JobError, Pull, Tick
from tts_kernel.data.extract.clip_work import Outcome, Slice, Work, make_shard, one_thread
from tts_kernel.data.features.shards import index_path
from tts_kernel.data.features.store_lock import StoreError

LOOK = 1.0  # seconds between two looks at what is finished
PATIENCE = 10.0  # seconds for a scheduler to answer


def remote_shard(packed: bytes, todo: Slice) -> Outcome:
    """What a node runs. It gets its own copy of the extractor, whose buffers serve one thread."""
    work = pickle.loads(packed)
    with one_thread():
        try:
            return make_shard(todo, work)
        except StoreError:
            if not index_path(work.store / f"{todo.name}.tar").exists():
                raise
            return make_shard(todo, work)  # one that was given up for lost has finished it meanwhile


def on_ray(work: Work, pull: Pull, tick: Tick, workers: int | None, address: str | None) -> Finished:
    """`workers` slices at a time, None: one for each of the cluster's CPUs. `address` None: the cluster that this
    process is connected to, else the one that runs on this machine.
    Raises JobError if Ray is not installed or there is no such cluster."""
    try:
        import ray
    except ImportError as error:
        raise JobError(f'backend "ray" needs the extra `ray` ({error}): pip install "tts_kernel[ray]"') from error
    connected = ray.is_initialized()
    if not connected:
        try:
            _check_reachable(address)  # Ray would try for five minutes
            ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, ValueError, RuntimeError) as error:
            raise JobError(
                f"no Ray cluster at {address or 'this machine'} ({error}); start one with `ray start --head` or name "
                "its address"
            ) from error
    running: dict[Any, Slice] = {}
    try:
        packed = ray.put(ray.cloudpickle.dumps(work))
        # What was lost is started again by the job, which counts how often.
        remote = ray.remote(num_cpus=1, max_retries=0)(remote_shard)
        at_once = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        while True:
            while len(running) < at_once and (todo := pull()) is not None:
                running[remote.remote(packed, todo)] = todo
            if not running:
                return
            finished, _ = ray.wait(list(running), timeout=LOOK)
            for reference in finished:
                todo = running.pop(reference)
                outcome: Outcome | Died
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayError as error:  # worker, node or object lost
                    outcome = Died(str(error).partition("\n")[0])
                else:
                    tick(len(todo))
                yield todo, outcome
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if not connected:
            ray.shutdown()


def on_dask(work: Work, pull: Pull, tick: Tick, workers: int | None, address: str | None) -> Finished:
    """`workers` slices at a time, None: one for each of the cluster's threads. `address` None: the scheduler that this
    process is connected to.
    Raises JobError if Dask is not installed or there is no such cluster."""
    try:
        import cloudpickle
        import distributed
    except ImportError as error:
        raise JobError(f'backend "dask" needs the extra `dask` ({error}): pip install "tts_kernel[dask]"') from error
    try:
        _check_reachable(address)
        client = distributed.Client(address, timeout=PATIENCE) if address else distributed.get_client()
    except (OSError, ValueError) as error:
        raise JobError(
            f"no Dask cluster at {address or 'hand'} ({error}); name its scheduler, such as tcp://host:8786"
        ) from error
    running: dict[Any, Slice] = {}
    try:
        packed = client.scatter(cloudpickle.dumps(work), broadcast=True, hash=False)
        at_once = workers or max(sum(client.nthreads().values()), 1)
        while True:
            while len(running) < at_once and (todo := pull()) is not None:
                running[client.submit(remote_shard, packed, todo, pure=False)] = todo
            if not running:
                return
            for future in _some_finished(list(running), distributed):
                todo = running.pop(future)
                outcome: Outcome | Died
                try:
                    outcome = future.result()
                except distributed.scheduler.KilledWorker as error:
                    outcome = Died(str(error))
                except distributed.client.FutureCancelledError as error:  # its node is gone, and with it the task
                    outcome = Died(str(error))
                else:
                    tick(len(todo))
                yield todo, outcome
    finally:
        client.cancel(list(running), force=True)
        if address:
            client.close()


def _check_reachable(address: str | None) -> None:
    """Raises OSError if an address with a port does not answer, ValueError if the port is no number."""
    parts = urlsplit(address if address and "//" in address else f"//{address or ''}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE).close()


def _some_finished(futures: list[Any], distributed: Any) -> Iterator[Any]:
    try:
        yield from distributed.wait(futures, timeout=LOOK, return_when="FIRST_COMPLETED").done
    except TimeoutError:
        return
