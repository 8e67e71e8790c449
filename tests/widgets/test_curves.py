from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from tts_kernel.runs import Run
from tts_kernel.widgets import curves


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with five logged points; one value is null, as a NaN is logged."""
    records: list[dict[str, Any]] = []
    for step in range(0, 50, 10):
        records.append(
            {
                "step": step,
                "time": 0.0,
                "train/mel_loss": None if step == 20 else 3.0 - step / 50,
                "train/text_loss": 1.0,
                "train/speaker_acc": 0.5,
                "train/grl_lambda": step / 50,
                "train/lr": 1e-4,
                "train/grad_norm": 1.0,
                "val/mel_loss": 3.1,
                "val/text_loss": 1.1,
                "val/speaker_acc": 0.4,
            }
        )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    (tmp_path / "speaker_mapping.json").write_text('{"a": 0, "b": 1}', encoding="utf-8")
    return Run(tmp_path)


def probe(accuracy: float) -> dict[str, float]:
    return {"accuracy": accuracy, "spread": 0.02, "chance": 0.125, "clips": 40, "classes": 8}


def ink(path: Path) -> float:
    """Share of a picture that is not white."""
    return float((imread(path)[..., :3].min(axis=-1) < 0.9).mean())


def test_training_is_drawn_from_a_run_folder_with_gaps(run: Run) -> None:
    path = curves.training(run)
    assert path == run.figures / "training.png"
    assert ink(path) > 0.01


def test_a_run_without_adversary_or_metrics_is_drawn_too(tmp_path: Path) -> None:
    assert curves.training(Run(tmp_path)).is_file()


def test_probes_show_what_was_measured_and_what_was_not(run: Run) -> None:
    facts = {
        "speaker_before": probe(0.6),
        "speaker_after": probe(0.2),
        "style_before": None,
        "style_after": None,
        "val_loss_before": 2.2,
        "val_loss_after": 2.1,
    }
    (run.folder / "probe.json").write_text(json.dumps(facts), encoding="utf-8")
    (path,) = curves.judged(run)
    assert ink(path) > 0.05


def test_emotion_space_is_drawn_where_the_vectors_were_kept(run: Run) -> None:
    random = np.random.default_rng(0)
    speakers, styles = np.repeat(["a", "b", "c"], 20), np.tile(["x", "y", "z", "w"], 15)
    for when in ("before", "after"):
        np.savez(
            run.folder / f"emotion_{when}.npz", vectors=random.normal(size=(60, 6)), speakers=speakers, styles=styles
        )
    assert ink(curves.emotion_space(run)) > 0.005
