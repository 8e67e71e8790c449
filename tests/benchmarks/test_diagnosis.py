"""`python -m benchmarks.diagnosis` at a tiny size: the truth of a simulated run is true, and the page says what was
measured."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks import diagnosis
from benchmarks.recovery.measure import read
from benchmarks.recovery.phase import KINDS, simulate_phase
from benchmarks.recovery.report import Summary
from benchmarks.recovery.simulate import DIVERGED, HEALTHY, simulate
from benchmarks.recovery.truth import agreement, recovers, true_course
from tts_kernel.recovery.course import read_course


@pytest.mark.parametrize("kind", HEALTHY + DIVERGED)
def test_a_history_depends_on_its_seed_alone(kind: str) -> None:
    (one, truth), (two, _), (other, _) = (simulate(seed, kind) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.steps, two.steps)
    assert len(one) != len(other) or (one.values != other.values).any()
    assert len(one) == len(truth.level)
    assert (np.diff(one.steps) > 0).all()


@pytest.mark.parametrize("kind", DIVERGED)
def test_after_the_true_onset_the_loss_never_comes_back(kind: str) -> None:
    for seed in range(5):
        series, truth = simulate(seed, kind)
        assert truth.onset is not None
        assert not recovers(truth)
        after = truth.level[truth.onset + 1 :]
        after = after[np.isfinite(after)]
        assert (after >= truth.level[truth.onset] - 1e-9).all()
        assert truth.level[truth.best] == np.nanmin(truth.level[: truth.onset + 1])
        assert np.isnan(series.values[-1]) == np.isnan(truth.level[-1])
        if kind != "explosion":
            assert truth.level[-1] > truth.level[truth.onset] + 0.1 * truth.drop
            assert truth.clear > 0


@pytest.mark.parametrize("kind", HEALTHY)
def test_a_healthy_run_has_no_onset(kind: str) -> None:
    _, truth = simulate(1, kind)
    assert truth.onset is None
    assert recovers(truth)
    assert truth.level[truth.best] == truth.level.min()


def test_phases_recover_where_they_fall_and_only_there() -> None:
    share = {kind: np.mean([simulate_phase(seed, kind).recovers for seed in range(40)]) for kind in KINDS}
    assert share["falls"] > 0.8
    assert [share[kind] for kind in ("stays", "rises", "turns", "over-fits")] == [0, 0, 0, 0]
    assert all(simulate_phase(seed, "over-fits").validation is not None for seed in range(10))


def test_the_true_course_is_what_is_true() -> None:
    for kind in ("ramp", "explosion", "plain"):
        series, truth = simulate(2, kind)
        course = true_course(read_course(series), truth)
        assert course.best is not None
        assert course.best.value == truth.level[truth.best]
        assert (course.onset is None) == (kind == "plain")
        if course.onset is not None and truth.onset is not None:
            assert course.onset.step == series.steps[truth.onset]


def test_recommendations_agree_as_far_as_what_was_read_is_true() -> None:
    histories = [(1, "jump"), (2, "jump"), (1, "plain"), (2, "plain")]
    assert agreement(lambda course: course.shape == "diverged", histories) == 1
    assert agreement(lambda course: repr(course.best), histories) == 0


def test_a_reading_is_measured_against_the_truth() -> None:
    found = read(1, "jump")
    assert found.diverged
    assert found.found
    assert abs(found.error) < 0.02
    assert found.best >= 0
    assert Summary.of([found, read(1, "plain")]).histories == 2


def test_the_page_and_its_pictures_say_what_was_measured(tmp_path: Path) -> None:
    page, images = tmp_path / "docs" / "recovery.md", tmp_path / "images"
    asked = ["--each", "1", "--phases", "3", "--seed", "11", "--output", str(page), "--images", str(images)]
    assert diagnosis.main(asked) in (0, 1)
    text = page.read_text(encoding="utf-8")
    assert f"{len(HEALTHY + DIVERGED)} simulated histories" in text
    assert f"{3 * len(KINDS)} simulated phases" in text
    assert "nan" not in text
    assert all(f"\n| {kind} | 1 |" in text for kind in HEALTHY + DIVERGED)
    shown = re.findall(r"\]\((\S+\.png)\)", text)
    assert len(shown) == 3
    assert all(imread(page.parent / picture).std() > 0.01 for picture in shown)
