"""What a run knows of itself, written and read back; whole runs are in test_resume."""

from __future__ import annotations

import json
import math

from tts_kernel.data.sampler import Position
from tts_kernel.training.state import Standing


def test_where_a_run_stands_survives_plain_values() -> None:
    before = Standing(
        step=7,
        position=Position(1, 0, 24, 12, 2),
        rate_scale=0.5,
        best_loss=1.5,
        val_last={"val/loss": 1.6},
        interval=[{"train/loss": 2.0}],
        updater={"value": 1024.0, "good": 3, "patience": 2000},
    )
    assert Standing.from_mapping(json.loads(json.dumps(before.to_mapping()))) == before


def test_a_file_from_before_a_value_was_known_has_its_default_and_one_from_after_is_read() -> None:
    values = Standing(step=7, rollbacks=1).to_mapping()
    del values["updater"]
    found = Standing.from_mapping({**values, "of_a_later_version": 1})
    assert (found.step, found.rollbacks, found.updater) == (7, 1, {})


def test_patience_counts_validations_without_a_lower_loss() -> None:
    now, counted = Standing(), []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.0, math.nan):
        now.note_validation(loss)
        counted.append((now.best_loss, now.since_best))
    assert counted == [(3.0, 0), (2.0, 0), (2.0, 1), (2.0, 2), (1.0, 0), (1.0, 1)]
