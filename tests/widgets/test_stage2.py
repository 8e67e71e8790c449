from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from tts_kernel.runs import Run
from tts_kernel.widgets import stage2


def probe(accuracy: float) -> dict[str, float]:
    return {"accuracy": accuracy, "spread": 0.02, "chance": 0.125, "clips": 40, "classes": 8}


def ink(path: Path) -> float:
    """Share of a picture that is not white."""
    return float((imread(path)[..., :3].min(axis=-1) < 0.9).mean())


def test_probes_show_what_was_measured_and_what_was_not(tmp_path: Path) -> None:
    facts = {
        "speaker_before": probe(0.6),
        "speaker_after": probe(0.2),
        "style_before": None,
        "style_after": None,
        "val_loss_before": 2.2,
        "val_loss_after": 2.1,
    }
    (tmp_path / "probe.json").write_text(json.dumps(facts), encoding="utf-8")
    (path,) = stage2.judged(Run(tmp_path))
    assert ink(path) > 0.05


def test_emotion_space_is_drawn_where_the_vectors_were_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    speakers, styles = np.repeat(["a", "b", "c"], 20), np.tile(["x", "y", "z", "w"], 15)
    for when in ("before", "after"):
        np.savez(
            tmp_path / f"emotion_{when}.npz", vectors=random.normal(size=(60, 6)), speakers=speakers, styles=styles
        )
    assert ink(stage2.emotion_space(Run(tmp_path))) > 0.005
