from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.recovery.histories import STEPS, falling, noise, write_run
from tts_kernel.recovery.diagnosis import diagnose

ADVERSARY = {
    "classifier at chance",
    "speaker removed",
    "adversary winning",
    "speaker accuracy not falling",
    "speaker accuracy falling",
}
PART = STEPS / STEPS[-1]
RAMP = 2 / (1 + np.exp(-10 * PART)) - 1
COURSES = {
    "classifier at chance": np.full(500, 0.01) + np.abs(noise(1, 0.004)),
    "speaker removed": np.where(PART < 0.1, 8 * PART, 0.8 * np.exp(-8 * (PART - 0.1))) + noise(1),
    "adversary winning": 0.3 + 0.6 * PART + noise(1),
    "speaker accuracy not falling": np.minimum(0.6, 6 * PART) + noise(1),
    "speaker accuracy falling": np.where(PART < 0.1, 8 * PART, 0.8 - 0.5 * (PART - 0.1)) + noise(1),
}


def make(folder: Path, accuracy: np.ndarray, *, ramp: np.ndarray | None = RAMP, speakers: int = 100) -> Path:
    metrics = {"train/text_loss": falling(), "train/speaker_acc": accuracy}
    write_run(folder, metrics | ({} if ramp is None else {"train/grl_lambda": ramp}))
    if speakers:
        mapping = {f"speaker {number}": number for number in range(speakers)}
        (folder / "speaker_mapping.json").write_text(json.dumps(mapping), encoding="utf-8")
    return folder


def said(folder: Path) -> set[str]:
    return {one.name for one in diagnose(folder).findings} & ADVERSARY


@pytest.mark.parametrize("name", COURSES)
@pytest.mark.parametrize("ramp", [RAMP, None], ids=["strength logged", "strength unknown"])
def test_each_course_of_the_accuracy_has_its_finding(tmp_path: Path, name: str, ramp: np.ndarray | None) -> None:
    assert said(make(tmp_path, COURSES[name], ramp=ramp)) == {name}


def test_an_accuracy_of_zero_is_a_mapping_that_does_not_fit_even_without_the_speakers(tmp_path: Path) -> None:
    """The guide's: speaker_acc stuck at 0 with no other sign."""
    folder = make(tmp_path, np.zeros(500), speakers=0)
    found = diagnose(folder).finding("classifier at chance")
    assert found is not None
    assert found.severity == "bad"
    assert "mapping" in found.says


def test_a_reversal_that_is_not_strong_yet_is_not_judged(tmp_path: Path) -> None:
    late = np.where(PART > 0.9, PART - 0.9, 0.0)
    assert said(make(tmp_path, COURSES["speaker accuracy not falling"], ramp=late)) == set()


def test_a_run_without_an_adversary_has_no_finding_of_one(tmp_path: Path) -> None:
    assert said(write_run(tmp_path, {"train/text_loss": falling()})) == set()
