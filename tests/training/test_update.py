"""One optimiser step, by the real model and the real recipe."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny_voice import CONFIG, Bench
from tests.training.loop import before_update, change_sums, logged
from tts_kernel.data.batch import Batch
from tts_kernel.optim.schedules import reversal_ramp
from tts_kernel.recipes.indextts2.objective import PairObjective
from tts_kernel.runs import write_yaml
from tts_kernel.training.outcome import TrainingError
from tts_kernel.training.processes import Processes

# One update


def test_the_gradient_does_not_depend_on_how_a_batch_is_split(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = CONFIG.reading("mel").to_mapping() | {"dropout": 0.0}
    write_yaml(bench.base.parent / "config.yaml", {"gpt": plain})
    found: dict[str, dict[str, torch.Tensor]] = {}

    def run(name: str, **sizes: int) -> None:
        gradients: list[torch.Tensor] = []
        norm = Processes.norm

        def keep(self: Processes, parameters: list[torch.nn.Parameter]) -> torch.Tensor:
            gradients.extend(p.grad.clone() for p in parameters if p.grad is not None)
            return norm(self, parameters)

        with monkeypatch.context() as patch:
            patch.setattr(Processes, "norm", keep)
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


def test_reversal_strength_is_set_before_the_step_that_uses_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    change_sums(monkeypatch, lambda objective, batch, sums: used.append(objective.model.reversal.strength))
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


def test_the_gradient_is_scaled_down_to_its_limit_and_never_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []
    own = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *arguments: Any) -> Any:
        found.append(
            torch.nn.utils.get_total_norm(p.grad for g in self.param_groups for p in g["params"] if p.grad is not None)
        )
        return own(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    bench.train("low", max_steps=1, grad_clip=1e-3)
    bench.train("high", max_steps=1, grad_clip=1e3)
    assert found[0].item() == pytest.approx(1e-3, rel=1e-2)
    assert found[1].item() == pytest.approx(bench.run("high").first("train/grad_norm"), rel=1e-5)


# Memory


def out_of_memory_above(monkeypatch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """A device that holds so many rows at once; gives the sizes of the passes that went through."""
    sizes: list[int] = []

    def change(objective: PairObjective, batch: Batch, sums: dict[str, Any]) -> None:
        if len(batch.ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(batch.ids))

    change_sums(monkeypatch, change)
    return sizes


def test_out_of_memory_names_the_settings_that_fix_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory_above(monkeypatch, 1)
    with pytest.raises(TrainingError, match="batch_size 2 and grad_accumulation 4, which is the same update"):
        bench.train(batch_size=4, grad_accumulation=2)


def test_split_takes_the_same_updates_in_smaller_passes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    write_yaml(bench.base.parent / "config.yaml", {"gpt": CONFIG.reading("mel").to_mapping() | {"dropout": 0.0}})
    plain: dict[str, Any] = {"batch_size": 8, "standardise_adversary": False, "epochs": 2}
    bench.train("whole", **plain)
    sizes = out_of_memory_above(monkeypatch, 3)
    bench.train("split", **plain, on_out_of_memory="split")
    assert set(sizes) == {2}
    assert "from now on a batch takes 4 forward passes of 2 rows at most" in heard.text
    whole, split = logged(bench, "whole"), logged(bench, "split")
    assert set(whole) > {"train/mel_loss", "train/grad_norm", "val/loss"}
    for metric, values in whole.items():
        assert split[metric] == pytest.approx(values, rel=1e-3, abs=1e-5), metric
    assert bench.saved("split")["standing"]["parts"] == 4


def test_a_resume_goes_on_with_the_passes_that_fitted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = out_of_memory_above(monkeypatch, 3)
    options: dict[str, Any] = {"batch_size": 8, "epochs": 2, "on_out_of_memory": "split"}
    bench.train(max_steps=2, **options)
    tried: list[int] = []
    before_update(monkeypatch, lambda updater: tried.append(updater.parts))
    sizes.clear()
    bench.train(**options)
    assert tried
    assert set(tried) == {4}


def test_one_row_that_does_not_fit_stops(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    out_of_memory_above(monkeypatch, 0)
    with pytest.raises(TrainingError, match="out of GPU memory"):
        bench.train(on_out_of_memory="split")
