"""`make bench-training` at a tiny size: the loops compared train on the same and compute the same; the page says what
was measured, never what it took."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.data import measure as measuring
from benchmarks.data.measure import ROOT, MeasureError
from benchmarks.data.result import FAILED, Result
from benchmarks.training import __main__ as bench
from benchmarks.training import corpus, gpu, harness, losses, plain
from benchmarks.training.harness import make_round, prepared, settings_of, tokens_of
from benchmarks.training.report import Piece, render
from benchmarks.training.sizes import Sizes
from tests.tiny import read_rows
from tts_kernel.models.indextts2.config import ConditionerConfig, GPTConfig
from tts_kernel.recipes.indextts2.model import build_model
from tts_kernel.recipes.indextts2.objective import PairObjective

_NARROW = ConditionerConfig(output_size=32, linear_units=32, attention_heads=2, num_blocks=1, perceiver_mult=1)
SMALL = replace(
    corpus.SHAPES["small"],
    layers=2,
    model_dim=64,
    heads=1,
    condition_num_latent=4,
    condition_module=_NARROW,
    emo_condition_module=_NARROW,
    emotion_width=32,
)
BATCH_SIZE = 4
TINY = ["--pairs", "96", "--steps", "2", "--rounds", "1", "--seeds", "1", "--overhead-steps", "2", "--shape", "small"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model for seconds, and functions called here instead of in a process of their own."""

    def called(function: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"peak_mb": 1.0, **function(**json.loads(json.dumps(arguments, default=str)))}

    monkeypatch.setitem(corpus.SHAPES, "small", SMALL)
    monkeypatch.setitem(corpus.SHAPES, "published", SMALL)
    monkeypatch.setattr(corpus, "HELD_OUT", 8)
    monkeypatch.setattr(harness, "BATCH_SIZE", BATCH_SIZE)
    monkeypatch.setattr(measuring, "_one_run", called)


@pytest.fixture
def data(tmp_path: Path) -> str:
    corpus.make_data(str(tmp_path / "data"), "small", pairs=120)
    return str(tmp_path / "data")


@pytest.mark.parametrize("stage", [2, 3])
def test_the_plain_loop_and_ours_have_the_same_loss_on_the_same_batch(data: str, tmp_path: Path, stage: int) -> None:
    ready, _ = prepared(str(tmp_path / "run"), settings_of(data, stage, corpus.TRAIN))
    model = build_model(ready.settings, ready.config).eval()
    objective = PairObjective(model, ready.settings, horizon=10)
    ways = {"plain": plain.Ways(), "ours": plain.Ways(real_positions=True, packed_store=True)}
    [first, second] = (next(plain.batches(ready, way, seed=3)) for way in ways.values())
    assert first.ids == second.ids
    assert len(set(first.text_lengths.tolist())) > 1, "without padding there is nothing to compare"
    found = {
        name: plain._loss(model, batch, ways[name], ready.settings)
        for name, batch in zip(ways, (first, second), strict=True)
    }
    sums, counts = objective(second), objective.counts(second)
    expected = sum(weight * sums[name] / counts[name] for name, weight in objective.weights.items())
    torch.testing.assert_close(found["plain"], found["ours"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["plain"], expected, rtol=1e-5, atol=1e-5)


def test_every_way_trains_on_every_pair_once(data: str, tmp_path: Path) -> None:
    ready, _ = prepared(str(tmp_path / "run"), settings_of(data, 3, corpus.TRAIN))
    ids = sorted(row["id"] for row in read_rows(Path(data) / corpus.TRAIN))
    for ways in (plain.Ways(), plain.Ways(buckets=True), plain.Ways(buckets=True, packed_store=True)):
        batches = list(plain.batches(ready, ways, seed=0))
        assert sorted(name for batch in batches for name in batch.ids) == ids
        padding = sum(int(batch.codes.numel() - batch.code_lengths.sum()) for batch in batches)
        total = sum(int(batch.code_lengths.sum()) for batch in batches)
        assert (padding / total < 0.2) == ways.buckets


def test_a_corpus_is_as_long_as_its_manifest_says_and_holds_out_what_it_validates_on(data: str) -> None:
    root = Path(data)
    trained, held = read_rows(root / corpus.TRAIN), read_rows(root / corpus.VALIDATION)
    assert len(held) == 8
    seen = {row[role] for row in trained for role in ("target_id", "prompt_id")}
    assert not seen & {row["target_id"] for row in held}
    for row in (*trained[:5], *held[:2]):
        for kind, name in (("text", "text_ids"), ("code", "codes"), ("mel", "mel")):
            assert row[f"target_{kind}_len"] == len(np.load(root / name / f"{row['target_id']}.npy"))
    codes = np.load(root / "codes" / f"{trained[0]['target_id']}.npy")
    assert codes.max() < SMALL.num_codes


def test_rounds_are_the_corpus_in_small_and_share_no_pair(data: str) -> None:
    root = Path(data)
    whole = [row["target_code_len"] for row in read_rows(root / corpus.TRAIN)]
    rounds = [read_rows(root / make_round(data, number, 2, batches=3)) for number in range(2)]
    assert not {row["id"] for row in rounds[0]} & {row["id"] for row in rounds[1]}
    for rows, number in zip(rounds, range(2), strict=True):
        lengths = [row["target_code_len"] for row in rows]
        assert len(rows) == 3 * BATCH_SIZE
        assert np.mean(lengths) == pytest.approx(np.mean(whole), rel=0.3)
        assert max(lengths) > np.quantile(whole, 0.6)
        assert min(lengths) < np.quantile(whole, 0.4)
        texts = [row["target_text_len"] for row in rows]
        assert tokens_of(root / f"round{number}.jsonl") == sum(lengths) + sum(texts)


def test_the_page_has_every_piece_and_judges_none_below_its_size(tmp_path: Path) -> None:
    output, kept = tmp_path / "docs" / "training.md", tmp_path / "kept"
    places = ["--scratch", str(tmp_path), "--output", str(output), "--kept", str(kept)]
    chosen = ["throughput", "losses", "overhead", "checkpoints", "gpu"]  # the others start processes of their own
    assert bench.main([*TINY, "--gigabytes", "0.002", *places, "--only", *chosen]) == 0
    page = output.read_text(encoding="utf-8")
    titles = [subject.TITLE for subject, name in zip(bench.SUBJECTS, bench.NAMES, strict=True) if name in chosen]
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == titles
    assert "0 of 0 targets met" in page
    assert page.count("plain loop + ") == 5
    assert gpu.COMMAND in page
    assert list(tmp_path.glob("bench-training-*")) == []
    assert {path.stem for path in kept.glob("*.json")} == set(chosen)


def test_a_piece_measured_alone_takes_its_place_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([1.0, 2.0, 3.0])
    asked: list[str] = []

    def run(sizes: Sizes) -> list[Result]:
        asked.append(str(sizes.folder))
        return [Result(f"value {next(values):g}")]

    for name in ("losses", "overhead"):
        monkeypatch.setattr(getattr(bench, name), "run", run)
    places = ["--output", str(tmp_path / "page.md"), "--kept", str(tmp_path / "kept")]
    assert bench.main([*places, "--only", "losses", "overhead"]) == 0
    assert bench.main([*places, "--only", "overhead"]) == 0
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert re.findall(r"value (\d)", page) == ["1", "3"]
    assert bench.main([*places, "--only", "losses", "overhead", "--resume"]) == 0
    assert len(asked) == 3, "it measured what there was"


def test_a_piece_that_fails_is_a_line_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(sizes: Sizes) -> list[Result]:
        raise MeasureError("benchmarks.training.harness.plain: out of ink")

    monkeypatch.setattr(bench.overhead, "run", broken)
    places = ["--output", str(tmp_path / "page.md"), "--kept", str(tmp_path / "kept")]
    assert bench.main([*places, "--only", "overhead"]) == 1
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "nothing: benchmarks.training.harness.plain: out of ink" in page
    assert FAILED in page


def test_what_falls_short_is_said_at_the_top_and_machines_that_differ_at_the_piece() -> None:
    slow = Result("tokens", "1 /s", "2 /s", "2.0x", ">= 2.4x", met=False)
    good = Result("blocked", ours="3 %", target="< 15 %", met=True)
    pieces = [
        Piece("a", "Speed", "How.", "2026-11-21 10:00", "a laptop", 1.0, 0.1, [slow]),
        Piece("b", "Saves", "How.", "2026-11-22 10:00", "a server", 1.0, 0.1, [good, Result("cards", why="no GPU")]),
    ]
    head, *tables = render(pieces).split("\n## ")
    assert "**1 of 2 targets met.** Short:\n\n- Speed, tokens: 2.0x (>= 2.4x)\n" in head
    assert "- not judged: Saves, cards: no GPU" in head
    assert "Measured 2026-11-21 10:00 UTC on a laptop" in tables[0]
    assert "on a server" in tables[1]


@pytest.mark.parametrize(
    ("ours", "met"),
    [([2.00, 2.02, 2.01], True), ([2.03, 2.07, 2.05], False), ([1.9, 2.4, 2.2], True)],
    ids=["under 1 %", "2 % and steady", "10 % within its noise"],
)
def test_losses_are_equal_within_the_noise_of_seeds(ours: list[float], met: bool) -> None:
    result = losses.compared("loss", [2.0, 2.01, 1.99], ours, judged=True)
    assert result.met is met
    assert losses.compared("loss", [2.0], [2.5], judged=False).met is None


def test_operations_are_those_of_the_matrices() -> None:
    sizes = {"layers": 2, "model_dim": 8, "heads": 2, "condition_num_latent": 3}
    codebook = {"number_text_tokens": 10, "number_mel_codes": 12, "start_mel_token": 10, "stop_mel_token": 11}
    config = GPTConfig(**sizes, **codebook)
    text, codes = np.array([4.0]), np.array([5.0])
    positions = 3 + 2 + 6 + 6
    matrices = 6 * positions * 2 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 32)  # attention's four and the feed-forward's two
    heads = 6 * 8 * (5 * 11 + 6 * 12)
    attention = 3 * 2 * sum(2 * 8 * 2 * seen for seen in range(1, positions + 1))  # scores and sums, causal
    assert gpu.operations(config, text, codes) == matrices + heads + attention


def test_the_gpu_piece_runs_and_knows_the_peak_of_a_card(data: str, tmp_path: Path) -> None:
    manifest = make_round(data, 0, 1, 2)
    figures = gpu.trained(data, str(tmp_path / "run"), manifest, "cpu")
    assert all(figures[name] > 0 for name in ("steps_per_second", "tokens_per_second", "operations_per_second"))
    shown = gpu.described({**figures, "operations_per_second": 494.5e12}, "NVIDIA H200")
    assert next(result.ours for result in shown if "peak" in result.what) == "50 %"
    assert "not known" in gpu.described(figures, "a card")[3].ours


def test_the_makefile_has_the_command() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"bench-training:.*\n\t@\$\(BIN\)/python -m benchmarks\.training ", makefile)
