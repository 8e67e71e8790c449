"""A run goes on as if it had never stopped, or says why it cannot."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch

from tests.tiny_voice import CONFIG, Bench, differing
from tests.training.loop import LONG, assert_same_run, at_step, before_update, record_ids
from tts_kernel.recipes.indextts2 import train
from tts_kernel.training.outcome import RunInterrupted, TrainingError
from tts_kernel.training.update import Updater

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


@pytest.mark.parametrize("optimizer", ["schedulefree", "prodigy"])
def test_other_optimizers_stopped_between_saves_and_resumed_end_bit_equal(bench: Bench, optimizer: str) -> None:
    options = {**LONG, "optimizer": optimizer, "schedule": "constant"}
    options["learning_rate"] = 1.0 if optimizer == "prodigy" else 0.02
    bench.train("whole", **options)
    bench.train("parts", **options, max_steps=3)
    bench.train("parts", **options, max_steps=7)
    bench.train("parts", **options)
    for file in ("latest_full.pth", "latest.pth"):
        assert not differing(bench.saved("whole", file)["model"], bench.saved("parts", file)["model"])
    used = bench.saved("whole", "latest.pth")["model"]
    assert bool(differing(bench.saved("whole")["model"], used)) == (optimizer == "schedulefree")


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


def test_a_stop_file_that_a_killed_session_left_does_not_stop_the_next(
    bench: Bench, finished: Bench, heard: pytest.LogCaptureFixture
) -> None:
    left = bench.run().stop_file
    left.touch()
    os.utime(left, (1e9, 1e9))
    assert bench.train(**LONG).status == "finished"
    assert_same_run(bench, finished)
    assert "before this session began: removed" in heard.text


def test_a_stop_that_is_asked_for_while_the_session_starts_is_obeyed(bench: Bench) -> None:
    prepared = bench.prepare(**LONG)
    bench.run().stop_file.touch()
    with pytest.raises(RunInterrupted, match=r"stopped at step 1 of 9 \(stop file"):
        train(prepared, bench.run())
    assert bench.saved()["step"] == 1
    assert not bench.run().stop_file.exists()


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


# What a resume may change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 2}, ["horizon: 9", "6 now"]),
        ({"seed": 1}, ["seed: 0", "1 now"]),
        ({"train_manifest": "gpt_pairs_train.jsonl"}, ["manifests", "gpt_pairs_train.jsonl"]),
        ({"batch_size": 4, "seed": 2, "epochs": 2}, ["seed", "horizon"]),
        ({"emotion_input": "semantic"}, ["emotion_input", "'semantic' now"]),
        ({"text_weight": 0.1}, ["loss_weights: {'text': 0.2", "'text': 0.1"]),
        ({"length_buckets": False}, ["length_buckets: True", "False now"]),
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

    def look(updater: Updater) -> None:
        if not found:
            weights = {name: value.clone() for name, value in updater.objective.model.state_dict().items()}
            found.extend([weights, dict(updater.optimizer.state)])

    before_update(monkeypatch, look)
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

    def look(updater: Updater) -> None:
        group = updater.optimizer.param_groups[0]
        found.append((group["lr"], group["weight_decay"]))

    before_update(monkeypatch, look)
    bench.train(max_steps=2, epochs=2, schedule="constant", learning_rate=5e-4, weight_decay=0.3)
    assert found == [(5e-4, 0.3)]


@pytest.mark.filterwarnings("error")
def test_a_resume_warns_of_nothing(bench: Bench) -> None:
    bench.train(max_steps=1)
    bench.train(max_steps=2)
