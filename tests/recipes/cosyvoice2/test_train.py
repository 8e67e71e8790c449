from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.pipeline.written import row, write_shards
from tests.recipes.cosyvoice2.bench import SIZES, Bench, make_base
from tests.training.loop import assert_equal
from tts_kernel.data.pipeline import PipelineError
from tts_kernel.lora import LoraError, opened
from tts_kernel.models.cosyvoice2.config import ConfigError
from tts_kernel.models.cosyvoice2.weights import load_weights
from tts_kernel.models.weights import CheckpointError
from tts_kernel.recipes.cosyvoice2 import explain, train
from tts_kernel.recipes.cosyvoice2.model import adapter_of, fresh, write_sizes
from tts_kernel.recipes.cosyvoice2.objective import TokenObjective, VelocityObjective
from tts_kernel.recipes.cosyvoice2.train import make_trainer
from tts_kernel.text.tokenizer import train_tokenizer
from tts_kernel.training.outcome import RunInterrupted, TrainingError
from tts_kernel.training.processes import Processes

BOTH = ("llm", "flow")
_CLOCK = ("steps_per_second", "tokens_per_second", "memory_gb", "eta_seconds")


def logged(bench: Bench, model: str, name: str = "run") -> dict[str, dict[int, float]]:
    """metric -> step -> value, of what another run of the same settings would log too."""
    part = bench.run(name).part(model)
    metrics = {key for record in part.records() for key in record} - {"step", "time"}
    return {key: dict(zip(*part.series(key), strict=True)) for key in metrics if not key.endswith(_CLOCK)}


# A run and what it leaves


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
    losses = iter([9.0, 3.0, 1.0, 2.0, 9.0, 3.0, 1.0, 2.0])  # before, and after 2, 4 and 6 steps; twice
    own = TokenObjective.summary

    def summary(self: TokenObjective, split: Any, means: Any) -> dict[str, float]:
        return own(self, split, means if split == "train" else {**means, "loss": next(losses)})

    monkeypatch.setattr(TokenObjective, "summary", summary)
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


def load(bench: Bench, model: Any) -> Any:
    net = fresh(model, SIZES)
    load_weights(net, bench.base / f"{model}.pt")
    return net


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
    with pytest.raises(LoraError, match="rank: 2 there, 3 here"):
        bench.train("third", model="llm", adapter=str(bench.run("first").folder), rank=3)


# Stop and resume


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


def test_losses_are_logged_where_people_look(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("tts_kernel"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="tts_kernel"):
        bench.train(model="llm", max_steps=2)
    lines = [record.message for record in caplog.records if record.levelno == logging.INFO]
    assert any(line.startswith("step 1/6  loss ") for line in lines)
    assert any(line.startswith("step 2/6  loss ") for line in lines)


# Bad input


def test_a_pipeline_that_leaves_nothing_is_refused_with_what_would_keep_it(bench: Bench) -> None:
    with pytest.raises(PipelineError) as caught:
        bench.prepare(token_max_length=0)
    assert "data: 0 of 9 utterances are left" in str(caught.value)
    assert "cv_data: 0 of 3 utterances are left" in str(caught.value)
    assert "token_max_length is 0, which is a limit" in str(caught.value)


def test_utterances_that_are_trained_on_and_held_out_are_refused(bench: Bench) -> None:
    with pytest.raises(PipelineError, match="9 utterances are in data and in cv_data, such as u0, u1, u2"):
        bench.prepare(cv_data=str(bench.folder / "train"))


def test_frames_are_twice_the_tokens_and_who_was_trimmed_is_named(bench: Bench) -> None:
    longer = row("u_long", 0.8)
    longer["speech_token"] = [*longer["speech_token"], 1, 2]
    write_shards(bench.folder / "odd", [longer, row("u_right", 0.7)])
    prepared = bench.prepare(data=str(bench.folder / "odd"))
    assert "trimmed to 2 mel frames per speech token: 1 of 2 utterances, by 2 tokens at most: u_long" in str(prepared)
    assert train(prepared, bench.run()).status == "finished"


def test_tokens_that_the_base_does_not_have_are_refused_by_their_utterance(bench: Bench) -> None:
    strange = row("strange", 0.7) | {"speech_token": [5] * 17 + [200]}
    write_shards(bench.folder / "odd", [row("u_right", 0.7), strange])
    with pytest.raises(PipelineError, match="strange: speech tokens 5 to 200, expected 0 to 199"):
        bench.train(model="flow", data=str(bench.folder / "odd"))
    letters = "abcdefghijklmnopqrstuvwxyz"
    train_tokenizer([" ".join(letters * 3), "x xx xxx"], bench.base / "bpe.model", 58)  # single letters come last
    write_shards(bench.folder / "words", [row("many", 0.7) | {"text": letters}, row("u_right", 0.7)])
    with pytest.raises(PipelineError, match=r"many: text tokens \d+ to \d+, expected 0 to 49"):
        bench.train("other", model="llm", data=str(bench.folder / "words"))


def test_a_base_that_is_missing_or_of_other_sizes_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such folder; expected one with llm\.pt and flow\.pt"):
        bench.prepare(base_model=str(tmp_path / "nowhere"))
    (bench.base / "flow.pt").unlink()
    with pytest.raises(CheckpointError, match=r"flow\.pt: does not exist"):
        bench.train(model="flow")
    write_sizes(replace(SIZES, llm=replace(SIZES.llm, speech_token_size=210)), bench.base)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        bench.train("other", model="llm")
    (bench.base / "config.yaml").write_text("lm: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected the sections llm and flow"):
        bench.prepare()


def test_what_will_not_fit_or_ends_inside_its_warmup_is_said_before_training(bench: Bench) -> None:
    said = str(bench.prepare(memory_limit=0.5, warmup_steps=100))
    assert "WARNING: llm will not fit into 0.5 GB; lower max_frames_in_batch, or set gradient_checkpointing" in said
    assert "WARNING: flow ends inside its warm-up of 100 steps" in said
    assert "WARNING" not in str(bench.prepare())
