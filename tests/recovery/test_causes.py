from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.recovery.histories import STEPS, diverging, falling, write_run
from tts_kernel.recovery.diagnosis import diagnose
from tts_kernel.recovery.evidence import Finding

GIVEN = {"batch_size": 4, "learning_rate": 2e-4}
OVER_FITTED = {"train/text_loss": falling(1), "val/text_loss": falling(2) + np.clip(STEPS - 2500, 0, None) / 2000}


def found(folder: Path, name: str, **given: object) -> Finding | None:
    return diagnose(folder, given=given).finding(name)


@pytest.mark.parametrize(("rows", "epochs"), [(200_000, 0.1), (2_000, 10.0)])
def test_a_training_loss_that_rises_is_the_rate_however_often_data_were_seen(
    tmp_path: Path, rows: int, epochs: float
) -> None:
    cause = found(write_run(tmp_path, {"train/text_loss": diverging(3000)}), "rate too high", rows=rows, **GIVEN)
    assert cause is not None
    assert cause.evidence["epochs"] == epochs
    assert ("not over-fitting" in cause.says) == (epochs < 1)
    assert "0.0002 is too high for batches of 4" in cause.says


def test_little_data_seen_makes_the_rate_surer(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"train/text_loss": diverging(3000)})
    few, many = (found(folder, "rate too high", rows=rows, **GIVEN) for rows in (2_000, 200_000))
    unknown = found(folder, "rate too high")
    assert few is not None
    assert many is not None
    assert unknown is not None
    assert many.confidence > few.confidence >= unknown.confidence


def test_validation_that_rises_while_training_falls_is_over_fitting(tmp_path: Path) -> None:
    folder = write_run(tmp_path, OVER_FITTED)
    cause = found(folder, "over-fitting", rows=4000, batch_size=4)
    assert cause is not None
    assert cause.evidence["epochs"] == 5.0
    assert abs(int(cause.evidence["onset"]) - 2500) < 250
    assert found(folder, "rate too high", rows=4000, batch_size=4) is None


def test_data_seen_once_cannot_be_over_fitted(tmp_path: Path) -> None:
    folder = write_run(tmp_path, OVER_FITTED)
    assert found(folder, "over-fitting", rows=400_000, batch_size=4) is None
    assert found(folder, "validation rises", rows=400_000, batch_size=4) is not None


@pytest.mark.parametrize(("share", "said"), [(1.0, True), (0.95, True), (0.5, False)])
def test_clipping_is_said_where_it_is_the_rule(tmp_path: Path, share: float, said: bool) -> None:
    clipped = (np.random.default_rng(0).random(500) < share).astype(float)
    folder = write_run(tmp_path, {"train/text_loss": falling(), "train/clipped": clipped})
    assert (found(folder, "clipping") is not None) == said


def test_clipping_is_told_by_norms_where_it_was_not_logged(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"train/text_loss": falling(), "train/grad_norm": np.full(500, 2.0)}, grad_clip=0.5)
    cause = found(folder, "clipping")
    assert cause is not None
    assert cause.evidence["share"] == 1.0
    assert "the usual norm is 2, the limit 0.5" in cause.says
    assert found(write_run(tmp_path, {"train/text_loss": falling()}, grad_clip=3.0), "clipping") is None


def test_values_that_are_not_finite_are_a_loss_of_precision(tmp_path: Path) -> None:
    values = falling()
    values[300:305] = np.nan
    cause = found(write_run(tmp_path / "some", {"train/text_loss": values}), "precision")
    assert cause is not None
    assert (cause.evidence["train/text_loss"], cause.evidence["first"], cause.severity) == (5, 3010, "warning")
    values[300:] = np.inf
    diagnosis = diagnose(write_run(tmp_path / "end", {"train/text_loss": values}))
    cause = diagnosis.finding("precision")
    assert cause is not None
    assert cause.severity == "bad"
    assert diagnosis.course.shape == "diverged"


def test_skipped_updates_are_a_loss_of_precision(tmp_path: Path) -> None:
    skipped = np.zeros(500)
    skipped[100:103] = 0.1
    cause = found(write_run(tmp_path, {"train/text_loss": falling(), "train/skipped": skipped}), "precision")
    assert cause is not None
    assert cause.evidence["skipped"] == 3


@pytest.mark.parametrize(("last", "said"), [(0.5, True), (64.0, True), (32768.0, False)])
def test_a_loss_scale_that_collapses_is_told(tmp_path: Path, last: float, said: bool) -> None:
    scale = np.where(STEPS < 4000, 65536.0, last)
    folder = write_run(tmp_path, {"train/text_loss": falling(), "train/loss_scale": scale})
    assert (found(folder, "scaler collapse") is not None) == said


def test_validation_is_missing_only_where_there_is_none(tmp_path: Path) -> None:
    assert found(write_run(tmp_path / "a", {"train/text_loss": falling()}), "validation missing") is not None
    both = {"train/text_loss": falling(), "val/mel_loss": falling()[:3]}
    assert found(write_run(tmp_path / "b", both), "validation missing") is None
