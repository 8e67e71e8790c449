from __future__ import annotations

import numpy as np
import pytest

from tts_kernel.evaluation import probe
from tts_kernel.evaluation.probe import ProbeError, ProbeResult, linear_probe

LABELS = ["a", "b", "c"] * 12
CLASSES = np.array([ord(label) - ord("a") for label in LABELS])


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "REPEATS", 2)  # 4 fits instead of 20


def vectors_with(separation: float, seed: int = 0) -> np.ndarray:
    """(36, 8) noise, each class moved by `separation` along an axis of its own."""
    random = np.random.default_rng(seed).standard_normal((len(LABELS), 8))
    return random + separation * np.eye(8)[CLASSES]


def test_classes_that_can_be_told_apart_are() -> None:
    found = linear_probe(vectors_with(20.0), LABELS)
    assert found.accuracy > 0.95
    assert (found.clips, found.classes) == (36, 3)
    assert found.chance == pytest.approx(1 / 3)


def test_noise_is_told_apart_about_as_often_as_by_chance() -> None:
    # The halves use the same clips, so one corpus of noise may lie well off; several do not.
    found = np.mean([linear_probe(vectors_with(0.0, seed), LABELS).accuracy for seed in range(10)])
    assert found == pytest.approx(1 / 3, abs=0.1)


def test_more_separation_is_told_apart_more_often() -> None:
    weak, strong = linear_probe(vectors_with(1.0), LABELS), linear_probe(vectors_with(4.0), LABELS)
    assert weak.accuracy < strong.accuracy


def test_the_scale_of_a_vector_tells_nothing() -> None:
    scaled = vectors_with(2.0) * 1000.0 - 7.0
    assert linear_probe(scaled, LABELS).accuracy == linear_probe(vectors_with(2.0), LABELS).accuracy


def test_equal_seeds_measure_equally_and_other_seeds_other_halves() -> None:
    vectors = vectors_with(1.0)
    assert linear_probe(vectors, LABELS, seed=3) == linear_probe(vectors, LABELS, seed=3)
    assert linear_probe(vectors, LABELS, seed=3) != linear_probe(vectors, LABELS, seed=300)


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    labels = ["a"] * 12 + ["b"] * 4
    found = linear_probe(np.random.default_rng(0).standard_normal((16, 3)), labels)
    assert (found.chance, found.classes) == (0.75, 2)


def test_vectors_that_are_not_finite_are_refused_and_counted() -> None:
    vectors = vectors_with(1.0)
    vectors[2, 0] = np.nan
    vectors[5, :] = np.inf
    with pytest.raises(ProbeError, match="2 of 36 vectors are not finite"):
        linear_probe(vectors, LABELS)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["a"] * 8, "1 classes, the largest with 8 of 8 clips"),
        (["a"] * 8 + ["b"] * 3, "2 classes, the largest with 8 of 11 clips"),
        ([], "0 classes, the largest with 0 of 0 clips"),
    ],
)
def test_too_few_classes_or_clips_are_refused_with_the_numbers(labels: list[str], found: str) -> None:
    with pytest.raises(ProbeError, match=f"{found}; expected at least 2 classes of at least 4 clips"):
        linear_probe(np.zeros((len(labels), 3)), labels)


def test_clips_of_rare_classes_are_left_out_and_counted() -> None:
    vectors = np.concatenate([np.eye(2).repeat(10, axis=0), np.full((3, 2), 5.0)])
    found = linear_probe(vectors, ["a"] * 10 + ["b"] * 10 + ["c", "c", "d"])
    assert (found.clips, found.classes, found.left_out, found.accuracy, found.chance) == (20, 2, 3, 1.0, 0.5)


def test_a_label_too_many_is_refused() -> None:
    with pytest.raises(ProbeError, match="36 vectors, 35 labels"):
        linear_probe(vectors_with(1.0), LABELS[1:])


def test_what_is_kept_is_measured_from_chance() -> None:
    before, after, at_chance = (ProbeResult(accuracy, 0.0, 0.2, 40, 5) for accuracy in (0.8, 0.5, 0.2))
    assert after.kept(before) == pytest.approx(0.5)
    assert (before.kept(before), at_chance.kept(before)) == (pytest.approx(1.0), pytest.approx(0.0))
