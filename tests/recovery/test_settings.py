"""A decision's settings: what is refused, and what they hand on."""

from __future__ import annotations

from typing import Any

import pytest

from tts_kernel.recovery.choice import ChoiceError, Wishes
from tts_kernel.recovery.settings import Settings
from tts_kernel.settings import SettingsError, read_settings


def test_every_value_out_of_range_is_named_at_once() -> None:
    wrong: dict[str, Any] = {
        "success_probability": 1.2,
        "go_on_above": -0.1,
        "time_weight": -1.0,
        "decision": "gamble",
        "judged_by": "coin",
        "demo_steps": 19,
        "rows": -4,
    }
    with pytest.raises(SettingsError) as caught:
        read_settings(Settings, wrong)
    for name, value in wrong.items():
        assert f"{name}: found {value!r}" in str(caught.value)


def test_wishes_are_the_settings_under_their_own_names() -> None:
    asked = Settings(time_weight=2.0, quality_weight=0.0, risk_weight=0.5, target_loss=0.9, hours_at_hand=45.0)
    assert asked.wishes() == Wishes(time=2.0, quality=0.0, risk=0.5, target_loss=0.9, hours=45.0)
    assert Settings(success_probability=0.3).wishes().success_probability == 0.3
    assert Settings().wishes() == Wishes()


def test_weights_that_are_all_zero_contradict_each_other() -> None:
    with pytest.raises(ChoiceError, match="nothing counts"):
        Settings(time_weight=0.0, quality_weight=0.0, risk_weight=0.0).wishes()


def test_only_what_was_given_counts_before_the_runs_files() -> None:
    assert Settings().given() == {}
    assert Settings(batch_size=4, learning_rate=2e-5).given() == {"batch_size": 4, "learning_rate": 2e-5}
    assert Settings(rows=100).given() == {"rows": 100}
