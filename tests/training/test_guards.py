"""A watch that tells a loss spike from noise, drift and one bad batch."""

from __future__ import annotations

import json
import random

import pytest

from tts_kernel.training.guards import Spike, SpikeWatch


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
