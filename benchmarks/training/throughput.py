"""Non-padding tokens per second: the plain loop, each of our ways alone, and the Trainer as the recipe runs it."""

from __future__ import annotations

import json
import statistics
from dataclasses import fields
from pathlib import Path

import numpy as np

from benchmarks.data.measure import Figures, measure
from benchmarks.data.result import Result, more
from benchmarks.training.corpus import BASE, TRAIN, make_data, write_rows
from benchmarks.training.plain import Ways
from benchmarks.training.plain import train as plain_train
from benchmarks.training.sizes import Sizes

BATCH_SIZE = 16
AT_LEAST = 2.4  # times the plain loop's tokens
WORDS = {
    "buckets": "batches of like lengths",
    "real_positions": "rows packed, heads at real positions",
    "fused_attention": "fused attention",
    "fused_adamw": "fused AdamW",
    "packed_store": "packed store, whole batches",
    "bfloat16": "bfloat16 where a product allows it",
}


def settings_of(data: str, stage: int, manifest: str, **changes: object) -> object:
    from tts_kernel.recipes.indextts2 import Settings

    values = {
        "stage": stage,
        "data": data,
        "train_manifest": manifest,
        "base_checkpoint": f"{data}/{BASE}",
        "speaker_min_clips": 1,
        "batch_size": BATCH_SIZE,
        "grad_accumulation": 1,
        "learning_rate": 3.0e-4,
        "schedule": "constant",
        "warmup_steps": 0,
        "log_every": 1,
        "validate_every": 1_000_000,
        "save_every": 1_000_000,
        "keep_checkpoints": 0,
        "keep_best": 0,
        "aim": False,
        "num_workers": 0,
        "device": "cpu",
    }
    return Settings(**{**values, **changes})  # type: ignore[arg-type]


def prepared(data: str, run: str, stage: int, manifest: str, **changes: object) -> tuple[object, object]:
    from tts_kernel.recipes import indextts2 as recipe
    from tts_kernel.runs import Run

    folder = Run(Path(run))
    folder.checkpoints.mkdir(parents=True)
    return recipe.prepare(settings_of(data, stage, manifest, **changes), folder), folder  # type: ignore[arg-type]


def make_round(data: str, number: int, rounds: int, batches: int) -> str:
    """A manifest of so many batches of the plan over all pairs, spread evenly over its lengths, other ones in each
    round: the whole corpus in small. Its name."""
    root, name = Path(data), f"round{number}.jsonl"
    rows = [json.loads(line) for line in (root / TRAIN).read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: row["target_text_len"] + row["target_code_len"])
    whole = len(rows) // BATCH_SIZE
    shares = (np.arange(batches) + (number + 0.5) / rounds) / batches
    chosen = [row for share in shares for row in rows[int(share * whole) * BATCH_SIZE :][:BATCH_SIZE]]
    np.random.default_rng(number).shuffle(chosen)  # type: ignore[arg-type]
    write_rows(root / name, chosen)
    return name


def tokens_of(manifest: Path) -> int:
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    return sum(row["target_text_len"] + row["target_code_len"] for row in rows)


def plain(data: str, run: str, stage: int, manifest: str, ways: dict[str, bool]) -> Figures:
    """The plain loop, or with some of our ways, over a round's pairs."""
    from tts_kernel.recipes.indextts2.model import build_model

    ready, _ = prepared(data, run, stage, manifest)
    model = build_model(ready.settings, ready.config)  # type: ignore[attr-defined]
    done = plain_train(ready, model, Ways(**ways))  # type: ignore[arg-type]
    assert sum(done.tokens) == tokens_of(Path(data) / manifest)
    return {"tokens_per_second": sum(done.tokens) / (done.ended[-1] - done.started)}


def trainer(data: str, run: str, stage: int, manifest: str, **changes: object) -> Figures:
    """The recipe's own run over the same pairs: by the clock of its metrics, from the validation before the first
    step to the end of the last one."""
    from tts_kernel.recipes import indextts2 as recipe

    ready, folder = prepared(data, run, stage, manifest, **changes)
    recipe.train(ready, folder)  # type: ignore[arg-type]
    return {"tokens_per_second": tokens_of(Path(data) / manifest) / training_seconds(folder)}  # type: ignore[arg-type]


def training_seconds(run: object) -> float:
    """Of one epoch without pauses."""
    records = list(run.records())  # type: ignore[attr-defined]
    start = next(record["time"] for record in records if record["step"] == 0)
    return [record["time"] for record in records if "train/lr" in record][-1] - start


TITLE = "Throughput"
METHOD = """Text tokens and codes that are not padding, per second. Both train the same model from the same weights on
the same pairs: {steps} batches of 16 per round, taken evenly from all lengths of the corpus, {rounds} rounds in which
all take turns; medians. The plain loop shuffles its pairs, pads text and codes to the longest of a batch, attends by
softmax(Q K^T) V with a mask, has both heads and losses at every position with `ignore_index`, AdamW as torch gives it,
float32, and reads an item at a time from `.npy`. The middle lines change one of these ways alone. "The Trainer" is the
recipe's own run with its defaults, guards and metrics included, logging every step."""


def run(sizes: Sizes) -> list[Result]:
    data = str(sizes.folder / "throughput")
    measure(make_data, 1, data=data, shape=sizes.shape, pairs=sizes.pairs)
    results = []
    for stage, what in ((2, "stage 2"), (3, "stages 1 and 3, stored conditions")):
        results += _stage(sizes, data, stage, what)
    return results


def _stage(sizes: Sizes, data: str, stage: int, what: str) -> list[Result]:
    names = [item.name for item in fields(Ways)]
    kinds = ["plain", *(names if stage == 3 else []), "trainer", "trainer bfloat16"]
    speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(sizes.rounds):
        manifest = make_round(data, number, sizes.rounds, sizes.steps)
        for kind in kinds:
            common = {"data": data, "stage": stage, "manifest": manifest}
            common["run"] = str(sizes.folder / f"run-{stage}-{number}-{kind.replace(' ', '-')}")
            if kind.startswith("trainer"):
                precision = "bfloat16" if kind.endswith("bfloat16") else "float32"
                figures = measure(trainer, 1, precision=precision, **common)
            else:
                figures = measure(plain, 1, ways={name: name == kind for name in names}, **common)
            speeds[kind].append(figures["tokens_per_second"])
    middle = {kind: statistics.median(found) for kind, found in speeds.items()}
    first = middle.pop("plain")
    results = [
        more(f"{what}: the Trainer", first, middle.pop("trainer"), AT_LEAST, judged=sizes.full),
        more(f"{what}: the Trainer, bfloat16", first, middle.pop("trainer bfloat16")),
    ]
    return results + [more(f"{what}: plain loop, {WORDS[kind]}", first, speed) for kind, speed in middle.items()]
