"""A damaged run to practise on: a healthy start, a rate far too high, and the good checkpoints gone.

As the practitioners' guide found its own: the best checkpoint had been overwritten, and what was left was saved while
the loss rose or after.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from tts_kernel.recipes.indextts2.settings import Settings
from tts_kernel.recipes.indextts2.train import prepare, train
from tts_kernel.runs import Run, RunError, open_run, runs_folder, write_atomically
from tts_kernel.training.speed import DeviceName

log = logging.getLogger(__name__)

HEALTHY = Settings(
    stage=3,
    train_manifest="gpt_pairs_train.jsonl",
    batch_size=16,
    grad_accumulation=1,
    epochs=8,
    learning_rate=2.0e-4,
    schedule="constant",
    warmup_steps=10,
    grad_clip=1.0,
    log_every=1,
    validate_every=20,
    save_every=20,
    keep_checkpoints=100,
    keep_best=0,
    on_spike="ignore",
    aim=False,
    num_workers=0,
)


@dataclass(frozen=True)
class Damage:
    """How the demo's run is ruined."""

    factor: float  # on its rate
    steps: int  # before, and again with the damage


def damage_demo(name: str, damage: Damage, device: DeviceName) -> Run:
    """The run `name`, trained on the demo, damaged, and without what was saved before. One that was made before is
    finished, or taken as it is. Raises RunError for a folder that is something else."""
    folder = runs_folder() / name
    made = json.dumps(asdict(damage))
    mark = folder / "damage.json"
    if folder.exists() and (mark.read_text(encoding="utf-8") if mark.is_file() else "") != made:
        raise RunError(f"{folder}: is there and is no demo with {damage}; choose another run_name, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(mark, made)
    healthy = replace(HEALTHY, run_name=name, device=device, max_steps=damage.steps)
    ruined = replace(healthy, max_steps=2 * damage.steps, learning_rate=damage.factor * healthy.learning_rate)
    for phase in (healthy, ruined):
        run = open_run(phase, name, prefix="damaged")
        if _step(run) >= phase.max_steps:
            continue
        log.info("demo: training %s to step %d at rate %g", folder, phase.max_steps, phase.learning_rate)
        prepared = prepare(phase, run)
        with _without_a_line_per_step():
            train(prepared, run)
    for path in run.checkpoints.glob("*.pth"):
        if path.name.startswith(("best", "top")) or _saved_at(path.stem) in range(damage.steps + 1):
            path.unlink()
    return run


@contextmanager
def _without_a_line_per_step() -> Iterator[None]:
    """They would bury what is said of the damage; metrics.jsonl has their values, and the figure shows them."""
    lines = logging.getLogger("tts_kernel.training.report")
    before = lines.level
    lines.setLevel(logging.WARNING)
    try:
        yield
    finally:
        lines.setLevel(before)


def _step(run: Run) -> int:
    return max((record["step"] for record in run.records()), default=-1)


def _saved_at(stem: str) -> int:
    """The step in a checkpoint's name, -1 where there is none."""
    number = stem.rpartition("_")[2]
    return int(number) if number.isdigit() else -1
