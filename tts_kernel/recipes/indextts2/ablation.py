"""What each optimisation is worth on the machine at hand: the recipe's own updates, variant by variant, in rounds."""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from tts_kernel.data.batch import Batch
from tts_kernel.data.sampler import BatchPlan, Position
from tts_kernel.models.indextts2.config import GPTConfig
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.optim.optimizers import training_mode
from tts_kernel.recipes.indextts2.settings import Count
from tts_kernel.recipes.indextts2.settings import Settings as RecipeSettings
from tts_kernel.recipes.indextts2.synthetic import open_synthetic, published_shape
from tts_kernel.recipes.indextts2.train import Prepared, make_trainer, prepare, speed_settings
from tts_kernel.recipes.indextts2.variants import PLAIN, Variant, make_variants
from tts_kernel.runs import Run, cache_folder, write_atomically
from tts_kernel.settings import STRICT
from tts_kernel.training.memory import Peak
from tts_kernel.training.processes import Processes
from tts_kernel.training.speed import CompileMode, DeviceName, choose_device, switched
from tts_kernel.training.trainer import Trainer

log = logging.getLogger(__name__)

VALIDATION_ROWS = 64  # at most


@checked_dataclass(frozen=True, config=STRICT)
class Settings:
    """Everything an ablation depends on. The defaults are the embedded demo on a CPU."""

    run_name: str = ""  # empty for ablation-<UTC time>
    layers: Annotated[int, Field(ge=0)] = 0  # with fresh weights and random pairs; 0 for the embedded demo
    model_dim: Annotated[int, Field(ge=0, multiple_of=64)] = 0  # width of that model
    batch_size: Count = 16  # pairs per update
    steps: Count = 4  # updates per variant and round, the same pairs in each
    rounds: Count = 3  # all variants once in each; the medians count
    compile: CompileMode = "off"  # mode of torch.compile, whose first step takes minutes; off leaves it out
    num_workers: Annotated[int, Field(ge=0)] = 2  # of the DataLoader switch
    device: DeviceName = "auto"
    peak_tflops: Annotated[float, Field(ge=0)] = 0.0  # of the device in bf16, for FLOP utilisation; 0 not to report it
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if bool(self.layers) != bool(self.model_dim):
            raise ValueError(
                f"layers and model_dim: found {self.layers} and {self.model_dim}; give both, or 0 and 0 for the demo"
            )
        return self


@dataclass(frozen=True)
class Bench:
    """What all variants share: the recipe's settings but for the switches, the pairs, and the model's size."""

    settings: Settings
    recipe: RecipeSettings
    device: torch.device
    variants: list[Variant]
    config: GPTConfig
    parameters: int
    rows: np.ndarray  # of the training manifest, that every variant trains on in every round

    def __str__(self) -> str:
        return (
            f"{self.config.layers} layers, {self.config.model_dim} wide, {self.parameters:,} parameters; in each of "
            f"{self.settings.rounds} rounds {self.settings.steps} updates of {self.settings.batch_size} pairs"
        )


@dataclass
class Measured:
    """One variant, over the rounds so far."""

    variant: Variant
    first_step: float = 0.0  # seconds, of the first round: compilation and all that is done once
    seconds: list[float] = field(default_factory=list)  # of the updates of each round
    tokens: int = 0  # text and code targets of one round, without padding
    flops: float = 0.0  # that the model needs for them; see `model_flops`
    memory: float | None = None  # GB at the peak; None where it cannot be measured
    loss: float = float("nan")  # validation, after equal steps

    def facts(self, steps: int, peak_tflops: float, plain: float | None) -> dict[str, Any]:
        """A line of the table; `plain` is the plain variant's tokens per second."""
        line: dict[str, Any] = {"name": self.variant.name, "kind": self.variant.kind, "claimed": self.variant.claimed}
        if self.variant.why_not:
            return line | {"not_measurable": self.variant.why_not}
        seconds = median(self.seconds)
        return line | {
            "steps_per_second": steps / seconds,
            "tokens_per_second": self.tokens / seconds,
            "speedup": self.tokens / seconds / plain if plain else 1.0,
            "spread": (max(self.seconds) - min(self.seconds)) / seconds,
            "memory_gb": self.memory,
            "val_loss": self.loss,
            "first_step_seconds": self.first_step,
            "utilisation": self.flops / seconds / (peak_tflops * 1e12) if peak_tflops else None,
        }


def open_bench(settings: Settings, run: Run) -> Bench:
    """The data, the model's size and the variants. Raises ValueError where there are fewer pairs than are asked for."""
    device = choose_device(settings.device)
    wanted = settings.batch_size * settings.steps
    small: dict[str, Any] = {"batch_size": settings.batch_size, "grad_accumulation": 1, "seed": settings.seed}
    small |= {"warmup_steps": 0, "speaker_min_clips": 1, "device": settings.device, "aim": False}
    small |= {"background_saves": False, "epochs": 1, **PLAIN}
    if settings.layers:
        shape = published_shape(settings.layers, settings.model_dim)
        name = f"synthetic-{settings.layers}x{settings.model_dim}-{wanted}-{settings.seed}"
        data = open_synthetic(cache_folder() / name, shape, wanted, settings.seed)
        small |= {"data": str(data), "base_checkpoint": str(data / "base" / "gpt.pth")}
    prepared = prepare(RecipeSettings(**small), run)
    if prepared.corpus.available < wanted:
        raise ValueError(
            f"steps x batch_size is {wanted}, the corpus has {prepared.corpus.available} pairs; lower one of them"
        )
    order = np.random.default_rng(settings.seed).permutation(prepared.corpus.available)[:wanted]
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in UnifiedVoice(prepared.config).parameters())
    return Bench(
        settings,
        prepared.settings,
        device,
        make_variants(device, settings.compile, settings.num_workers),
        prepared.config,
        parameters,
        prepared.corpus.train_rows[np.sort(order)],
    )


def measure(bench: Bench, run: Run) -> list[dict[str, Any]]:
    """All variants, in as many rounds as asked for, interleaved so that a busy machine is no variant's bad luck; in
    every round from the same weights. Writes ablation.json, the lines of the table, and returns them."""
    measured = [Measured(variant) for variant in bench.variants]
    for number in range(bench.settings.rounds):
        started = time.monotonic()
        for one in measured:
            if not one.variant.why_not:
                _measure_once(bench, one, run)
        log.info("round %d of %d: %.0f s", number + 1, bench.settings.rounds, time.monotonic() - started)
    plain = measured[0].tokens / median(measured[0].seconds)
    lines = [one.facts(bench.settings.steps, bench.settings.peak_tflops, plain) for one in measured]
    write_atomically(run.folder / "ablation.json", json.dumps(lines, indent=1) + "\n")
    return lines


def _measure_once(bench: Bench, one: Measured, run: Run) -> None:
    first_round = not one.seconds
    settings = replace(bench.recipe, **one.variant.changes)
    own = Run(run.folder / "variants" / f"{bench.variants.index(one.variant):02d}")
    own.checkpoints.mkdir(parents=True, exist_ok=True)
    prepared = _same_pairs(prepare(settings, own), bench.rows)
    peak = Peak(bench.device)
    with switched(speed_settings(settings), bench.device):
        with _quiet(logging.WARNING if first_round else logging.ERROR):
            trainer = make_trainer(prepared, own, Processes.from_environment(bench.settings.device))
        trainer.model.train()
        training_mode(trainer.optimizer)
        batches = chain(
            _batches(trainer), _batches(trainer)
        )  # the first is used twice: before the clock starts, and in it
        started = time.perf_counter()
        _update(trainer, next(batches))
        _wait(bench.device)
        if first_round:
            one.first_step = time.perf_counter() - started
        tokens, flops = 0, 0.0
        started = time.perf_counter()
        for _, batch in zip(range(bench.settings.steps), batches, strict=False):
            tokens += _update(trainer, batch)
            flops += model_flops(bench.config, batch)
        _wait(bench.device)
        one.seconds.append(time.perf_counter() - started)
        one.tokens, one.flops = tokens, flops
        one.memory = peak.gigabytes()
        if first_round:
            one.loss = trainer.validate()["val/loss"]
        trainer.checkpoints.close()
    del trainer, batches
    gc.collect()  # workers end with their loader
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()


def _same_pairs(prepared: Prepared, rows: np.ndarray) -> Prepared:
    """This variant on the bench's pairs alone, and a part of the validation."""
    corpus, plan = prepared.corpus, prepared.plan
    picked = np.isin(plan.rows, rows)
    buckets = prepared.settings.length_buckets
    same = BatchPlan(
        plan.rows[picked],
        plan.lengths[picked],
        len(rows),
        plan.batch_size,
        window=BatchPlan.window if buckets else plan.batch_size,
        seed=plan.seed,
    )
    held = corpus.validation_rows[:VALIDATION_ROWS]
    fewer = replace(corpus, train_rows=rows, available=len(rows), validation_rows=held)
    return replace(prepared, corpus=fewer, plan=same)


@contextmanager
def _quiet(level: int) -> Iterator[None]:
    """What a run says once would be said by every variant of every round."""
    package = logging.getLogger("tts_kernel")
    before = package.level
    package.setLevel(level)
    try:
        yield
    finally:
        package.setLevel(before)


def _batches(trainer: Trainer) -> Iterator[Batch]:
    for batch in trainer.loader.batches(Position()):
        assert isinstance(batch, Batch)
        yield batch


def _update(trainer: Trainer, batch: Batch) -> int:
    trainer.objective.before_step(trainer.now.step)
    totals, _ = trainer.updater.totals([batch])
    return trainer.update([batch], totals).tokens


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def model_flops(config: GPTConfig, batch: Batch) -> float:
    """FLOPs of one update that the GPT needs for the real positions of a batch, at 2 for a multiply-add and 3 for
    forward and backward: 6 (12 layers width^2) for each position, 6 layers width n^2 for the causal attention of n
    positions, 6 width vocabulary for each target. Padding, what is computed again, and the conditioners count nothing.
    Source: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1."""
    layers, width = config.layers, config.model_dim
    text, codes = batch.text_lengths.double(), batch.code_lengths.double()
    positions = config.condition_num_latent + 2 + text + codes + 3
    blocks = 72.0 * layers * width**2 * positions + 6.0 * layers * width * positions**2
    heads = 6.0 * width * (config.number_text_tokens * (text + 1) + config.number_mel_codes * (codes + 1))
    return float((blocks + heads).sum())


def conclude(lines: list[dict[str, Any]], bench: Bench) -> dict[str, Any]:
    """For result.json: the machine, the sizes, the table, and the fastest of all."""
    found = [line for line in lines if "not_measurable" not in line]
    best = max(found, key=lambda line: line["tokens_per_second"])
    everything = next(line for line in found if line["kind"] == "all")
    name = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else "CPU"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "settings": asdict(bench.settings),
        "parameters": bench.parameters,
        "fastest": best["name"],
        "fastest_speedup": best["speedup"],
        "all_speedup": everything["speedup"],
        "all_val_loss": everything["val_loss"],
        "plain_val_loss": found[0]["val_loss"],
        "variants": lines,
    }
