"""The processes of one machine that train one run, by torch's own engine (that of torchrun), and who hears for them.

A process that dies takes the others along within a second, with its error in outcome.json. A signal to the supervisor
becomes the run's stop file, so that all save and stop together; a second one ends them at once. Those whose supervisor
is killed save and stop.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tts_kernel.runs import Run
from tts_kernel.training.launch import ending
from tts_kernel.training.launch.session import STOP
from tts_kernel.training.signals import SUPERVISED

log = logging.getLogger(__name__)


def supervise(run: Run, module: str, arguments: Sequence[str], processes: int) -> None:
    """Run `python -m module arguments` in `processes` processes until all have ended. What went wrong is in
    outcome.json."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ[SUPERVISED] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=run.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",  # a machine's own name need not resolve
        max_restarts=0,
        signals_to_handle="SIGQUIT",
    )

    def end(number: int) -> None:
        raise SignalException(f"a second {signal.Signals(number).name}", sigval=signal.SIGTERM)

    try:
        with _signals_as_stop_file(run, end):
            elastic_launch(config, sys.executable)("-m", module, *arguments)
    except ChildFailedError as failed:
        _explain(run, failed.failures)
    except SignalException as ended:
        ending.keep_failure(run, 0, "RunInterrupted", f"{ended}: ended at once, without saving")


@contextmanager
def _signals_as_stop_file(run: Run, end: Any) -> Iterator[None]:
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            end(number)
        asked.append(number)
        log.warning("%s: stopping, saving first; a second signal does not wait", signal.Signals(number).name)
        (run.folder / STOP).touch()

    watched = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        watched.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in watched}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _explain(run: Run, failures: dict[int, Any]) -> None:
    """Adds to outcome.json those that could not say themselves why they died. They come first, for the others may have
    failed for want of their partner; but for an abort, which is how a collective fails without one."""
    told = ending.failed_ranks(run)
    for rank, failure in failures.items():
        killed = signal.Signals(-failure.exitcode) if failure.exitcode < 0 else None
        if killed is signal.SIGTERM or (rank in told and killed is not signal.SIGKILL):
            continue
        error = f"ended by {killed.name if killed else f'exit code {failure.exitcode}'} without a word"
        error += "; memory has run out, or somebody killed it" if killed is signal.SIGKILL else ""
        when = time.time() if killed is signal.SIGABRT else 0.0
        ending.keep_failure(run, rank, "TrainingError", error, when)


def stop_with(parent: int, run: Run) -> None:
    """Ask for a stop when process `parent`, which started this one, has ended."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        log.warning("process %d, which started this training, has ended: stopping, saving first", parent)
        (run.folder / STOP).touch()

    threading.Thread(target=look, name="parent", daemon=True).start()
