from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tts_kernel.runs import Run
from tts_kernel.training.metrics import MetricLog
from tts_kernel.widgets import adaptation


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    own = adaptation.save_figure

    def save(figure: Figure, run: Run, name: str) -> Path:
        figures.append(figure)
        return own(figure, run, name)

    monkeypatch.setattr(adaptation, "save_figure", save)
    return figures


def test_losses_of_what_was_trained_are_drawn_with_the_lowest_cv_loss(tmp_path: Path, drawn: list[Figure]) -> None:
    run = Run(tmp_path)
    part = run.part("flow")
    with MetricLog(part.folder) as log:
        for step in range(1, 31):
            log.write(step, {"train/loss": 3.0 / step})
        for step, value in ((0, 3.0), (10, 1.5), (20, 1.1), (30, 1.2)):
            log.write(step, {"val/loss": value})
    assert adaptation.learned(run) == tmp_path / "figures" / "losses.png"
    llm, flow = drawn[0].axes
    assert flow.get_ylabel() == "squared error of the velocity"
    assert flow.get_xlabel() == "optimiser step"
    assert [text.get_text() for text in llm.texts] == ["not trained in this run"]
    labels = flow.get_legend_handles_labels()[1]
    assert labels == ["training", "CV", "lowest CV, 1.1 at step 20"]
    held = flow.lines[labels.index("CV")]
    np.testing.assert_allclose(held.get_ydata(), [3.0, 1.5, 1.1, 1.2])


def similar(score: float | None, real: float | None = 0.9) -> dict[str, object]:
    spread = None if score is None else 0.05
    return {"score": score, "spread": spread, "real": real, "clips": 3, "left_out": [], "reason": ""}


def test_similarity_stands_beside_what_real_clips_reach(tmp_path: Path, drawn: list[Figure]) -> None:
    values = {"before": similar(0.2), "after": similar(0.6)}
    (tmp_path / "similarity.json").write_text(json.dumps(values), encoding="utf-8")
    adaptation.similarity(Run(tmp_path))
    (axis,) = drawn[0].axes
    assert [bar.get_height() for bar in axis.patches] == [0.2, 0.6]
    assert "real clips, 0.90" in axis.get_legend_handles_labels()[1]
    assert axis.get_xlabel() == "mean and standard deviation of 3 clips"


def test_a_small_or_negative_similarity_is_written_above_its_bar(tmp_path: Path, drawn: list[Figure]) -> None:
    values = {"before": similar(-0.2), "after": similar(0.01)}
    (tmp_path / "similarity.json").write_text(json.dumps(values), encoding="utf-8")
    adaptation.similarity(Run(tmp_path))
    (axis,) = drawn[0].axes
    assert {text.get_text(): text.xy[1] for text in axis.texts} == pytest.approx({"-0.20": 0.05, "0.01": 0.06})  # type: ignore[attr-defined]
    assert {text.get_color() for text in axis.texts} == {"black"}


def test_what_was_not_measured_is_no_zero(tmp_path: Path, drawn: list[Figure]) -> None:
    values = {"before": similar(None), "after": similar(None)}
    (tmp_path / "similarity.json").write_text(json.dumps(values), encoding="utf-8")
    adaptation.similarity(Run(tmp_path))
    (axis,) = drawn[0].axes
    assert not axis.patches
    assert [text.get_text() for text in axis.texts] == ["not measured"]
