"""Mels and conditions stored as float16: what it saves, and what it does to the loss of the demo's model."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from benchmarks.data.generate import ROWS
from benchmarks.data.measure import Figures, measure
from benchmarks.data.result import Result, Sizes, below
from benchmarks.data.store import LATENTS, WIDTH

HALVED = ("mel", "condition")
STEPS = 52  # one epoch of the demo corpus


def copy_demo(folder: str) -> Figures:
    """The demo's data folder twice, its mels and conditions in one new shard each: as float32, and as float16."""
    from tts_kernel.recipes import indextts2 as recipe
    from tts_kernel.recipes.indextts2.demo import open_demo

    demo = open_demo(lambda settings, run: recipe.train(recipe.prepare(settings, run), run))
    shards = []
    for name in ("single", "half"):
        shutil.copytree(demo, Path(folder) / name)
        shards.append(store_again(Path(folder) / name, HALVED if name == "half" else ()))
    single, half = (shard.stat().st_size / 1e6 for shard in shards)
    return {"single_mb": single, "half_mb": half}


def store_again(data: Path, half: Collection[str]) -> Path:
    """A newer shard is what readers take, whatever older ones and .npy files hold."""
    from tts_kernel.data.features import ShardWriter
    from tts_kernel.data.features.features import FOLDER, Features

    features = Features(data)
    with ShardWriter(data / FOLDER, "again-000001", half=half) as shard:
        for kind in HALVED:
            clips = features.lengths(kind)["clip"].to_pylist()
            for clip, array in zip(clips, features.read_kind(kind, clips), strict=True):
                shard.add(clip, kind, array)
    return shard.path


def losses(data: str, run_folder: str, steps: int, seed: int) -> Figures:
    """Validation losses of stage 2: of the base model as it is, and after `steps` steps of training on this folder."""
    from tts_kernel.recipes import indextts2 as recipe
    from tts_kernel.recipes.indextts2.demo import CHECKPOINT
    from tts_kernel.recipes.indextts2.settings import Settings
    from tts_kernel.runs import Run

    settings = Settings(
        data=data,
        base_checkpoint=f"{data}/{CHECKPOINT}",
        model_config=f"{data}/base/config.yaml",
        speaker_min_clips=1,
        grad_accumulation=1,
        learning_rate=5.0e-5,
        warmup_steps=min(10, steps),
        validate_every=steps,
        max_steps=steps,
        num_workers=0,
        device="cpu",
        seed=seed,
    )
    run = Run(Path(run_folder))
    run.checkpoints.mkdir(parents=True)
    outcome = recipe.train(recipe.prepare(settings, run), run)
    return {"before": outcome.val_before["val/loss"], "after": outcome.val_after["val/loss"]}


TITLE = "float16 features"
METHOD = f"""Mels and conditions of the demo corpus in the packed store, as float32 (left) and as float16 (right);
stage 2 of the demo's model reads either. Loss: 0.2 text + 0.8 code cross-entropy on held-out clips, of the base model
as it is, and after {STEPS} steps of training on those features, everything else equal; beside it, what another seed
changes."""


def run(sizes: Sizes) -> list[Result]:
    folder = sizes.folder / "halves"
    space = measure(copy_demo, 1, folder=folder)

    def trained(features: str, seed: int = 0) -> Figures:
        place = {"data": folder / features, "run_folder": folder / f"run-{features}-{seed}"}
        return measure(losses, 1, steps=STEPS, seed=seed, **place)

    single, half, other = trained("single"), trained("half"), trained("single", seed=1)
    conditions = ROWS * LATENTS * WIDTH * 4 / 1e9
    return [
        below("disk, mels and conditions of the demo corpus", space["half_mb"], None, "MB", plain=space["single_mb"]),
        below("disk, condition [32, 1280] of 5.48 M clips (computed)", conditions / 2, None, "GB", plain=conditions),
        _loss("loss of the base model", single["before"], half["before"]),
        _loss(f"loss after {STEPS} steps", single["after"], half["after"]),
        _loss(f"for scale: loss after {STEPS} steps, float32, seeds 0 and 1", single["after"], other["after"]),
    ]


def _loss(what: str, single: float, other: float) -> Result:
    return Result(what, f"{single:.6f}", f"{other:.6f}", f"{100 * (other / single - 1):+.1g}%")
