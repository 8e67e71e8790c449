"""Run one function in a process of its own and keep what it measured.

A fresh process makes the peak of memory honest (VmHWM: mapped files count, too) and leaves nothing warm but the
system's page cache. The function returns figures by name; it decides itself, with `Stopwatch`, what it times.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ENOUGH = 30.0  # seconds for the runs of one function, after which no further one begins
Figures = dict[str, Any]  # numbers; `peak_mb` is added
_MARK = "figures: "
_STARTED = "BENCHMARK_STARTED"  # when the parent did it, in the child's environment


class MeasureError(RuntimeError):
    """A measured function that failed; the message is the last thing it said."""


class Stopwatch:
    """Of a `with` block: `seconds` by the clock, and `cpu` seconds of all threads, which other programs on the machine
    hardly change."""

    seconds = cpu = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *failure: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]


def measure(function: Callable[..., Figures], repeats: int, **arguments: Any) -> Figures:
    """Medians of the figures of up to `repeats` runs, none begun after half a minute. Arguments travel as JSON. Raises
    MeasureError if the function fails."""
    [figures] = compare([function], repeats, **arguments)
    return figures


def compare(functions: Sequence[Callable[..., Figures]], repeats: int, **arguments: Any) -> list[Figures]:
    """As `measure`, for functions that take turns, so that what else the machine does falls on all of them."""
    rounds: list[list[Figures]] = []
    start = time.perf_counter()
    while not rounds or (len(rounds) < repeats and time.perf_counter() - start < ENOUGH * len(functions)):
        rounds.append([_one_run(function, arguments) for function in functions])
    return [
        {name: statistics.median(run[name] for run in runs) for name in runs[0]} for runs in zip(*rounds, strict=True)
    ]


def _one_run(function: Callable[..., Figures], arguments: dict[str, Any]) -> Figures:
    command = [sys.executable, "-m", "benchmarks.data.measure", f"{function.__module__}:{function.__name__}"]
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
    done = subprocess.run(
        command,
        input=json.dumps(plain),
        cwd=ROOT,
        env=os.environ | {"TQDM_DISABLE": "1", _STARTED: str(time.time())},
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}, nothing on stderr"]
        raise MeasureError(f"{function.__module__}.{function.__name__}: {said[-1]}")
    return json.loads(lines[-1].removeprefix(_MARK))


def since_start() -> float:
    """Seconds since this process was started: the interpreter's own start and every import included."""
    return time.time() - float(os.environ[_STARTED])


def peak_mb() -> float:
    """Highest resident memory of this process so far, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would start at what the parent used
        found = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(found.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def main() -> None:
    module, name = sys.argv[1].split(":")
    figures = getattr(import_module(module), name)(**json.load(sys.stdin))
    print(_MARK + json.dumps({"peak_mb": peak_mb(), **figures}))


if __name__ == "__main__":
    main()
