from __future__ import annotations

import gc
import logging
import math
import sys
import weakref
from typing import Any

import pytest
import torch

from tests.recipes.cosyvoice2.bench import BOTH, SIZES, Bench, judge, load, logged
from tests.training.loop import assert_equal
from tts_kernel.lora import opened
from tts_kernel.models.cosyvoice2.weights import load_weights
from tts_kernel.models.weights import CheckpointError
from tts_kernel.recipes.cosyvoice2 import explain, train
from tts_kernel.recipes.cosyvoice2.model import adapter_of, fresh
from tts_kernel.recipes.cosyvoice2.objective import TokenObjective, VelocityObjective
from tts_kernel.recipes.cosyvoice2.train import make_trainer
from tts_kernel.training.processes import Processes


def test_both_models_are_trained_each_in_its_own_folder(bench: Bench) -> None:
    prepared = bench.prepare()
    outcome = train(prepared, bench.run())
    assert (outcome.status, outcome.step, outcome.horizon) == ("finished", 12, 12)
    assert set(outcome.val_after) == {"llm/val/loss", "llm/val/acc", "flow/val/loss"}
    for model in BOTH:
        part = bench.run().part(model)
        result = part.result()
        assert (result["model"], result["step"], result["whole"]) == (model, 6, "epoch_1_whole.pt")
        assert part.series("train/loss")[0] == list(range(1, 7))  # every step is logged
        assert (part.folder / "adapter" / "adapter_model.safetensors").is_file()
        trained = bench.saved(model, file="latest.pth")["model"]
        assert all(".lora_" in name for name in trained)
    assert "train/acc" in logged(bench, "llm")
    said = explain(outcome, prepared, bench.run())
    assert "llm: CV loss" in said
    assert str(bench.run().folder / "flow" / "epoch_1_whole.pt") in said


def test_the_whole_file_is_the_base_and_its_adapter(bench: Bench) -> None:
    bench.train(model="llm", export="last")
    part = bench.run().part("llm")
    merged, base = fresh("llm", SIZES).eval(), fresh("llm", SIZES).eval()
    load_weights(merged, part.folder / "epoch_1_whole.pt")
    load_weights(base, bench.base / "llm.pt")
    text = torch.tensor([3, 4, 5])
    before = base.hidden(base.prompt(text, torch.tensor([1, 2])))
    adapted = opened(base, adapter_of(bench.run(), "llm")).eval()
    expected = adapted.model.hidden(adapted.model.prompt(text, torch.tensor([1, 2])))
    found = merged.hidden(merged.prompt(text, torch.tensor([1, 2])))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, before, atol=1e-4)


def test_the_best_weights_are_exported_unless_the_last_are_asked_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(monkeypatch, [9.0, 3.0, 1.0, 2.0, 9.0, 3.0, 1.0, 2.0])  # before, and after 2, 4 and 6 steps; twice
    for export, step, file, whole in (
        ("best", 4, "best_model.pth", "epoch_1_whole.pt"),
        ("last", 6, "latest.pth", "epoch_1_whole.pt"),
    ):
        bench.train(export, model="llm", export=export, validate_every=2)
        part = bench.run(export).part("llm")
        saved = torch.load(part.checkpoints / file, weights_only=True)
        assert (saved["step"], part.result()["whole"], part.result()["best"]) == (step, whole, 1.0)
        net = opened(load(bench, "llm"), adapter_of(bench.run(export), "llm"))
        assert_equal(dict(net.state_dict()), dict(saved["model"]))


def test_trained_whole_the_checkpoint_is_the_model(bench: Bench) -> None:
    bench.train(method="full", export="last")
    for model in BOTH:
        part = bench.run().part(model)
        assert not (part.folder / "adapter").exists()
        net = fresh(model, SIZES)  # type: ignore[arg-type]
        load_weights(net, part.folder / "epoch_1_whole.pt")
        assert_equal(dict(net.state_dict()), dict(bench.saved(model, file="latest.pth")["model"]))


def test_the_warmup_is_upstreams(bench: Bench) -> None:
    bench.train(model="llm", warmup_steps=3)
    rates = bench.run().part("llm").series("train/lr")[1]
    expected = [1e-2 * min(step / 3, math.sqrt(3 / step)) for step in range(1, 7)]
    assert rates == pytest.approx(expected)


def test_what_is_left_over_at_an_epochs_end_makes_an_update_of_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    own = TokenObjective.forward

    def forward(self: TokenObjective, batch: Any) -> Any:
        if self.model.training:
            seen.extend(batch.ids)
        return own(self, batch)

    monkeypatch.setattr(TokenObjective, "forward", forward)
    prepared = bench.prepare(model="llm", grad_accumulation=4)
    assert len(prepared.corpus.train.first) == 6
    outcome = bench.train(model="llm", grad_accumulation=4)
    assert (outcome.step, outcome.horizon) == (4, 4)  # 4 + 2 batches, twice
    assert sorted(seen) == sorted([f"u{number}" for number in range(9)] * 2)


def test_training_ends_when_the_cv_loss_does_not_fall(bench: Bench) -> None:
    settings = {"model": "llm", "learning_rate": 30.0, "validate_every": 1, "llm_epochs": 20, "patience": 2}
    prepared = bench.prepare(**settings)
    outcome = train(prepared, bench.run())
    assert outcome.status == "stopped early"
    assert outcome.step < outcome.horizon
    assert "stopped early" in explain(outcome, prepared, bench.run())


def test_a_model_that_was_stopped_early_is_not_trained_on_by_a_resume(bench: Bench) -> None:
    settings = {"learning_rate": 30.0, "validate_every": 1, "llm_epochs": 20, "max_steps": 7, "patience": 2}
    first = bench.train(**settings)
    lines = {model: len(bench.run().part(model).series("train/loss")[0]) for model in BOTH}
    weights = bench.saved("llm")["model"]
    assert bench.run().part("llm").result()["status"] == "stopped early"
    prepared = bench.prepare(**settings)
    again = train(prepared, bench.run())
    assert (again.status, again.step) == (first.status, first.step) == ("stopped early", first.step)
    assert {model: len(bench.run().part(model).series("train/loss")[0]) for model in BOTH} == lines
    assert_equal(bench.saved("llm")["model"], weights)
    step = bench.run().part("llm").result()["step"]
    said = explain(again, prepared, bench.run())
    assert f"llm: done at step {step} of 60: the CV loss had not fallen for 2 validations" in said


@pytest.mark.parametrize(("losses", "fell"), [([1.0, 3.0, 2.0], False), ([3.0, 3.0, 2.0], True)])
def test_a_cv_loss_that_never_fell_is_said_and_the_start_is_no_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, losses: list[float], fell: bool
) -> None:
    judge(monkeypatch, losses)
    prepared = bench.prepare(model="llm")
    outcome = train(prepared, bench.run())
    assert bench.run().part("llm").result()["best"] == 2.0
    assert ("WARNING: llm: the CV loss never fell" in explain(outcome, prepared, bench.run())) is not fell


def test_a_step_limit_after_an_early_stop_still_says_how_to_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(monkeypatch, [1.0, 3.0, 3.0])  # of the language model, which gives up
    prepared = bench.prepare(validate_every=1, patience=1, max_steps=2)
    monkeypatch.setattr(VelocityObjective, "summary", lambda self, split, means: {f"{split}/loss": next(falling)})
    falling = (1.0 / number for number in range(1, 100))
    outcome = train(prepared, bench.run())
    assert [bench.run().part(model).result()["status"] for model in BOTH] == ["stopped early", "step limit reached"]
    assert "run_name run with a higher max_steps goes on" in explain(outcome, prepared, bench.run())


def test_one_process_makes_no_process_group(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process group for one process")

    for name in ("init_process_group", "barrier", "all_reduce", "all_gather_object", "monitored_barrier"):
        monkeypatch.setattr(torch.distributed, name, refuse)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert bench.train().status == "finished"
    assert not torch.distributed.is_initialized()


def test_the_first_model_has_left_memory_when_the_second_comes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[torch.nn.Module]] = []
    before: list[list[str]] = []
    module = sys.modules[make_trainer.__module__]  # the package has a function of its name
    own = module.build_model

    def build_model(settings: Any, name: Any, sizes: Any) -> torch.nn.Module:
        before.append([type(found).__name__ for ref in alive if (found := ref()) is not None])
        model = own(settings, name, sizes)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(module, "build_model", build_model)
    prepared = bench.prepare()
    gc.disable()  # or it would come by chance
    try:
        train(prepared, bench.run())
    finally:
        gc.enable()
    assert before == [[], []]


def test_processes_that_share_the_batches_share_the_steps(bench: Bench) -> None:
    prepared = bench.prepare(model="llm", processes=2, grad_accumulation=1)
    alone, both = Processes(torch.device("cpu")), Processes(torch.device("cpu"))
    both.world = 2
    assert make_trainer(prepared, "llm", bench.run("alone").part("llm"), alone).horizon == 2 * 6
    trainer = make_trainer(prepared, "llm", bench.run("both").part("llm"), both)
    assert trainer.horizon == prepared.horizon("llm") == 2 * 3


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16", "gradient_checkpointing": True},
        {"attention": "eager", "train_heads": True, "dora": True},
        {"optimizer": "prodigy", "learning_rate": 1.0, "batch_type": "static", "batch_size": 2},
        {"optimizer": "schedulefree", "schedule": "constant", "num_workers": 1},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_every_switch_trains_and_resumes(bench: Bench, changes: dict[str, Any]) -> None:
    assert bench.train(max_steps=2, **changes).status == "step limit reached"
    outcome = bench.train(**changes)
    assert outcome.status == "finished"
    for model in BOTH:
        assert math.isfinite(outcome.val_after[f"{model}/val/loss"])
        assert outcome.val_after[f"{model}/val/loss"] != bench.run().part(model).first("val/loss")
        net = fresh(model, SIZES)  # type: ignore[arg-type]
        load_weights(net, bench.run().part(model).folder / bench.run().part(model).result()["whole"])


def test_an_earlier_adapter_is_gone_on_from(bench: Bench) -> None:
    bench.train("first", model="llm")
    part = bench.run("first").part("llm")
    later = bench.train("second", model="llm", adapter=str(bench.run("first").folder))
    assert later.val_before["llm/val/loss"] == pytest.approx(part.best("val/loss"))
    with pytest.raises(CheckpointError, match="rank: 2 there, 3 here"):
        bench.train("third", model="llm", adapter=str(bench.run("first").folder), rank=3)


def test_losses_are_logged_where_people_look(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("tts_kernel"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="tts_kernel"):
        bench.train(model="llm", max_steps=2)
    lines = [record.message for record in caplog.records if record.levelno == logging.INFO]
    assert any(line.startswith("step 1/6  loss ") for line in lines)
    assert any(line.startswith("step 2/6  loss ") for line in lines)
