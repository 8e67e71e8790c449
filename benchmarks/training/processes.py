"""One process against two that share each batch, as `python -m tts_kernel.train` starts them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.data.measure import ROOT, Figures, measure
from benchmarks.data.result import Result, more
from benchmarks.training.corpus import make_data
from benchmarks.training.harness import make_round, settings_of, tokens_of, training_seconds
from benchmarks.training.sizes import Sizes
from tts_kernel.runs import Run, write_yaml

TITLE = "Processes"
METHOD = """Tokens per second of stages 1 and 3 on this machine's CPU: one process with all its {cores} cores as threads
(left), and two with half of them each that exchange gradients by gloo. For information: processes are for GPUs."""


def trained(data: str, runs: str, manifest: str, processes: int) -> Figures:
    """The recipe's run in so many processes."""
    name = f"{Path(manifest).stem}-{processes}"
    settings = asdict(settings_of(data, 3, manifest, processes=processes)) | {"run_name": name}
    file = Path(runs) / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_yaml(file, {"recipe": "indextts2", **settings})
    threads = max((os.cpu_count() or 1) // processes, 1)
    environment = os.environ | {"TTS_KERNEL_RUNS": runs, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "tts_kernel.train", str(file)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    seconds = training_seconds(Run(Path(runs) / name))
    return {"tokens_per_second": tokens_of(Path(data) / manifest) / seconds}


def run(sizes: Sizes) -> list[Result]:
    data = str(sizes.folder / "processes")
    measure(make_data, 1, data=data, shape=sizes.shape, pairs=sizes.pairs)
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for number in range(sizes.rounds):
        manifest = make_round(data, number, sizes.rounds, sizes.steps)
        for processes, found in speeds.items():
            figures = measure(trained, 1, data=data, runs=sizes.folder / "runs", manifest=manifest, processes=processes)
            found.append(figures["tokens_per_second"])
    one, two = (statistics.median(found) for found in speeds.values())
    return [more("1 process, 2 processes", one, two)]
