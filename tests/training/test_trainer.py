"""The loop with a real model and the real recipe, on the tiny corpus."""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_voice import Bench
from tests.training.loop import LONG, at_step, record_ids
from tts_kernel.data.batch import FeatureError
from tts_kernel.data.manifest import read_manifest
from tts_kernel.data.ordering import order_mel_first
from tts_kernel.models.weights import CheckpointError
from tts_kernel.recipes.indextts2 import train
from tts_kernel.training.checkpoints import CheckpointFolder
from tts_kernel.training.outcome import RunInterrupted, TrainingError
from tts_kernel.training.trainer import Trainer


def test_a_bad_file_stops_the_run_with_its_steps_saved(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = sorted((bench.data / "mel").glob("sp1_*.npy"))[0]

    def spoil(step: int) -> None:
        if step == 1:
            np.save(victim, np.full((20, 80), np.nan, dtype=np.float32))

    at_step(monkeypatch, spoil)
    with pytest.raises(FeatureError, match=victim.name):
        bench.train(epochs=5)
    assert bench.saved()["step"] >= 1


def test_a_loader_that_dies_of_the_stop_signal_is_a_stop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(step: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")

    at_step(monkeypatch, lambda step: killed(step) if step == 1 else None)
    with pytest.raises(RunInterrupted, match="stopped at step 1"):
        bench.train()
    assert bench.saved()["step"] == 1


def test_the_time_left_counts_to_the_last_row_that_has_a_mel(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "fit", lambda trainer: trainer.last_step)
    prepared = bench.prepare()
    waiting = replace(prepared, plan=replace(prepared.plan, available=10))
    assert train(prepared, bench.run()) == prepared.horizon == 3
    assert train(waiting, bench.run()) == 1


# Checkpoints and metrics of a run


def script_validation(monkeypatch: pytest.MonkeyPatch, losses: dict[int, float]) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda self: {"val/loss": losses[self.now.step]})


def test_a_run_whose_loss_no_longer_falls_ends_early_and_goes_on_with_more_patience(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, {0: 9.0, 1: 5.0, 2: 4.0, 3: 4.5, 4: 4.0, 5: 3.0, 6: 3.5, 7: 3.5, 8: 3.5, 9: 3.5})
    often: dict[str, Any] = {"epochs": 3, "validate_every": 1}
    outcome = bench.train(**often, patience=2)
    assert (outcome.status, outcome.step) == ("stopped early", 4)  # an equal loss is no lower one
    assert bench.train(**often, patience=2).step == 4
    outcome = bench.train(**often, patience=4)
    assert (outcome.status, outcome.step) == ("stopped early", 9)
    assert best(bench) == (5, 3.0)


def best(bench: Bench) -> tuple[int, float]:
    saved = bench.saved(file="best_model.pth")
    return saved["step"], saved["metrics"]["val/loss"]


def test_the_start_is_never_saved_as_best(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    script_validation(monkeypatch, {0: 0.1, 1: 3.0, 2: 2.0, 3: 4.0})
    found: list[bool] = []
    with monkeypatch.context() as patch:
        at_step(patch, lambda step: found.append((bench.run().checkpoints / "best_model.pth").exists()))
        bench.train(max_steps=1)
    assert found == [False]
    outcome = bench.train(validate_every=1)
    assert best(bench) == (2, 2.0)
    assert (outcome.val_before, outcome.val_after) == ({"val/loss": 0.1}, {"val/loss": 4.0})


def test_best_survives_a_resume_from_an_older_checkpoint(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.run().checkpoints
    script_validation(monkeypatch, {0: 9.0, 2: 3.0, 4: 1.0, 6: 8.0, 9: 8.0})
    bench.train(**{**LONG, "max_steps": 2})
    older = folder.parent / "older.pth"
    shutil.copy(folder / "latest_full.pth", older)
    bench.train(**{**LONG, "max_steps": 4})
    assert best(bench) == (4, 1.0)
    shutil.copy(older, folder / "latest_full.pth")  # as if killed after best_model.pth, before latest_full.pth
    script_validation(monkeypatch, {4: 1.5, 6: 1.2, 8: 0.9, 9: 2.0})
    bench.train(**{**LONG, "max_steps": 6})
    assert best(bench) == (4, 1.0)
    bench.train(**LONG)
    assert best(bench) == (8, 0.9)


def test_latest_full_has_the_guides_keys_also_right_after_a_resume(bench: Bench) -> None:
    bench.train(**{**LONG, "log_every": 100}, max_steps=2)
    first = bench.saved()
    bench.train(**{**LONG, "log_every": 100}, max_steps=3)
    for saved in (first, bench.saved()):
        guide = {"model", "optimizer", "optimizer_type", "scheduler", "scaler", "epoch", "step", "manifests"}
        assert guide <= saved.keys()
        assert {"train_text_loss", "train_mel_loss", "train_lr", "train_speaker_acc"} <= saved.keys()
        assert {"val_loss", "val_text_loss", "val_mel_loss", "val_speaker_acc"} <= saved.keys()
    assert (first["optimizer_type"], first["scaler"], first["step"], first["epoch"]) == ("adamw", None, 2, 0)
    assert bench.saved()["epoch"] == 1
    assert first["manifests"]["rows"] == 24
    weights = {"model", "step", "epoch", "format", "identity", "settings", "versions", "written"}
    assert bench.saved(file="latest.pth").keys() == weights
    assert bench.saved(file="latest.pth")["settings"]["batch_size"] == 5
    assert bench.saved(file="best_model.pth")["metrics"].keys() >= {"val/loss", "val/text_loss", "val/mel_loss"}


def test_only_the_newest_step_files_stay(bench: Bench) -> None:
    bench.train(**{**LONG, "save_every": 2}, keep_checkpoints=2)
    assert sorted(path.name for path in bench.run().checkpoints.glob("step_*")) == ["step_00008.pth", "step_00009.pth"]
    assert bench.saved(file="step_00008.pth")["step"] == 8


# Mels that arrive while the run waits


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_waits_for_mels_and_sees_every_pair_exactly_once_an_epoch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    seen, parked = record_ids(monkeypatch), bench.folder / "parked"
    parked.mkdir()
    for clip in ("sp2_0", "sp2_1", "sp1_3"):
        shutil.move(bench.data / "mel" / f"{clip}.npy", parked)
    (bench.data / "gpt_pairs_train_mel.jsonl").unlink()
    assert (order_mel_first(bench.data).rows, order_mel_first(bench.data).waiting) == (24, 6)
    sizes = {"batch_size": 4, "grad_accumulation": 2, "epochs": epochs}

    first = bench.train(**sizes)
    assert first.status == "mels exhausted"
    assert len(seen) == 18
    assert bench.train(**sizes).status == "mels exhausted"  # nothing new: nothing trained twice
    assert len(seen) == 18

    for clip in ("sp1_3", "sp2_1"):
        shutil.move(parked / f"{clip}.npy", bench.data / "mel")
    assert order_mel_first(bench.data).added == 4
    assert bench.train(**sizes).status == "mels exhausted"
    assert len(seen) == len(set(seen)) == 22

    shutil.move(parked / "sp2_0.npy", bench.data / "mel")
    order_mel_first(bench.data)
    last = bench.train(**sizes)
    assert last.status == "finished"
    assert first.horizon == last.horizon == 3 * epochs
    expected = read_manifest(bench.data / "gpt_pairs_train.jsonl").strings("id").to_pylist()
    assert Counter(seen[:24]) == Counter(expected)
    assert Counter(seen) == dict.fromkeys(expected, epochs)
    assert math.isfinite(last.val_after["val/loss"])


def test_every_epoch_sees_every_pair_once_in_another_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = record_ids(monkeypatch)
    bench.train(epochs=2)
    assert set(seen[:24]) == set(seen[24:])
    assert len(set(seen)) == 24
    assert seen[:24] != seen[24:]
    assert np.isfinite(bench.run().last("val/loss"))


def test_a_disk_that_is_too_small_is_told_before_the_first_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_kernel.training.checkpoints.room.free", lambda folder: 300_000)
    with pytest.raises(CheckpointError, match=r"checkpoints will take up to .* MB; 0\.3 MB are free"):
        bench.train(keep_checkpoints=3)
    assert not (bench.run().folder / "metrics.jsonl").exists()


def test_the_average_of_the_best_checkpoints_is_kept_and_validated(bench: Bench) -> None:
    outcome = bench.train(**LONG, keep_best=3, average_checkpoints=2)
    tops = sorted(bench.run().checkpoints.glob("top_*.pth"))
    assert len(tops) == 3
    losses = {path.name: torch.load(path, weights_only=True)["metrics"]["val/loss"] for path in tops}
    best_two = sorted(losses, key=losses.__getitem__)[:2]
    averaged = bench.saved(file="averaged.pth")["model"]
    first, second = (bench.saved(file=name)["model"] for name in best_two)
    name = "mel_head.weight"
    torch.testing.assert_close(averaged[name], (first[name] + second[name]) / 2)
    assert outcome.val_averaged["val/loss"] == pytest.approx(outcome.val_after["val/loss"], rel=0.1)
    assert outcome.val_averaged != outcome.val_after


def test_the_average_of_one_checkpoint_has_its_own_loss_also_where_the_optimizer_has_two_kinds_of_weights(
    bench: Bench,
) -> None:
    options = {**LONG, "optimizer": "schedulefree", "schedule": "constant", "learning_rate": 0.02}
    outcome = bench.train(**options, keep_best=1, average_checkpoints=1)
    expected = bench.saved(file="best_model.pth")["metrics"]["val/loss"]
    assert outcome.val_averaged["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_what_could_not_be_written_at_the_end_does_not_hide_what_ended_the_training(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    def unwritten(self: CheckpointFolder) -> None:
        raise CheckpointError("the disk is full")

    def bad(step: int) -> None:
        if step == 1:
            raise TrainingError("the reason")

    at_step(monkeypatch, bad)
    monkeypatch.setattr(CheckpointFolder, "close", unwritten)
    with pytest.raises(TrainingError, match="the reason"):
        bench.train()
    assert "the disk is full" in heard.text
