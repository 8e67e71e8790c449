"""Training in this process, in one of its own that outlives kernel and browser, or in several."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal, Protocol

import yaml

from tts_kernel.data.features.folder_lock import locked
from tts_kernel.runs import PROJECT_ROOT, Run, write_yaml
from tts_kernel.training.launch import ending
from tts_kernel.training.launch.hold import Holder, in_use, refusal
from tts_kernel.training.launch.session import LOG, SETTINGS, STOP, OnUpdate, Session, end_of_log, find
from tts_kernel.training.outcome import Outcome
from tts_kernel.training.processes import check_processes
from tts_kernel.training.speed import DeviceName

log = logging.getLogger(__name__)

Launch = Literal["inline", "detached"]

_UPDATE_EVERY = 2.0  # seconds between two looks at the metrics of a run that is trained in this process

# What one process of a world of several knows of it; a session makes a world of its own.
WORLD = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Settings(Protocol):
    """What of a recipe's settings (a dataclass) is of concern here."""

    launch: Launch
    processes: int
    device: DeviceName


class Recipe(Protocol):
    """A module `tts_kernel.recipes.<name>`."""

    __name__: str
    train: Callable[[Any, Run], Outcome]


def train(recipe: Any, prepared: Any, run: Run, on_update: OnUpdate | None = None) -> Outcome:
    """`recipe.train(prepared, run)` where the settings say, followed to its end; `on_update(run)` is called when there
    are new metrics. A session of this run that goes on already is followed instead. Raises what `recipe.train` raises,
    TrainingError with the session's words where another process failed, RunError for a run in use, and RunInterrupted
    when the run was stopped, or, for a detached one, when only the watching was."""
    settings = prepared.asked
    session = find(run)
    if session is not None:
        log.info("run %s goes on in %s", run.name, session.holder)
        _tell_differences(run, settings)
    elif settings.launch == "inline" and settings.processes == 1:
        with claimed(run):
            pass
        with _watched(run, on_update):
            return recipe.train(prepared, run)
    else:
        session = start(run, recipe.__name__.rpartition(".")[2], settings)
    return session.follow(on_update)


def start(run: Run, recipe_name: str, settings: Any) -> Session:
    """Train `run` in a process of its own, or in as many as the settings say, from `launch.yaml` in its folder. Raises
    ValueError for more processes than GPUs and RunError for a run in use: both before anything is started."""
    check_processes(settings.processes, settings.device)
    detached = settings.launch == "detached"
    with claimed(run):
        write_yaml(run.folder / SETTINGS, {"recipe": recipe_name, **asdict(settings), "run_name": run.name})
        command = [sys.executable, "-m", "tts_kernel.train", str(run.folder / SETTINGS), "--session"]
        command += [] if detached else ["--parent", str(os.getpid())]
        with (run.folder / LOG).open("ab") as output:
            begin = output.tell()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=PROJECT_ROOT,
                env=_environment(),
                start_new_session=True,  # a kernel's interrupt and its end go to its own session
            )
        stop = f"touch {run.folder / STOP}"
        log.info("run %s: process %d trains; it prints to %s and stops by %s", run.name, child.pid, output.name, stop)
        session = Session(run, Holder.of(child.pid, command), detached, begin, end_of_log(run), child)
        session.write()
    return session


@contextmanager
def claimed(run: Run) -> Iterator[None]:
    """What starts a session of `run` is inside: one at a time, while nobody else trains there, and with nothing left
    of how an earlier one ended. Raises RunError naming who does."""
    with locked(run.folder / ".start", fcntl.LOCK_EX, patient=True):
        session = find(run)
        if session is not None and session.holder.pid != os.getpid():
            raise refusal(run, str(session.holder))
        if who := in_use(run):
            raise refusal(run, who)
        ending.clear(run)
        yield


def _environment() -> dict[str, str]:
    """This process's, but for what it knows of a world of processes; bars would fill the log with their redrawing."""
    kept = {name: value for name, value in os.environ.items() if name not in WORLD and "TORCHELASTIC" not in name}
    return {**kept, "TQDM_DISABLE": "1", "PYTHONFAULTHANDLER": "1"}


def _tell_differences(run: Run, settings: Any) -> None:
    """A session goes on with the settings it was started with."""
    path = run.folder / SETTINGS
    if not path.exists():
        return
    theirs = yaml.safe_load(path.read_text(encoding="utf-8"))
    others = {
        name: (theirs[name], value)
        for name, value in asdict(settings).items()
        if name in theirs and name not in ("run_name", "launch") and theirs[name] != value
    }
    if others:
        named = "; ".join(f"{name}: {there!r} there, {asked!r} asked" for name, (there, asked) in others.items())
        log.warning("it keeps its own settings; stop it first to change them: %s", named)


@contextmanager
def _watched(run: Run, on_update: OnUpdate | None) -> Iterator[None]:
    """A thread calls `on_update` while this one trains. What it raises is raised here, at the end."""
    if on_update is None:
        yield
        return
    from concurrent.futures import ThreadPoolExecutor

    over = threading.Event()

    def look() -> None:
        size, path = -1, run.folder / "metrics.jsonl"
        while True:
            last = over.wait(_UPDATE_EVERY)
            if path.exists() and path.stat().st_size != size:
                size = path.stat().st_size
                on_update(run)
            if last:
                return

    with ThreadPoolExecutor(1, thread_name_prefix="on_update") as pool:
        watching = pool.submit(look)
        try:
            yield
        finally:
            over.set()
        watching.result()
