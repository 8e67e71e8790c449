"""The published size on a GPU in bfloat16: speed, memory, and the share of the card's arithmetic that is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from benchmarks.data.measure import Figures, measure
from benchmarks.data.result import Result, amount
from benchmarks.training.corpus import make_data
from benchmarks.training.harness import BATCH_SIZE, make_round, prepared, settings_of, training_seconds
from benchmarks.training.sizes import Sizes
from tts_kernel.data.manifest import read_manifest
from tts_kernel.models.indextts2.config import GPTConfig

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "RTX 4090": 165e12}  # bfloat16 operations/s without sparsity
STEPS = 100
COMMAND = "python -m benchmarks.training --only gpu"

TITLE = "On a GPU"
METHOD = f"""The published size (24 layers, 1280 wide), stage 2, batch 16, bfloat16, the recipe's defaults, {STEPS}
steps; `{COMMAND}` measures it and keeps the other tables. Utilisation: 6 operations per weight and position of
backbone and heads, 12 per layer, width and pair of positions that attend, over the card's peak; the conditioners are
not counted."""


def trained(data: str, run: str, manifest: str, device: str) -> Figures:
    """Speeds and memory of the recipe's run, and the arithmetic in it."""
    from tts_kernel.recipes import indextts2 as recipe

    settings = settings_of(
        data, 2, manifest, device=device, precision="bfloat16", num_workers=min(os.cpu_count() or 1, 4), log_every=10
    )
    ready, folder = prepared(run, settings)
    steps = recipe.train(ready, folder).step
    pairs = read_manifest(Path(data) / manifest)
    text, codes = (pairs.numbers(f"target_{kind}_len").astype(float) for kind in ("text", "code"))
    seconds = training_seconds(folder)
    return {
        "steps_per_second": steps / seconds,
        "tokens_per_second": float((text + codes).sum()) / seconds,
        "operations_per_second": operations(ready.config, text, codes) / seconds,
        "memory_gb": max(record.get("train/memory_gb") or 0.0 for record in folder.records()),
    }


def operations(config: GPTConfig, text: Any, codes: Any) -> float:
    """Multiplications and additions of backbone and heads, forward and backward, without padding; lengths per row."""
    positions = config.condition_num_latent + 2 + text + 2 + codes + 1
    weights = 12 * config.layers * config.model_dim**2
    heads = config.model_dim * ((text + 1) * (config.number_text_tokens + 1) + (codes + 1) * config.number_mel_codes)
    attention = 12 * config.layers * config.model_dim * positions * (positions + 1) / 2
    return float((6 * weights * positions + 6 * heads + attention).sum())


def run(sizes: Sizes) -> list[Result]:
    if not torch.cuda.is_available():
        return [Result("nothing: no GPU could be had for this page", why=f"not measured; `{COMMAND}`")]
    data = str(sizes.folder / "gpu")
    measure(make_data, 1, data=data, shape="published", pairs=(STEPS + 4) * BATCH_SIZE)
    manifest = make_round(data, 0, 1, STEPS)
    figures = measure(trained, 1, data=data, run=sizes.folder / "run-gpu", manifest=manifest, device="cuda")
    return described(figures, torch.cuda.get_device_name())


def described(figures: Figures, card: str) -> list[Result]:
    peak = next((value for name, value in PEAKS.items() if name in card), None)
    used = figures["operations_per_second"]
    return [
        Result(f"{card}: steps", ours=amount(figures["steps_per_second"], "/s")),
        Result("tokens without padding", ours=amount(figures["tokens_per_second"], "/s")),
        Result("operations", ours=amount(used / 1e12, "T/s")),
        Result("of the card's peak", ours=f"{100 * used / peak:.0f} %" if peak else "its peak is not known here"),
        Result("memory at its peak", ours=amount(figures["memory_gb"], "GB")),
    ]
