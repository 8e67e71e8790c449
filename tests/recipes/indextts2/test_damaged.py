"""The demo's damaged run, with the tiny corpus in the place of the demo's."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.conftest import CorpusMaker
from tests.recovery.damage import contents
from tests.tiny_voice import LATENTS, Bench
from tests.training.loop import at_step
from tts_kernel.recipes.indextts2 import damaged
from tts_kernel.recipes.indextts2.damaged import Damage, damage_demo
from tts_kernel.runs import Run, RunError

DAMAGE = Damage(factor=1000.0, steps=10)


@pytest.fixture
def runs(tmp_path: Path, make_tiny_corpus: CorpusMaker, monkeypatch: pytest.MonkeyPatch) -> Path:
    bench = Bench(tmp_path, make_tiny_corpus(latents=LATENTS))
    small = bench.settings(
        stage=3,
        train_manifest="gpt_pairs_train.jsonl",
        epochs=8,
        schedule="constant",
        validate_every=5,
        save_every=5,
        keep_checkpoints=100,
        on_spike="ignore",
    )
    monkeypatch.setattr(damaged, "HEALTHY", small)
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_the_run_is_ruined_half_way_and_nothing_from_before_is_left(runs: Path) -> None:
    run = damage_demo("ko", DAMAGE, "cpu")
    assert run.folder == runs / "ko"
    steps, losses = run.series("train/text_loss")
    assert steps == list(range(1, 21)), "each step is a point of the curve"
    assert min(losses[12:]) > 1.2 * max(losses[:10])
    rates = run.series("train/lr")[1]
    assert rates[15] == pytest.approx(1000 * rates[5])
    left = sorted(path.name for path in run.checkpoints.glob("*.pth"))
    assert left == ["latest.pth", "latest_full.pth", "step_00015.pth", "step_00020.pth"]


def test_one_that_is_there_is_taken_as_it_is_and_never_for_another(runs: Path) -> None:
    damage_demo("ko", DAMAGE, "cpu")
    before = contents(runs / "ko")
    damage_demo("ko", DAMAGE, "cpu")
    assert contents(runs / "ko") == before
    with pytest.raises(RunError, match=r"is no demo with Damage\(factor=30\.0, steps=10\)"):
        damage_demo("ko", Damage(30.0, 10), "cpu")
    (runs / "mine").mkdir()
    with pytest.raises(RunError, match="is there and is no demo"):
        damage_demo("mine", DAMAGE, "cpu")
    assert contents(runs / "ko") == before


@pytest.mark.parametrize("killed_at", [3, 13])
def test_one_whose_making_was_killed_is_finished(runs: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int) -> None:
    def kill(step: int) -> None:
        if step == killed_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_step(patch, kill)
        with pytest.raises(KeyboardInterrupt):
            damage_demo("ko", DAMAGE, "cpu")
    damage_demo("ko", DAMAGE, "cpu")
    assert Run(runs / "ko").series("train/text_loss")[0] == list(range(1, 21))


@pytest.mark.usefixtures("runs")
def test_its_steps_are_in_the_metrics_and_not_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("tts_kernel"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="tts_kernel"):
        damage_demo("ko", DAMAGE, "cpu")
        assert "to step 10 at rate" in caplog.text
        assert "steps/s" not in caplog.text
        assert logging.getLogger("tts_kernel.training.report").isEnabledFor(logging.INFO), "of the next training again"
