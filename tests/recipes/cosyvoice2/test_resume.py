"""Runs of both models that were stopped, and the sessions after it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.recipes.cosyvoice2.bench import BOTH, Bench, judge, load, logged, make_base
from tests.training.loop import assert_equal
from tts_kernel.lora import opened
from tts_kernel.recipes.cosyvoice2.model import adapter_of
from tts_kernel.recipes.cosyvoice2.objective import TokenObjective, VelocityObjective
from tts_kernel.training.outcome import RunInterrupted, TrainingError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A run that nothing interrupted; dropout in both adapters and in the flow's encoder."""
    made = Bench(tmp_path_factory.mktemp("finished"))
    made.train(lora_dropout=0.3)
    return made


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_both_models_stopped_and_resumed_end_bit_equal(bench: Bench, finished: Bench, stop: int) -> None:
    assert bench.train(lora_dropout=0.3, max_steps=stop).status == "step limit reached"
    torch.manual_seed(stop)  # another process begins elsewhere
    assert bench.train(lora_dropout=0.3).status == "finished"
    for model in BOTH:
        for key in ("model", "optimizer", "step", "epoch", "random"):
            assert_equal(bench.saved(model)[key], finished.saved(model)[key], f"{model}: {key}")
        ours, theirs = logged(bench, model), logged(finished, model)
        for metric, values in theirs.items():
            assert {step: ours[metric].get(step) for step in values} == values, metric
        whole = [torch.load(made.run().part(model).folder / "epoch_1_whole.pt") for made in (bench, finished)]
        assert_equal(*whole)


def test_a_model_that_is_done_is_not_written_again_and_one_killed_before_its_end_is(bench: Bench) -> None:
    bench.train(model="llm", max_steps=2)
    part = bench.run().part("llm")
    bench.train(model="llm")
    assert part.result()["step"] == 6
    whole = part.folder / part.result()["whole"]
    stamp = whole.stat().st_mtime_ns
    bench.train(model="llm")
    assert whole.stat().st_mtime_ns == stamp
    part.write_result(**{**part.result(), "step": 2})  # as a kill between the last save and the export leaves it
    whole.unlink()
    bench.train(model="llm")
    assert part.result()["step"] == 6
    assert whole.is_file()


def test_a_resume_that_asks_for_other_weights_exports_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(monkeypatch, [9.0, 1.0, 2.0])  # the best is not the last
    bench.train(model="llm", export="none")
    part = bench.run().part("llm")
    assert part.result()["whole"] == ""
    for export, file, step in (("best", "best_model.pth", 4), ("last", "latest.pth", 6)):
        bench.train(model="llm", export=export)
        content = bench.saved("llm", file=file)
        assert (content["step"], part.result()["step"]) == (step, 6)
        adapter = opened(load(bench, "llm"), adapter_of(bench.run(), "llm"))
        assert_equal(dict(adapter.state_dict()), dict(content["model"]))
    whole = part.folder / part.result()["whole"]
    whole.unlink()
    bench.train(model="llm", export="last")
    assert whole.is_file()


@pytest.mark.parametrize("kind", [TokenObjective, VelocityObjective])
def test_the_stop_file_of_the_run_stops_either_model(
    bench: Bench, finished: Bench, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before_step(self: Any, step: int) -> dict[str, float]:
        if step == 2:
            (bench.run().folder / "stop").touch()
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(kind, "before_step", before_step)
        patch.setattr("tts_kernel.training.signals._LOOK_EVERY", 0.0)
        with pytest.raises(RunInterrupted, match=r"run run stopped at step 3 of 6 .*run_name run"):
            bench.train(lora_dropout=0.3)
    assert bench.train(lora_dropout=0.3).status == "finished"
    for model in BOTH:
        assert_equal(bench.saved(model)["model"], finished.saved(model)["model"])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rank": 3}, "lora"),
        ({"alpha": 5}, "lora"),
        ({"seed": 5}, "seed"),
        ({"max_frames_in_batch": 150}, "pipeline"),
        ({"max_length": 110.0}, "data"),
    ],
    ids=lambda item: ",".join(item) if isinstance(item, dict) else "",
)
def test_a_resume_with_other_facts_is_refused_naming_them(bench: Bench, changes: dict[str, Any], named: str) -> None:
    bench.train(model="llm", max_steps=2)
    before = bench.run().settings()
    with pytest.raises(TrainingError, match=rf"other facts[^$]*\n  {named}: "):
        bench.train(model="llm", **changes)
    assert bench.run().settings() == before


def test_a_resume_with_another_base_is_refused(bench: Bench) -> None:
    bench.train(model="flow", max_steps=2)
    other = make_base(bench.folder / "other", seed=12)
    with pytest.raises(TrainingError, match=r"\n  base: '\w+' when it was saved, '\w+' now"):
        bench.train(model="flow", base_model=str(other))


def test_the_second_model_may_be_trained_later_in_the_same_run(bench: Bench) -> None:
    bench.train(model="llm")
    before = bench.saved("llm")["model"]
    outcome = bench.train(model="both")
    assert outcome.val_before.keys() >= {"llm/val/loss", "flow/val/loss"}
    assert_equal(bench.saved("llm")["model"], before)


def test_validation_repeats_itself_to_the_bit(bench: Bench) -> None:
    first = bench.train("first", max_steps=1)
    torch.manual_seed(77)
    assert bench.train("second", max_steps=1).val_before == first.val_before
