"""The ablation: its variants, what is the same for all of them, and what it says of what cannot be measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tts_kernel.data.manifest import read_manifest
from tts_kernel.data.sampler import Position
from tts_kernel.models.indextts2.config import GPTConfig
from tts_kernel.recipes.indextts2 import ablation
from tts_kernel.recipes.indextts2.ablation import Bench, Settings, conclude, measure, model_flops, open_bench
from tts_kernel.recipes.indextts2.settings import Settings as RecipeSettings
from tts_kernel.recipes.indextts2.synthetic import open_synthetic, published_shape
from tts_kernel.recipes.indextts2.train import dataset, make_trainer, prepare
from tts_kernel.recipes.indextts2.variants import PLAIN, Variant, claims, make_variants, table
from tts_kernel.runs import Run
from tts_kernel.settings import SettingsError, read_settings
from tts_kernel.training.memory import Peak
from tts_kernel.training.processes import Processes
from tts_kernel.widgets.ablation import ablation as figure
from tts_kernel.widgets.ablation import claimed_range

CPU = torch.device("cpu")
SMALL = {"layers": 1, "model_dim": 64, "batch_size": 3, "steps": 2, "rounds": 2, "device": "cpu"}


def by_name(variants: list[Variant]) -> dict[str, Variant]:
    assert len({variant.name for variant in variants}) == len(variants)
    return {variant.name: variant for variant in variants}


def test_without_a_gpu_its_switches_are_named_with_a_reason_and_are_in_no_sum() -> None:
    variants = by_name(make_variants(CPU, "off", num_workers=0))
    reasons = {name: variant.why_not for name, variant in variants.items() if variant.kind == "alone"}
    assert reasons["TF32"] == reasons["cuDNN benchmark"] == "needs a GPU"
    assert reasons["torch.compile"] == "compile is off"
    assert reasons["DataLoader"] == "num_workers is 0"
    assert reasons["fused attention"] == reasons["Prodigy"] == reasons["length buckets"] == ""
    assert variants["+ TF32"].why_not == "needs a GPU"
    everything = variants["all, with fused AdamW and buckets"].changes
    assert not {"tf32", "cudnn_benchmark", "compile", "num_workers"} & everything.keys()
    assert everything["length_buckets"]
    assert everything["attention"] == "fused"


def test_cumulative_variants_add_one_switch_after_the_other_in_the_guides_order() -> None:
    steps = [v for v in make_variants(CPU, "default", num_workers=2) if v.kind == "cumulative" and not v.why_not]
    assert len(steps) >= 2
    before = {"optimizer": "prodigy", "learning_rate": 1.0}
    for step in steps:
        assert before.items() < step.changes.items(), step.name
        before = step.changes
    order = [name for name, _, _ in claims()]
    assert order == [
        "Prodigy", "torch.compile", "fused attention", "cuDNN benchmark", "TF32", "DataLoader", "bf16 autocast",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["off", "default"])
def test_every_variant_is_a_setting_of_the_recipe_and_differs_from_the_plain_one(mode: Any) -> None:
    plain = RecipeSettings(**PLAIN)
    for variant in make_variants(CPU, mode, num_workers=2)[1:]:
        assert RecipeSettings(**{**PLAIN, **variant.changes}) != plain, variant.name


def test_width_and_depth_go_together() -> None:
    with pytest.raises(SettingsError, match="layers and model_dim: found 4 and 0"):
        read_settings(Settings, {"layers": 4})
    with pytest.raises(SettingsError, match="model_dim"):
        read_settings(Settings, {"layers": 4, "model_dim": 100})


def test_flops_of_a_batch_by_hand() -> None:
    class Lengths:
        text_lengths, code_lengths = torch.tensor([3]), torch.tensor([7])

    config = GPTConfig(layers=2, model_dim=64, heads=1, condition_num_latent=5, number_text_tokens=11)
    n = 5 + 2 + 3 + 7 + 3
    blocks = 6 * 2 * 12 * 64**2 * n
    attention = 2 * 3 * (2 * 2 * 64 * n * n / 2)  # two layers, forward and twice backward, half of the square
    heads = 6 * 64 * (11 * 4 + 8194 * 8)
    assert model_flops(config, Lengths()) == pytest.approx(blocks + attention + heads)  # type: ignore[arg-type]


def test_the_published_shape_is_the_published_one() -> None:
    full, published = published_shape(24, 1280), GPTConfig().reading("mel")
    assert full == published
    small = published_shape(2, 128)
    assert (small.layers, small.model_dim, small.heads) == (2, 128, 2)


def test_synthetic_pairs_have_the_guides_lengths_and_are_made_once(tmp_path: Path) -> None:
    config = published_shape(1, 64)
    folder = open_synthetic(tmp_path / "pairs", config, 60)
    manifest = read_manifest(folder / "gpt_pairs_train_mel.jsonl")
    text, codes, mels = (manifest.numbers(f"target_{name}_len") for name in ("text", "code", "mel"))
    assert (len(text), text.min() >= 20, text.max() <= 120) == (60, True, True)
    assert (codes.min() >= 50, codes.max() <= 500) == (True, True)
    np.testing.assert_allclose(mels / codes, 22050 / 256 / 25, rtol=0.02)
    before = (folder / "base" / "gpt.pth").stat().st_mtime_ns
    assert open_synthetic(folder, config, 60) == folder
    assert (folder / "base" / "gpt.pth").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["pairs"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("TTS_KERNEL_CACHE", str(tmp_path / "cache"))
    return open_bench(Settings(**SMALL), new_run(tmp_path))  # type: ignore[arg-type]


def new_run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "runs" / "bench")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    return run


def test_the_plain_and_the_bucketed_variant_see_the_same_pairs(bench: Bench, tmp_path: Path) -> None:
    seen = []
    for changes in ({}, {"length_buckets": True}):
        settings = RecipeSettings(**{**vars_of(bench.recipe), **changes})
        prepared = ablation._same_pairs(prepare(settings, new_run(tmp_path)), bench.rows)
        data = dataset(settings, prepared.config, prepared.corpus.train, prepared.corpus.mapping)
        seen.append(sorted(name for planned in prepared.plan.epoch(Position()) for name in data[planned].ids))
    assert seen[0] == seen[1]
    assert len(seen[0]) == SMALL["batch_size"] * SMALL["steps"]  # type: ignore[operator]


@pytest.mark.parametrize(("fused", "expected"), [(True, True), (False, None)])
def test_the_switch_of_fused_adamw_reaches_the_optimizer(
    bench: Bench, tmp_path: Path, fused: bool, expected: bool | None
) -> None:
    settings = RecipeSettings(**{**vars_of(bench.recipe), "fused_optimizer": fused})
    run = new_run(tmp_path)
    trainer = make_trainer(prepare(settings, run), run, Processes.from_environment("cpu"))
    assert {group["fused"] for group in trainer.optimizer.param_groups} == {expected}


def vars_of(settings: RecipeSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in RecipeSettings.__dataclass_fields__}


@pytest.mark.slow
def test_a_whole_ablation_measures_what_it_can_and_names_the_rest(bench: Bench, tmp_path: Path) -> None:
    chosen = ("plain", "fused attention", "fused AdamW", "TF32", "all, with fused AdamW and buckets")
    fewer = Bench(**{**bench.__dict__, "variants": [v for v in bench.variants if v.name in chosen]})
    run = new_run(tmp_path)
    lines = {line["name"]: line for line in measure(fewer, run)}
    assert tuple(lines) == ("plain", "fused attention", "TF32", "fused AdamW", "all, with fused AdamW and buckets")
    assert lines["plain"]["speedup"] == 1.0
    assert lines["TF32"] == {
        "name": "TF32", "kind": "alone", "claimed": "1.20-1.30", "not_measurable": "needs a GPU",
    }  # fmt: skip
    for name, line in lines.items():
        if name != "TF32":
            assert line["tokens_per_second"] > line["steps_per_second"] > 0
            assert math.isfinite(line["val_loss"])
            assert line["utilisation"] is None
    # The same steps from the same weights on the same batches: only rounding and what dropout drops differ.
    assert lines["fused AdamW"]["val_loss"] == pytest.approx(lines["plain"]["val_loss"], rel=1e-4)
    shown = table(list(lines.values()))
    assert "not measurable here: needs a GPU" in shown
    assert json.loads((run.folder / "ablation.json").read_text(encoding="utf-8")) == list(lines.values())
    assert figure(run).is_file()
    result = conclude(list(lines.values()), fewer)
    assert result["device"] == "CPU"
    assert result["all_speedup"] == lines["all, with fused AdamW and buckets"]["speedup"]


def test_more_pairs_than_there_are_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_KERNEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ablation, "open_synthetic", lambda folder, shape, pairs, seed: open_synthetic(folder, shape, 4))
    with pytest.raises(ValueError, match="steps x batch_size is 6, the corpus has 4 pairs"):
        open_bench(Settings(**SMALL), new_run(tmp_path))  # type: ignore[arg-type]


def test_the_peak_of_memory_is_that_since_it_was_asked_for() -> None:
    peak = Peak(CPU)
    if peak.gigabytes() is None:
        pytest.skip("this system does not tell")
    before = peak.gigabytes()
    held = torch.ones(75_000_000)  # 0.3 GB
    with_it = peak.gigabytes()
    del held
    assert before is not None
    assert with_it is not None
    assert 0.2 < with_it - before < 0.5
    assert (Peak(CPU).gigabytes() or 0.0) < with_it - 0.2


@pytest.mark.parametrize(
    ("claimed", "expected"), [("1.10-1.15", (1.1, 1.15)), ("1.40", (1.4, 1.4)), ("2-4 of attention", None), ("", None)]
)
def test_only_factors_of_the_whole_are_drawn(claimed: str, expected: tuple[float, float] | None) -> None:
    assert claimed_range(claimed) == expected
