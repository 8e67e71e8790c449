"""The loop with a real model and the real recipe, on the tiny corpus."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import CorpusMaker
from tests.tiny import make_tiny
from tests.tiny_voice import CONFIG, LATENTS, Bench, differing
from tts_kernel.data.batch import Batch, FeatureError
from tts_kernel.data.manifest import read_manifest
from tts_kernel.data.ordering import order_mel_first
from tts_kernel.optim.schedules import reversal_ramp
from tts_kernel.recipes.indextts2 import train
from tts_kernel.recipes.indextts2.objective import PairObjective
from tts_kernel.runs import write_yaml
from tts_kernel.training.trainer import (
    Clock,
    Interval,
    RunInterrupted,
    Terms,
    Trainer,
    TrainingError,
    describe,
    stop_signals,
)

# Three epochs of three updates, the last of each of one micro-batch; metrics over two updates, so that a stop falls
# between two log lines; validation in between.
LONG: dict[str, Any] = {"epochs": 3, "log_every": 2, "validate_every": 2, "save_every": 4}


@pytest.fixture
def bench(tmp_path: Path, make_tiny_corpus: CorpusMaker) -> Bench:
    return Bench(tmp_path, make_tiny_corpus(latents=LATENTS))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("finished")
    made = Bench(folder, make_tiny(folder / "corpus", latents=LATENTS))
    outcome = made.train(**LONG)
    assert (outcome.status, outcome.step, outcome.horizon) == ("finished", 9, 9)
    return made


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the package logs, whether or not another test has sent its log elsewhere."""
    package = logging.getLogger("tts_kernel")
    before = package.propagate
    package.propagate = True
    with caplog.at_level(logging.INFO, logger="tts_kernel"):
        yield caplog
    package.propagate = before


def at_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call `act` at the beginning of every update, with its number counted from 0."""
    own = PairObjective.before_step

    def before_step(self: PairObjective, step: int) -> dict[str, float]:
        act(step)
        return own(self, step)

    monkeypatch.setattr(PairObjective, "before_step", before_step)


def record_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of all pairs trained on from now."""
    seen: list[str] = []
    own = Trainer.update

    def update(self: Trainer, micro_batches: Sequence[Batch]) -> dict[str, float]:
        metrics = own(self, micro_batches)
        seen.extend(name for batch in micro_batches for name in batch.ids)
        return metrics

    monkeypatch.setattr(Trainer, "update", update)
    return seen


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Bit-equal, however nested."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_equal(one[name], other[name], f"{where}/{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}/{number}")
    else:
        assert one == other, where


def assert_same_run(bench: Bench, finished: Bench, name: str = "run") -> None:
    """Weights, optimiser, random state and what was logged; a stop may have validated once more."""
    ours, expected = bench.saved(name), finished.saved()
    for key in ("model", "optimizer", "scheduler", "step", "epoch", "position", "random", "val_last", "interval"):
        assert_equal(ours[key], expected[key], key)

    def logged(of: Bench, name: str) -> dict[str, dict[int, float]]:
        metrics = {key for record in of.run(name).records() for key in record} - {"step", "time"}
        return {
            key: dict(zip(*of.run(name).series(key), strict=True)) for key in metrics if "steps_per_second" not in key
        }

    ours, expected = logged(bench, name), logged(finished, "run")
    assert ours.keys() == expected.keys()
    assert {key: {step: ours[key].get(step) for step in values} for key, values in expected.items()} == expected


# Stop and resume


@pytest.mark.parametrize("stops", [(1,), (3,), (4,), (8,), (2, 5, 7)], ids=str)
def test_a_run_stopped_and_resumed_ends_bit_equal(bench: Bench, finished: Bench, stops: tuple[int, ...]) -> None:
    for stop in stops:
        outcome = bench.train(**LONG, max_steps=stop)
        assert (outcome.status, outcome.step, outcome.horizon) == ("step limit reached", stop, 9)
        torch.manual_seed(stop)  # another process begins elsewhere
    assert bench.train(**LONG).status == "finished"
    assert_same_run(bench, finished)


@pytest.mark.parametrize(("number", "stop"), [(signal.SIGTERM, 2), (signal.SIGINT, 5), (signal.SIGTERM, 6)])
def test_a_run_stopped_by_a_signal_is_saved_and_ends_bit_equal(
    bench: Bench, finished: Bench, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, stop: int
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, lambda step: signal.raise_signal(number) if step == stop - 1 else None)
        with pytest.raises(RunInterrupted, match=f"stopped at step {stop} of 9"):
            bench.train(**LONG)
    assert signal.getsignal(number) == before
    assert bench.saved()["step"] == stop
    assert bench.train(**LONG).status == "finished"
    assert_same_run(bench, finished)


def test_a_signal_in_the_last_step_loses_nothing(
    bench: Bench, finished: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, lambda step: signal.raise_signal(signal.SIGTERM) if step == 8 else None)
        with pytest.raises(RunInterrupted):
            bench.train(**LONG)
    assert bench.train(**LONG).status == "finished"
    assert not differing(bench.saved()["model"], finished.saved()["model"])


def test_a_killed_run_goes_on_at_its_last_save_and_ends_bit_equal(
    bench: Bench, finished: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt  # nothing is saved: the last save is step 4's

    with monkeypatch.context() as patch:
        at_step(patch, kill)
        with pytest.raises(KeyboardInterrupt):
            bench.train(**LONG)
    assert bench.saved()["step"] == 4
    bench.train(**LONG)
    assert_same_run(bench, finished)


def test_a_finished_run_started_again_trains_no_more(finished: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = finished.saved()["model"]
    seen = record_ids(monkeypatch)
    assert finished.train(**LONG).status == "finished"
    assert not seen
    assert not differing(before, finished.saved()["model"])


def test_dropout_is_on_in_the_runs_compared_above(finished: Bench) -> None:
    """Else an unrestored random state would go unnoticed."""
    assert CONFIG.dropout > 0
    settings = finished.settings(**LONG)
    assert settings.standardise_adversary


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own SIGINT handler, also where the tests run in a background job, which ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_does_what_it_would_have_done() -> None:
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_stay_as_they_are_outside_the_main_thread() -> None:
    found = []

    def work() -> None:
        with stop_signals() as stop:
            found.extend([stop.is_set(), signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, signal.getsignal(signal.SIGTERM)]


# What a resume may change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 2}, ["horizon: 9", "6 now"]),
        ({"seed": 1}, ["seed: 0", "1 now"]),
        ({"train_manifest": "gpt_pairs_train.jsonl"}, ["manifests", "gpt_pairs_train.jsonl"]),
        ({"batch_size": 4, "seed": 2, "epochs": 2}, ["seed", "horizon"]),
        ({"emotion_input": "semantic"}, ["emotion_input", "'semantic' now"]),
    ],
    ids=lambda change: "+".join(change) if isinstance(change, dict) else "",
)
def test_a_resume_with_other_facts_is_refused_naming_each(
    bench: Bench, change: dict[str, Any], named: list[str]
) -> None:
    bench.train(**LONG, max_steps=2)
    files = {path: path.read_bytes() for path in bench.run().checkpoints.iterdir()}
    with pytest.raises(TrainingError) as caught:
        bench.train(**{**LONG, **change})
    for part in [*named, "cannot go on at step 2", "latest.pth"]:
        assert part in str(caught.value)
    assert {path: path.read_bytes() for path in bench.run().checkpoints.iterdir()} == files


def test_a_resume_with_another_speaker_map_is_refused(bench: Bench) -> None:
    bench.train(**LONG, max_steps=2)
    (bench.folder / "map.json").write_text('{"sp2": 0, "sp0": 1, "sp1": 2}', encoding="utf-8")
    kept = (bench.run().folder / "speaker_mapping.json").read_bytes()
    with pytest.raises(TrainingError, match="speakers: "):
        bench.train(**LONG, speaker_mapping=str(bench.folder / "map.json"))
    assert (bench.run().folder / "speaker_mapping.json").read_bytes() == kept


def test_a_resume_with_other_rows_of_the_manifest_is_refused(bench: Bench) -> None:
    bench.train(**LONG, max_steps=2)
    with pytest.raises(TrainingError, match="manifests: "):  # two of 24 pairs held out: the horizon is the same
        bench.train(**LONG, validation_share=0.08)


def test_a_resume_after_the_rows_were_sorted_anew_is_refused(bench: Bench) -> None:
    bench.train(max_steps=1)
    path = bench.data / "gpt_pairs_train_mel.jsonl"
    path.write_text("".join(reversed(path.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")
    with pytest.raises(TrainingError, match="first 24 rows, which were trained on, are others or in another order"):
        bench.train()


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


def test_out_of_memory_names_the_settings_that_fix_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "_backward", exhausted)
    with pytest.raises(TrainingError, match="batch_size 2 and grad_accumulation 4, which is the same update"):
        bench.train(batch_size=4, grad_accumulation=2)


def test_the_time_left_counts_to_the_last_row_that_has_a_mel(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "fit", lambda trainer: trainer.last_step)
    prepared = bench.prepare()
    waiting = replace(prepared, plan=replace(prepared.plan, available=10))
    assert train(prepared, bench.run()) == prepared.horizon == 3
    assert train(waiting, bench.run()) == 1


def test_a_resume_may_split_its_updates_otherwise(bench: Bench, heard: pytest.LogCaptureFixture) -> None:
    first = bench.train(batch_size=4, grad_accumulation=2, epochs=2, max_steps=2)
    second = bench.train(batch_size=2, grad_accumulation=4, epochs=2)
    assert first.horizon == second.horizon == 6
    assert second.status == "finished"
    assert "batch_size was 4 and is 2: the current window of 24 rows is begun again" in heard.text


def test_a_resume_with_another_optimizer_keeps_weights_and_drops_its_state(
    bench: Bench, heard: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.train(max_steps=1, epochs=2)
    saved = bench.saved()
    found: list[Any] = []

    def look(self: Trainer, micro_batches: Sequence[Batch]) -> dict[str, float]:
        if not found:
            found.extend([{k: v.clone() for k, v in self.model.state_dict().items()}, dict(self.optimizer.state)])
        return update(self, micro_batches)

    update = Trainer.update
    monkeypatch.setattr(Trainer, "update", look)
    outcome = bench.train(max_steps=3, epochs=2, optimizer="prodigy", learning_rate=1.0)
    assert outcome.step == 3
    assert "the checkpoint's optimizer is adamw, this run's is prodigy" in heard.text
    assert not differing(saved["model"], found[0])
    assert found[1] == {}
    assert bench.saved()["optimizer_type"] == "prodigy"


def test_a_resume_takes_the_rate_and_the_decay_that_are_asked_for_now(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.train(max_steps=1, epochs=2, schedule="constant")
    found: list[tuple[float, float]] = []

    def look(self: Trainer, micro_batches: Sequence[Batch]) -> dict[str, float]:
        found.append((self.optimizer.param_groups[0]["lr"], self.optimizer.param_groups[0]["weight_decay"]))
        return update(self, micro_batches)

    update = Trainer.update
    monkeypatch.setattr(Trainer, "update", look)
    bench.train(max_steps=2, epochs=2, schedule="constant", learning_rate=5e-4, weight_decay=0.3)
    assert found == [(5e-4, 0.3)]


@pytest.mark.filterwarnings("error")
def test_a_resume_warns_of_nothing(bench: Bench) -> None:
    bench.train(max_steps=1)
    bench.train(max_steps=2)


# One update


def test_the_gradient_does_not_depend_on_how_a_batch_is_split(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = CONFIG.reading("mel").to_mapping() | {"dropout": 0.0}
    write_yaml(bench.base.parent / "config.yaml", {"gpt": plain})
    found: dict[str, dict[str, torch.Tensor]] = {}
    clip = torch.nn.utils.clip_grad_norm_

    def run(name: str, **sizes: int) -> None:
        gradients: list[torch.Tensor] = []

        def keep(parameters: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            parameters = list(parameters)
            gradients.extend(p.grad.clone() for p in parameters if p.grad is not None)
            return clip(parameters, *args, **kwargs)

        monkeypatch.setattr("tts_kernel.training.trainer.clip_grad_norm_", keep)
        bench.train(name, max_steps=1, standardise_adversary=False, grl_schedule="constant", **sizes)
        found[name] = {str(number): value for number, value in enumerate(gradients)}

    run("whole", batch_size=24, grad_accumulation=1)
    run("split", batch_size=12, grad_accumulation=2)
    run("uneven", batch_size=5, grad_accumulation=5)
    assert len(found["whole"]) > 50
    for name in ("split", "uneven"):
        for key, value in found["whole"].items():
            torch.testing.assert_close(found[name][key], value, atol=1e-6, rtol=1e-3)
    logged = [bench.run(name).first("train/gpt_loss") for name in found]
    assert logged == pytest.approx([logged[0]] * 3, rel=1e-5)


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_a_weight(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, ids = [], []
    own = PairObjective.__call__

    def poisoned(self: PairObjective, batch: Batch) -> Terms:
        terms = own(self, batch)
        if self.model.training and len(ids) < 5:
            ids.append(batch.ids)
        if self.model.training and len(ids) == 4:  # the second update's second micro-batch
            models.append((self.model, {k: v.detach().clone() for k, v in self.model.named_parameters()}))
            self.model.mel_head.bias.register_hook(lambda gradient: gradient * float("nan"))
        return terms

    monkeypatch.setattr(PairObjective, "__call__", poisoned)
    with pytest.raises(TrainingError, match="step 2: the gradient is not finite") as caught:
        bench.train(save_every=1)
    model, before = models[0]
    assert not differing(before, dict(model.named_parameters()))
    assert all(name in str(caught.value) for name in ids[2][:5])
    assert bench.saved()["step"] == 1
    assert not differing({k: v for k, v in bench.saved()["model"].items() if k in before}, before)


def test_reversal_strength_is_set_before_the_step_that_uses_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    own = PairObjective.__call__

    def look(self: PairObjective, batch: Batch) -> Terms:
        if self.model.training:
            used.append(self.model.reversal.strength)
        return own(self, batch)

    monkeypatch.setattr(PairObjective, "__call__", look)
    bench.train(epochs=2, grad_accumulation=1, max_steps=4)
    bench.train(epochs=2, grad_accumulation=1, max_steps=6)
    steps, logged = bench.run().series("train/grl_lambda")
    assert steps == [1, 2, 3, 4, 5, 6]
    assert logged == used == [reversal_ramp(step, total=10) for step in range(6)]
    assert used[0] == 0.0 < used[1]


def test_logged_clipping_is_whether_the_norm_exceeded_its_limit(bench: Bench) -> None:
    bench.train("low", max_steps=2, grad_clip=1e-3)
    bench.train("high", max_steps=2, grad_clip=1e3)
    assert bench.run("low").series("train/clipped")[1] == [1.0, 1.0]
    assert bench.run("high").series("train/clipped")[1] == [0.0, 0.0]
    norms = [bench.run(name).first("train/grad_norm") for name in ("low", "high")]
    assert norms[0] == pytest.approx(norms[1])  # before clipping
    assert norms[0] > 1e-3


# Checkpoints and metrics of a run


def script_validation(monkeypatch: pytest.MonkeyPatch, losses: dict[int, float]) -> None:
    monkeypatch.setattr(Trainer, "validate", lambda self: {"val/loss": losses[self.step]})


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
    assert bench.saved(file="latest.pth").keys() == {"model", "step", "epoch", "format"}
    assert bench.saved(file="best_model.pth")["metrics"].keys() >= {"val/loss", "val/text_loss", "val/mel_loss"}


def test_only_the_newest_step_files_stay(bench: Bench) -> None:
    bench.train(**{**LONG, "save_every": 2}, keep_checkpoints=2)
    assert sorted(path.name for path in bench.run().checkpoints.glob("step_*")) == ["step_00008.pth", "step_00009.pth"]
    assert bench.saved(file="step_00008.pth")["step"] == 8


def test_interval_averages_what_fluctuates_and_keeps_what_is_scheduled() -> None:
    interval = Interval()
    interval.add({"train/lr": 1.0, "train/text_loss": 1.0, "train/speaker_acc": 0.5})
    interval.add({"train/lr": 3.0, "train/text_loss": 2.0})
    assert interval.means() == {"train/lr": 3.0, "train/text_loss": 1.5, "train/speaker_acc": 0.5}
    interval.add({"train/lr": 4.0})
    assert interval.means() == {"train/lr": 4.0}


def test_the_log_line_tells_how_long_it_will_take() -> None:
    line = describe(100, 9000, 7300, {"train/text_loss": 1.23456, "train/clipped": 1.0}, 2.0)
    assert line == "step 100/9000  text_loss 1.235  2.00 steps/s  eta 1:00:00"
    assert describe(1, 2, 2, {}, 0.0).endswith("eta 0:00:00")
    assert Clock(0).steps_per_second(5) > 0


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
