"""Kill a run again and again: it can always be resumed, and its best is never lost.

python -m benchmarks.training.kills --kills 200 --run trainer

One process imports torch once and forks a session per kill, so that a kill costs a fraction of a second. `--run folder`
saves a small state by itself, as fast as it can; `--run trainer` is a real run of a tiny model; `--run operations`
kills a session of a few saves before its first file operation, then before its second, and so on until it lives.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.tiny import make_tiny
from tests.tiny_voice import LATENTS, Bench
from tts_kernel.runs import Run
from tts_kernel.training.checkpoints import BEST, FORMAT, CheckpointFolder
from tts_kernel.training.checkpoints import folder as saving
from tts_kernel.training.checkpoints.file import verify
from tts_kernel.training.checkpoints.index import Record, left_over, scan

KEEP_STEPS, KEEP_BEST = 2, 3
PATIENCE = 120.0  # seconds for a session to come as far as it is to be killed
Session = Callable[[], None]


class LostError(Exception):
    """What must not happen: a run that cannot go on, or has lost its best."""


@dataclass
class Seen:
    """What the sessions saw on the disk, by their own account."""

    path: Path  # one line per save that was written, by whoever wrote it
    full: int = 0  # number of the newest full checkpoint
    best: dict[str, float] = field(default_factory=dict)  # lowest value by metric
    lines: int = 0

    def catch_up(self) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in lines[self.lines :]:
            record = Record(**json.loads(line))
            self.add(record)
        self.lines = len(lines)

    def add(self, record: Record) -> None:
        if record.kind == "latest_full":
            self.full = max(self.full, record.number)
        for metric in set(BEST.values()) & record.metrics.keys():
            self.best[metric] = min(record.metrics[metric], self.best.get(metric, float("inf")))


def tell(path: Path) -> None:
    """From now on this process writes down what it has saved, each time before anything newer is begun."""
    own = saving.write_index
    told: set[int] = set()

    def write_index(folder: Path, records: dict[str, Record]) -> None:
        own(folder, records)
        new = {record.number: record for record in records.values() if record.kind != "step"}
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(vars(new[number])) + "\n" for number in sorted(new.keys() - told) if number)
        told.update(new)

    saving.write_index = write_index


# What is killed


def folder_session(run: Run, seen: Path, saves: int = 0) -> Session:
    """Saves of a small state whose losses wander downwards; for ever, or so many steps. A step that is trained again
    has other losses than at its first time, as on a GPU: a best that is lost does not come back by itself."""

    def session() -> None:
        chance = random.Random(count(seen))
        checkpoints = CheckpointFolder(run.checkpoints, KEEP_STEPS, KEEP_BEST, background=not saves)
        step = checkpoints.read_latest()["step"] if checkpoints.begun() else 0
        end = step + saves if saves else sys.maxsize
        while step < end:
            step += 1
            metrics = {metric: 100 / step**0.5 + chance.gauss(0, 1) for metric in BEST.values()}
            weights: dict[str, Any] = {
                "model": {"a": torch.full((20_000,), float(step))},
                "step": step,
                "format": FORMAT,
            }
            full = {**weights, "optimizer": {"a": torch.full((40_000,), float(step))}}
            checkpoints.save_best(weights, metrics, step)
            checkpoints.save_latest(weights, full, step, healthy=step % 5 > 1)
        checkpoints.close()

    return session


def trainer_session(bench: Bench) -> Session:
    """Training that saves in the background all the time, and never comes to its end."""
    asked = {"epochs": 10_000, "validate_every": 2, "save_every": 3, "keep_checkpoints": KEEP_STEPS}
    return lambda: bench.train(**asked, keep_best=KEEP_BEST, background_saves=True)


def begin(session: Session, seen: Path, log: Path, die_at: int = 0) -> int:
    """Fork; the process id of the session."""
    child = os.fork()
    if child:
        return child
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        tell(seen)
        if die_at:
            die_before(die_at)
        session()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def die_before(operation: int) -> None:
    """Have the kernel kill this process before its n-th change to the disk."""
    left = operation

    def counted(own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return own(*values, **named)

        return call

    for name in ("replace", "link", "unlink", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    torch.save = counted(torch.save)


# What must be true after each kill


def check(run: Run, seen: Seen) -> None:
    """Raise LostError unless the run can go on from what it last saved and has the best it ever had."""
    seen.catch_up()
    records = scan(run.checkpoints)
    for name in records:
        verify(run.checkpoints / name)
    folder = CheckpointFolder(run.checkpoints, KEEP_STEPS, KEEP_BEST)
    if seen.full:
        if not folder.begun():
            raise LostError(f"save {seen.full} was written, and there is nothing to resume from: {sorted(records)}")
        number = folder.read_latest()["written"]["number"]
        if number < seen.full:
            raise LostError(f"save {seen.full} was written, and the newest to resume from is {number}")
    for name, metric in BEST.items():
        found, best = folder.best.get(name, float("inf")), seen.best.get(metric, float("inf"))
        if found > best:
            raise LostError(f"{metric} {best} was written, and the best left is {found}")
    for record in records.values():  # what is there now, though no session lived to tell of it, is to stay as well
        seen.add(record)


def check_metrics(run: Run) -> None:
    """Raise LostError for a step that was trained twice, or never, by what the metrics say."""
    steps = [record["step"] for record in run.records() if "train/text_loss" in record]
    if steps != list(range(1, len(steps) + 1)):
        wrong = next(place for place, step in enumerate(steps, start=1) if step != place)
        raise LostError(f"metrics: step {steps[wrong - 1]} follows {steps[max(wrong - 2, 0)]}")


def check_tidy(run: Run) -> None:
    """Raise LostError for what a session that ended well has left: half files, names behind their best."""
    left = [path.name for path in run.checkpoints.iterdir() if left_over(path.name)]
    records = scan(run.checkpoints)
    measured = [record.metrics for record in records.values() if record.metrics]
    best = {name: min(metrics[metric] for metrics in measured) for name, metric in BEST.items()}
    behind = [name for name, value in best.items() if records[name].metrics[BEST[name]] > value]
    if left or behind:
        raise LostError(f"a session that was not killed left {left} and did not bring up to date {behind}")


# The loop


def kill_at_random(
    session: Session, run: Run, seen: Seen, log: Path, kills: int, chance: random.Random
) -> Iterator[int]:
    """Some at once, some a few saves later, each within a save's time after one was written. Yields the number of saves
    seen so far, after each kill and its check."""
    for _ in range(kills):
        child = begin(session, seen.path, log)
        wait_for(child, seen.path, chance.choice([0, 0, 1, 1, 2, 3, 5]), log)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check(run, seen)
        yield seen.lines


def wait_for(child: int, path: Path, lines: int, log: Path) -> None:
    """Until the session has written so many lines more. Raises LostError if it ends by itself."""
    begun, goal = time.monotonic(), count(path) + lines
    while count(path) < goal:
        if os.waitpid(child, os.WNOHANG)[0]:
            raise LostError(f"the session ended by itself:\n{log.read_text(errors='replace')[-3000:]}")
        if time.monotonic() - begun > PATIENCE:
            os.kill(child, signal.SIGKILL)
            raise LostError(f"no save within {PATIENCE:.0f} s:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.002)


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at_every_operation(run: Run, seen: Seen, log: Path, most: int) -> Iterator[int]:
    """Yields the number of the operation before which the session was killed and the run then checked; ends with the
    session that lives."""
    session = folder_session(run, seen.path, saves=3)
    for operation in range(1, most + 1):
        child = begin(session, seen.path, log, die_at=operation)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            if os.WEXITSTATUS(status):
                raise LostError(f"the session failed:\n{log.read_text(errors='replace')[-3000:]}")
            check(run, seen)
            check_tidy(run)
            return
        check(run, seen)
        yield operation
    raise LostError(f"a session of three saves makes more than {most} changes to the disk")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--run", choices=["trainer", "folder", "operations"], default="trainer")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)  # a process whose threads have worked must not be forked
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bench = Bench(folder, make_tiny(folder / "corpus", latents=LATENTS))
        run, seen, log = bench.run(), Seen(folder / "seen"), folder / "session.log"
        session = trainer_session(bench) if asked.run == "trainer" else folder_session(run, seen.path)
        done = 0
        try:
            if asked.run == "operations":
                for _ in kill_at_every_operation(run, seen, log, most=2000):
                    done += 1
            else:
                for _ in kill_at_random(session, run, seen, log, asked.kills, random.Random(asked.seed)):
                    done += 1
            if asked.run == "trainer":
                check_metrics(run)
        except LostError as error:
            print(f"LOST after {done} kills: {error}")
            return 1
    print(f"{done} kills of {asked.run} in {time.monotonic() - began:.0f} s; {seen.lines} saves were written.")
    print("After each kill the run could go on from the newest, and its best was there.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
