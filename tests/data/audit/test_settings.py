from __future__ import annotations

from typing import Any

import pytest

from tts_kernel.data.audit import AuditSettings
from tts_kernel.settings import SettingsError, read_settings


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"demo_faults": True, "data": "corpus"}, "demo_faults: found True with data 'corpus'"),
        ({"min_duration": 30.0}, "min_duration and max_duration: found 30.0 and 30.0"),
        ({"max_chars_per_second": 0.5}, "min_chars_per_second and max_chars_per_second"),
        ({"validation_manifest": "gpt_pairs_train.jsonl"}, "the manifest to train on"),
        ({"train_manifest": ""}, "train_manifest: found empty"),
        ({"fail_on": "warnings"}, "fail_on"),
        ({"sample": -1}, "sample"),
        ({"min_level": 3.0}, "min_level"),
        ({"tempo_factor": 1.0}, "tempo_factor"),
        ({"sampel": 10}, "did you mean sample"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match="1 parameter ") as caught:
        read_settings(AuditSettings, values)
    assert reason in str(caught.value)


def test_defaults_are_consistent() -> None:
    assert read_settings(AuditSettings, {}) == AuditSettings()
