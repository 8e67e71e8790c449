"""Runs to be measured, each in a process of its own: the recipe's, and the plain loop's on the same pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.measure import Figures
from benchmarks.training.corpus import BASE, TRAIN, write_rows
from benchmarks.training.plain import Ways, validation_loss
from benchmarks.training.plain import train as plain_train
from tts_kernel.recipes import indextts2 as recipe
from tts_kernel.recipes.indextts2 import Prepared, Settings
from tts_kernel.recipes.indextts2.model import build_model
from tts_kernel.runs import Run

BATCH_SIZE = 16


def settings_of(data: str, stage: int, manifest: str, **changes: Any) -> Settings:
    """On a CPU, without saves and validations in between; logs every step."""
    values: dict[str, Any] = {
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
    return Settings(**{**values, **changes})


def prepared(run: str, settings: Settings) -> tuple[Prepared, Run]:
    folder = Run(Path(run))
    folder.checkpoints.mkdir(parents=True)
    return recipe.prepare(settings, folder), folder


def make_round(data: str, number: int, rounds: int, batches: int) -> str:
    """A manifest of so many batches of the plan over all pairs, spread evenly over its lengths, other ones in each
    round: the whole corpus in small. Its name."""
    root, name = Path(data), f"round{number}.jsonl"
    rows = [json.loads(line) for line in (root / TRAIN).read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: row["target_text_len"] + row["target_code_len"])
    whole = len(rows) // BATCH_SIZE
    shares = (np.arange(batches) + (number + 0.5) / rounds) / batches
    chosen = [row for share in shares for row in rows[int(share * whole) * BATCH_SIZE :][:BATCH_SIZE]]
    np.random.default_rng(number).shuffle(chosen)
    write_rows(root / name, chosen)
    return name


def tokens_of(manifest: Path) -> int:
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    return sum(row["target_text_len"] + row["target_code_len"] for row in rows)


def plain(
    data: str, run: str, stage: int, manifest: str, ways: dict[str, bool], seed: int = 0, **changes: Any
) -> Figures:
    """The plain loop, or with some of our ways, over all pairs once."""
    ready, _ = prepared(run, settings_of(data, stage, manifest, seed=seed, **changes))
    model = build_model(ready.settings, ready.config)
    done = plain_train(ready, model, Ways(**ways), seed=seed)
    tokens, seconds = sum(done.tokens), done.ended[-1] - done.started
    assert tokens == tokens_of(Path(data) / manifest), "the loop has lost pairs"
    loss = validation_loss(ready, model)
    return {"tokens_per_second": tokens / seconds, "step": seconds / len(done.tokens), "loss": loss}


def trainer(data: str, run: str, stage: int, manifest: str, **changes: Any) -> Figures:
    """The recipe's own run over all pairs once, by the clock of its metrics."""
    ready, folder = prepared(run, settings_of(data, stage, manifest, **changes))
    outcome = recipe.train(ready, folder)
    tokens, seconds = tokens_of(Path(data) / manifest), training_seconds(folder)
    return {
        "tokens_per_second": tokens / seconds,
        "step": seconds / outcome.step,
        "loss": outcome.val_after["val/loss"],
    }


def training_seconds(run: Run) -> float:
    """Of one epoch: from the validation before its first step to the end of its last."""
    records = list(run.records())
    start = next(record["time"] for record in records if record["step"] == 0)
    return [record["time"] for record in records if "train/lr" in record][-1] - start
