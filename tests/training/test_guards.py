"""Bad updates are not taken, spikes are seen, memory that does not suffice is told or split: in whole runs."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
import torch

from tests.tiny_voice import CONFIG, Bench, differing
from tests.training.loop import LONG, at_step, before_update, change_sums, logged
from tts_kernel.data.batch import Batch
from tts_kernel.recipes.indextts2.objective import PairObjective
from tts_kernel.runs import write_yaml
from tts_kernel.training.guards import MOST_ROLLBACKS, Spike, SpikeWatch
from tts_kernel.training.outcome import TrainingError
from tts_kernel.training.trainer import Trainer
from tts_kernel.training.update import Updater

NAN = float("nan")


def weights_by_step(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The trained weights as they are before each update."""
    found: list[dict[str, torch.Tensor]] = []
    before_update(
        monkeypatch,
        lambda updater: found.append({n: p.detach().clone() for n, p in updater.objective.model.named_parameters()}),
    )
    return found


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int], term: str = "mel", by: float = NAN) -> None:
    """Multiply one loss of these updates, counted from 0."""
    now = [0]
    at_step(monkeypatch, lambda step: now.__setitem__(0, step))

    def change(objective: PairObjective, batch: Batch, sums: dict[str, Any]) -> None:
        if now[0] in steps:
            sums[term] = sums[term] * by

    change_sums(monkeypatch, change)


# Not finite


def test_a_bad_update_is_not_taken_and_all_there_is_to_know_is_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    spoil(monkeypatch, {1})
    weights = weights_by_step(monkeypatch)
    outcome = bench.train(**{**LONG, "log_every": 1})
    assert (outcome.status, outcome.step) == ("finished", 9)
    assert not differing(weights[1], weights[2])
    assert differing(weights[2], weights[3])
    assert bench.run().series("train/skipped") == ([*range(1, 10)], [0.0, 1.0, *[0.0] * 7])
    facts = json.loads((bench.run().folder / "bad_steps" / "step_00002.json").read_text(encoding="utf-8"))
    assert facts["step"] == 2
    assert facts["losses"]["mel"] is None
    assert math.isfinite(facts["losses"]["text"])
    assert facts["gradient_norm"] is None
    assert len(facts["pairs"]) == 10
    assert all(pair["text_tokens"] > 0 and pair["codes"] > 0 for pair in facts["pairs"])
    assert facts["parameters"]["mel_head.bias"] == CONFIG.number_mel_codes
    assert "step 2: the loss or its gradient is not finite" in heard.text
    assert facts["pairs"][0]["id"] in heard.text


def test_a_gradient_alone_that_is_not_finite_is_not_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]

    def poison(objective: PairObjective, batch: Batch, sums: dict[str, Any]) -> None:
        calls[0] += 1
        if calls[0] == 4:  # the second update's second micro-batch
            handle = objective.model.mel_head.bias.register_hook(lambda gradient: gradient * NAN)
            at_step(monkeypatch, lambda step: handle.remove())

    change_sums(monkeypatch, poison)
    weights = weights_by_step(monkeypatch)
    assert bench.train(epochs=2, log_every=1).status == "finished"
    assert not differing(weights[1], weights[2])
    facts = json.loads((bench.run().folder / "bad_steps" / "step_00002.json").read_text(encoding="utf-8"))
    assert all(math.isfinite(value) for value in facts["losses"].values())
    assert facts["parameters"] == {"mel_head.bias": CONFIG.number_mel_codes}


def test_too_many_bad_updates_in_a_row_stop_the_run_with_its_checkpoint_untouched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {4, 5, 6})
    with pytest.raises(TrainingError, match=r"step 7: .*3 in a row \(max_bad_steps\).*lower learning_rate"):
        bench.train(**LONG)
    assert bench.saved()["step"] == 4
    assert all(value.isfinite().all() for value in bench.saved()["model"].values() if value.is_floating_point())


def test_bad_updates_that_are_not_in_a_row_go_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {1, 2, 4, 5, 7})
    assert bench.train(**LONG).status == "finished"
    assert sorted(path.name for path in (bench.run().folder / "bad_steps").iterdir()) == [
        f"step_{number:05d}.json" for number in (2, 3, 5, 6, 8)
    ]


# Spikes


def noisy(seed: int, count: int, level: float = 3.0, noise: float = 0.1) -> list[float]:
    generator = random.Random(seed)
    return [level + generator.gauss(0.0, noise) for _ in range(count)]


def test_noise_drift_and_single_outliers_are_no_spike() -> None:
    for seed in range(20):
        watch = SpikeWatch()
        falling = [value - 0.002 * step for step, value in enumerate(noisy(seed, 1000))]
        falling[500] = falling[501] = 40.0
        assert not any(watch.add(value) for value in falling)
        assert not watch.suspicious
        assert not any(watch.add(value + 0.002 * step) for step, value in enumerate(noisy(seed, 500, 1.0)))


def test_a_lasting_rise_is_one_spike_after_its_patience() -> None:
    watch = SpikeWatch(patience=5)
    for value in noisy(1, 200):
        watch.add(value)
    found = [watch.add(value) for value in noisy(2, 50, level=6.0)]
    assert [spike.updates if spike else 0 for spike in found] == [0, 0, 0, 0, *range(5, 51)]
    spike = found[4]
    assert isinstance(spike, Spike)
    assert spike.usual == pytest.approx(3.0, abs=0.1)
    assert spike.spread == pytest.approx(0.1, abs=0.05)
    assert watch.suspicious
    assert "was 3" in str(spike)


def test_a_new_level_is_the_usual_one_after_a_whole_window() -> None:
    watch = SpikeWatch(window=100)
    for value in noisy(1, 200) + noisy(2, 100, level=6.0):
        watch.add(value)
    assert not any(watch.add(value) for value in noisy(3, 100, level=6.0))
    assert watch.suspicious, "weights from there are none to go back to"
    for value in noisy(4, 200):
        watch.add(value)
    assert not watch.suspicious


def test_the_first_updates_are_no_spike_however_they_fall() -> None:
    watch = SpikeWatch(least=20)
    assert not any(watch.add(value) for value in [10.0, 3.0, 3.0, 9.0, 8.0, 9.0, 9.0, 9.5])


def test_a_watch_that_is_restored_judges_as_before() -> None:
    one, other = SpikeWatch(), SpikeWatch()
    for value in [*noisy(1, 60), 9.0, 9.0]:
        one.add(value)
    other.restore(json.loads(json.dumps(one.state())))
    assert [bool(one.add(9.0)) for _ in range(4)] == [bool(other.add(9.0)) for _ in range(4)]
    assert other.state() == one.state()


SPIKY: dict[str, Any] = {
    "epochs": 20,
    "save_every": 5,
    "keep_checkpoints": 2,
    "log_every": 1,
    "grl_schedule": "constant",
}


def test_a_spike_rolls_back_to_a_checkpoint_from_before_it_at_a_lower_rate(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    rates: list[float] = []
    before_update(monkeypatch, lambda updater: rates.append(updater.optimizer.param_groups[0]["lr"]))
    once = set(range(33, 60))
    spoil(monkeypatch, once, by=20.0)
    at_step(monkeypatch, lambda step: once.clear() if len(rates) >= 38 else None)  # it is over after the rollback
    outcome = bench.train(**SPIKY, on_spike="rollback", rollback_rate=0.25, schedule="constant")
    assert (outcome.status, outcome.step) == ("finished", 60)
    # The spike is sure in update 38; the checkpoint of step 35 was written within it, that of step 30 was not.
    assert "rolled back to step 30" in heard.text
    assert rates[:38] == [1e-3] * 38
    assert rates[38:] == [2.5e-4] * 30
    assert bench.saved()["standing"]["rollbacks"] == 1
    steps = bench.run().series("train/mel_loss")[0]
    assert steps == sorted(set(steps)), "what the rollback took back does not count twice"


def test_by_default_a_spike_is_told_and_nothing_else_happens(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    spoil(monkeypatch, set(range(33, 60)), by=20.0)
    outcome = bench.train(**SPIKY)
    assert (outcome.status, outcome.step) == ("finished", 60)
    assert heard.text.count("the loss is ") == 1
    assert bench.saved()["standing"]["rollbacks"] == 0


def test_a_run_that_spikes_again_and_again_stops(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, set(range(33, 60)), by=20.0)
    with pytest.raises(TrainingError, match=f"for the {MOST_ROLLBACKS + 1}th time"):
        bench.train(**SPIKY, on_spike="rollback")


def test_a_spike_before_the_first_checkpoint_stops_with_advice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, set(range(33, 60)), by=20.0)
    with pytest.raises(TrainingError, match=r"no good checkpoint to go back to.*save_every"):
        bench.train(**{**SPIKY, "save_every": 100}, on_spike="rollback")


def test_damage_done_just_before_a_save_is_not_rolled_back_to(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, heard: pytest.LogCaptureFixture
) -> None:
    """The weights of step 40 are spoilt, and nothing can tell before update 41's loss: the file of step 40 says that it
    is healthy."""
    spoilt: list[int] = []

    def damage(updater: Updater) -> None:
        if updater.optimizer.state and not spoilt and len(steps) == 40:
            spoilt.append(40)
            with torch.no_grad():
                updater.objective.model.get_parameter("mel_head.weight").mul_(40.0)

    steps: list[int] = []
    at_step(monkeypatch, lambda step: steps.append(step))
    own = Updater.__call__

    def update(self: Updater, *arguments: Any) -> Any:
        done = own(self, *arguments)
        damage(self)
        return done

    monkeypatch.setattr(Updater, "__call__", update)
    outcome = bench.train(**{**SPIKY, "save_every": 20, "keep_checkpoints": 1}, on_spike="rollback")
    assert (outcome.status, outcome.step) == ("finished", 60)
    assert spoilt
    assert "rolled back to step 20" in heard.text
    assert bench.saved()["standing"]["rollbacks"] == 1


def test_a_run_killed_right_after_a_rollback_goes_on_from_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, set(range(33, 60)), by=20.0)
    own = Trainer._roll_back

    def killed(self: Trainer, spike: Spike) -> None:
        own(self, spike)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_roll_back", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.train(**SPIKY, on_spike="rollback")
    saved = bench.saved()
    assert (saved["step"], saved["standing"]["rollbacks"], saved["standing"]["rate_scale"]) == (30, 1, 0.5)


def test_a_refused_update_leaves_the_statistics_of_norms_as_they_were(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forward pass changes them, and they would stay spoilt for ever."""

    def spoil_vector(objective: PairObjective, batch: Batch, sums: dict[str, Any]) -> None:
        norm = objective.model.speaker_classifier.norm
        norm.running_mean.data.fill_(NAN)
        sums["mel"] = sums["mel"] * NAN

    now = [0]
    at_step(monkeypatch, lambda step: now.__setitem__(0, step))
    change_sums(
        monkeypatch, lambda objective, batch, sums: spoil_vector(objective, batch, sums) if now[0] == 1 else None
    )
    assert bench.train(**LONG).status == "finished"
    assert bench.saved()["model"]["speaker_classifier.norm.running_mean"].isfinite().all()


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
