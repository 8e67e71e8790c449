from __future__ import annotations

import pytest

from tts_kernel.recovery.names import house_name


@pytest.mark.parametrize(
    ("theirs", "subset", "ours", "factor"),
    [
        ("train/text_loss", "", "train/text_loss", 1.0),  # ours stays as it is
        ("val/speaker_acc", "", "val/speaker_acc", 1.0),
        ("train/gradient_norm_preclip", "", "train/grad_norm", 1.0),
        ("TRAIN/loss", "", "train/loss", 1.0),
        ("CV/loss", "", "val/loss", 1.0),
        ("train_text_loss", "", "train/text_loss", 1.0),
        ("text_loss", "", "train/text_loss", 1.0),
        ("text_loss", "val", "val/text_loss", 1.0),
        ("learning_rate", "train", "train/lr", 1.0),
        ("steps_per_min", "train", "train/steps_per_second", 1 / 60),
        ("val_time", "val", "val/time", 1.0),
        ("something", "", "something", 1.0),
        ("g/total/loss", "", "g/total/loss", 1.0),
    ],
)
def test_a_metric_gets_its_house_name_and_unit(theirs: str, subset: str, ours: str, factor: float) -> None:
    assert house_name(theirs, subset) == (ours, factor)
