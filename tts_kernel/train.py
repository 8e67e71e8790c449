"""Train a run without a notebook: prepare, train, and say in runs/<name>/outcome.json how it ended.

python -m tts_kernel.train my_settings.yaml -p batch_size 24
torchrun --nproc-per-node 4 -m tts_kernel.train my_settings.yaml

The YAML file holds `recipe: indextts2` and any of the recipe's settings. `processes: 4` does what torchrun does, on one
machine. `touch runs/<name>/stop`, or a signal, saves and stops.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from tts_kernel.recipes.named import nearest_recipe, recipe_named
from tts_kernel.runs import Run, RunError, open_run, runs_folder, start_logging, write_yaml
from tts_kernel.settings import SettingsError, read_settings
from tts_kernel.training.launch import ending
from tts_kernel.training.launch.hold import Holder
from tts_kernel.training.launch.session import SETTINGS, STOP, Session, end_of_log
from tts_kernel.training.launch.start import WORLD, claimed, start
from tts_kernel.training.launch.supervisor import stop_with, supervise
from tts_kernel.training.outcome import RunInterrupted
from tts_kernel.training.processes import check_processes, environment_rank, environment_world
from tts_kernel.training.signals import SUPERVISED, interrupted_on_request

log = logging.getLogger("tts_kernel.train")  # also where its own name is "__main__"

RUN, PREPARED = "tts_kernel/run", "tts_kernel/prepared"  # what the first process tells the others


def main(arguments: list[str] | None = None) -> int:
    """0 when the run was trained to its end, 1 when it failed or was stopped. Under torchrun a stop is 0, too, for any
    other code ends the other processes before they have saved."""
    parser = argparse.ArgumentParser(
        prog="python -m tts_kernel.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", type=Path, help="YAML file")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a setting")
    parser.add_argument("--session", action="store_true", help=argparse.SUPPRESS)  # started by training/launch.py
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # ends with that process
    options = parser.parse_args(arguments)
    if not options.settings.is_file():
        parser.error(f"{options.settings}: no such file")
    start_logging(environment_rank())
    try:
        recipe, settings = read(options.settings, dict(options.p))
        check_processes(int(os.environ.get("LOCAL_WORLD_SIZE", settings.processes)), settings.device)
        if environment_world() > 1:
            return _among_others(recipe, settings)
        return _alone(recipe, settings, options)
    except RunInterrupted as stopped:
        log.warning("%s", stopped)
    except (ValueError, RuntimeError) as error:
        log.error("%s", ending.error_text(error))
    return 1


# Settings


def read(path: Path, changes: dict[str, str]) -> tuple[ModuleType, Any]:
    """The recipe and its settings. Raises SettingsError with all problems."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: no YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: found a {type(values).__name__}, expected lines of `name: value`")
    values = {str(name): value for name, value in values.items()}
    values |= {name: yaml.safe_load(value) for name, value in changes.items()}
    name = str(values.pop("recipe", ""))
    near = nearest_recipe(name)
    problems: list[str] = []
    recipe: ModuleType | None = None
    try:
        recipe = recipe_named(name)
    except SettingsError as error:
        problems.append(str(error))
        recipe = recipe_named(near) if near else None
    world = environment_world()
    if world > 1 and values.setdefault("processes", world) != world:
        problems.append(f"processes: found {values['processes']!r}, but {world} were started; leave it out")
    settings = None
    if recipe is not None:
        strange = [f"{item}: not a parameter; names begin with a letter" for item in values if item.startswith("_")]
        try:
            settings = read_settings(recipe.Settings, values)
        except SettingsError as error:
            problems += str(error).split("\n  ")[1:]
        problems += strange
    if problems:
        what = f"{len(problems)} setting{'s' * (len(problems) > 1)} cannot be used"
        raise SettingsError("\n  ".join([f"{path}: {what}:", *problems]))
    assert recipe is not None
    return recipe, settings


# Processes


def _alone(recipe: ModuleType, settings: Any, options: argparse.Namespace) -> int:
    """The only process so far."""
    run = open_run(settings, settings.run_name, prefix=_name(recipe))
    settings = replace(settings, run_name=run.name)
    if settings.launch == "detached" and not options.session:
        start(run, _name(recipe), settings)
        return 0
    if not options.session:
        _enter(recipe, settings, run)
    run.start_logging()
    if options.parent is not None:
        stop_with(options.parent, run)
    if settings.processes == 1:
        with ending.kept(run):
            _train(recipe, settings, run)
        return 0
    supervise(run, "tts_kernel.train", [str(run.folder / SETTINGS)], settings.processes)
    if ending.outcome(run) is None:  # raises what went wrong
        raise RunError(f"{run.folder}: the processes have ended without an {ending.OUTCOME}; see what they printed")
    return 0


def _among_others(recipe: ModuleType, settings: Any) -> int:
    """One of several processes, started by our supervisor, torchrun or `accelerate launch`."""
    from torch.distributed.elastic.multiprocessing.errors import record
    from torch.distributed.rendezvous import rendezvous

    rank, supervisor = environment_rank(), os.environ.get(SUPERVISED)
    store = next(iter(rendezvous("env://")))[0]
    if rank == 0:
        run = open_run(settings, settings.run_name, prefix=_name(recipe))
        settings = replace(settings, run_name=run.name)
        if supervisor is None:
            _enter(recipe, settings, run)
        store.set(RUN, run.name)
        run.start_logging()
    else:
        _wait(store, RUN)
        settings = replace(settings, run_name=store.get(RUN).decode())
        run = _opened_by_the_first(settings.run_name, rank)
        run.start_logging(rank)
    if supervisor is not None:
        stop_with(int(supervisor), run)

    @record  # for torchrun's own report
    def train() -> None:
        with ending.kept(run, rank):
            _train(recipe, settings, run, rank, store)

    try:
        train()
    except RunInterrupted as stopped:
        if supervisor is None:
            log.warning("%s", stopped)
    except (ValueError, RuntimeError):
        if supervisor is None:
            raise
        return 1  # the supervisor says why
    return 0


def _train(recipe: ModuleType, settings: Any, run: Run, rank: int = 0, store: Any = None) -> None:
    """What there is to do, and the only part that takes long. The first process prepares before the others, which then
    find all that it had to make."""

    def stopped(why: str) -> RunInterrupted:
        return RunInterrupted(
            f"run {run.name} was stopped by {why} while there was nothing to save; start it again with run_name "
            f"{run.name} to go on at its last checkpoint, or at its beginning if it has none"
        )

    with interrupted_on_request(run.folder / STOP, stopped):
        if rank:
            _wait(store, PREPARED)
            prepared = recipe.prepare(settings, run)
        else:
            with _unaware_of_others():
                prepared = recipe.prepare(settings, run)
            if store is not None:
                store.set(PREPARED, "yes")
        log.info("%s", prepared)
        outcome = recipe.train(prepared, run)
        if rank == 0:
            ending.keep(run, outcome)
            log.info("%s", recipe.explain(outcome, prepared, run))


def _enter(recipe: ModuleType, settings: Any, run: Run) -> None:
    """A session that was not started by training/launch.py announces itself as one that was."""
    with claimed(run):
        write_yaml(run.folder / SETTINGS, {"recipe": _name(recipe), **asdict(settings)})
        Session(run, Holder.this_process(), logged_from=end_of_log(run)).write()


def _opened_by_the_first(name: str, rank: int) -> Run:
    run = Run(runs_folder() / name, resumed=True)
    if not run.folder.is_dir():
        raise RunError(
            f"process {rank} on host {socket.gethostname()} does not see {run.folder}, which process 0 has made; let "
            "TTS_KERNEL_RUNS name a folder that all machines share"
        )
    return run


def _wait(store: Any, key: str) -> None:
    """For the first process, however long it takes; signals are heard meanwhile."""
    while not store.check([key]):
        time.sleep(0.2)


@contextmanager
def _unaware_of_others() -> Iterator[None]:
    """What is trained while preparing (the demo's base model) is trained by this process alone."""
    hidden = {name: os.environ.pop(name) for name in WORLD if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _name(recipe: ModuleType) -> str:
    return recipe.__name__.rpartition(".")[2]


if __name__ == "__main__":
    raise SystemExit(main())
