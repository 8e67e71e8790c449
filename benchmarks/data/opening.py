"""From a cold start of Python to the first batch, with a manifest that was imported before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.measure import Figures, Stopwatch, measure, peak_mb, since_start
from benchmarks.data.result import Result, Sizes, below
from benchmarks.data.sampling import BATCH_SIZE, plan_of
from benchmarks.data.store import LATENTS, WIDTH

FILES = ("target_text_ids_path", "target_codes_path", "prompt_condition_path", "prompt_emo_vec_path")


def plan_and_first(manifest: Any) -> Any:
    """The first batch's rows of length-bucketed, shuffled epochs over the whole manifest."""
    from tts_kernel.data.sampler import Position

    return next(plan_of(manifest).epoch(Position()))


def prepare(path: str) -> Figures:
    """Import, and make the files that the first batch names."""
    from tts_kernel.data.manifest import read_manifest

    manifest = read_manifest(Path(path))
    generator = np.random.default_rng(0)
    chosen = manifest.take(plan_and_first(manifest).rows)
    arrays: dict[str, Callable[[int], np.ndarray]] = {
        "target_text_ids_path": lambda row: generator.integers(2, 12_000, chosen.numbers("target_text_len")[row]),
        "target_codes_path": lambda row: generator.integers(0, 8192, chosen.numbers("target_code_len")[row]),
        "prompt_condition_path": lambda row: generator.standard_normal((LATENTS, WIDTH), dtype=np.float32),
        "prompt_emo_vec_path": lambda row: generator.standard_normal(WIDTH, dtype=np.float32),
    }
    for column, make in arrays.items():
        for row, name in enumerate(chosen.strings(column).to_pylist()):
            file = manifest.root / name
            file.parent.mkdir(exist_ok=True)
            np.save(file, make(row), allow_pickle=False)
    return {"files": len(arrays) * BATCH_SIZE}


def first_arrays(path: str) -> Figures:
    """Without torch: manifest, plan, and the arrays of the first batch."""
    from tts_kernel.data.features import Features
    from tts_kernel.data.manifest import read_manifest

    with Stopwatch() as opening:
        manifest = read_manifest(Path(path))
        chosen = manifest.take(plan_and_first(manifest).rows)
        features = Features(manifest.root)
        arrays = [array for column in FILES for array in features.read(chosen.strings(column).to_pylist())]
    assert len(arrays) == len(FILES) * BATCH_SIZE
    return {"opening": opening.seconds, "whole": since_start()}


def first_batch(path: str) -> Figures:
    """With torch: manifest, plan, and the first padded batch."""
    with Stopwatch() as torch_alone:
        import torch  # noqa: F401
    before = peak_mb()
    from tts_kernel.data.batch import Limits, PairDataset
    from tts_kernel.data.manifest import read_manifest

    manifest = read_manifest(Path(path))
    limits = Limits(12_000, 8194, 600, 1815, (LATENTS, WIDTH), 1024, 80)
    speakers = np.zeros(len(manifest), dtype=np.int64)
    batch = PairDataset(manifest, limits, speakers, emotion="stored", speaker="stored")[plan_and_first(manifest)]
    assert len(batch.ids) == BATCH_SIZE
    return {
        "torch": torch_alone.seconds,
        "torch_mb": before,
        "rest": since_start() - torch_alone.seconds,
        "rest_mb": peak_mb() - before,
    }


TITLE = "Warm open to first batch"
METHOD = """From the start of a new Python process: imports, `read_manifest` of a manifest that was imported before,
`BatchPlan` over every row, and the first 16 pairs from real feature files. Once without torch, to the arrays; once to
the padded `Batch`, with what `import torch` alone costs stated apart."""


def run(sizes: Sizes) -> list[Result]:
    measure(prepare, 1, path=sizes.manifest)
    arrays = measure(first_arrays, sizes.repeats, path=sizes.manifest)
    batch = measure(first_batch, sizes.repeats, path=sizes.manifest)
    full = sizes.full
    return [
        below("to the first batch's arrays, imports included", arrays["whole"], 2, judged=full),
        below("of it: open, plan, read", arrays["opening"]),
        below("peak memory", arrays["peak_mb"], 400, "MB", judged=full),
        below("to the padded batch, without `import torch`", batch["rest"], 2, judged=full),
        below("memory on top of torch's", batch["rest_mb"], 400, "MB", judged=full),
        below("apart: `import torch`", batch["torch"]),
        below("apart: memory after `import torch`", batch["torch_mb"], None, "MB"),
    ]
