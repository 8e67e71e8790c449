from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from tests.widgets.runs import STEPS, add_checkpoints, make_run
from tts_kernel.recovery.history import Series, read_history
from tts_kernel.runs import Run
from tts_kernel.training.metrics import MetricLog
from tts_kernel.widgets import curves, lines, saved

SAVED = (
    ("latest_full.pth", "latest_full", 490, True),
    ("step_00400.pth", "step", 400, False),
    ("best_model.pth", "best", 300, True),
    ("top_00300.pth", "top", 300, True),
)


def panel(figure: Figure, title: str) -> Axes:
    return next(axis for axis in figure.axes if title in axis.get_title())


def labels(axis: Axes) -> list[str]:
    return axis.get_legend_handles_labels()[1]


def drawn(axis: Axes, label: str) -> tuple[list[float], list[float]]:
    line = next(line for line in axis.lines if line.get_label().startswith(label))
    return list(line.get_xdata()), list(line.get_ydata())


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for axis in figure.axes for text in axis.texts)


def test_the_figure_of_a_run_lies_in_its_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = curves.training(run)
    assert path == run.figures / "training.png"
    assert (imread(path)[..., :3].min(axis=-1) < 0.9).mean() > 0.01


def test_every_panel_shows_what_was_logged(tmp_path: Path) -> None:
    figure = curves.draw_training(read_history(make_run(tmp_path / "run").folder))
    steps, values = drawn(panel(figure, "Training loss"), "semantic codes")
    np.testing.assert_allclose(values, [3 + 3 * np.exp(-step / 100) for step in STEPS])
    assert steps == list(STEPS)
    assert drawn(panel(figure, "speaker accuracy"), "chance")[1] == [0.5, 0.5]
    assert drawn(panel(figure, "Learning rate"), "learning rate")[1] == [1e-4] * len(STEPS)
    assert set(drawn(panel(figure, "Gradient norm"), "gradient norm")[1]) == {1.0}
    assert set(drawn(panel(figure, "Speed"), "tokens/s")[1]) == {4000.0}
    beside = {axis.get_ylabel() for axis in figure.axes}
    assert {"reversal strength", "memory, GB", "share of steps clipped"} <= beside
    assert "1.0" not in words(figure)


def test_the_line_above_tells_where_the_run_stands(tmp_path: Path) -> None:
    told = curves.describe(read_history(make_run(tmp_path / "run").folder))
    for part in ("step 490", "4,000 tokens/s", "2.0 GB", "0:53:55 left", "best val/loss 2.522 at step 490"):
        assert part in told


def test_nothing_logged_is_drawn_too(tmp_path: Path) -> None:
    figure = curves.draw_training(read_history(tmp_path))
    assert "no validation has been logged" in words(figure)
    assert "nothing logged yet" in curves.describe(read_history(tmp_path))


def test_a_run_without_adversary_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", only=("train/text", "train/mel", "val/loss"))
    assert "no adversary" in words(curves.draw_training(read_history(run.folder)))


def test_a_crash_is_drawn_with_its_gaps_marked(tmp_path: Path) -> None:
    lost = {step: {"train/text_loss": None, "train/grad_norm": None, "train/skipped": 1.0} for step in STEPS[40:]}
    run = make_run(tmp_path / "run", lost)
    figure = curves.draw_training(read_history(run.folder))
    for title in ("Training loss", "Gradient norm"):
        assert drawn(panel(figure, title), "not finite, 10x")[0] == list(STEPS[40:])
    assert drawn(panel(figure, "Gradient norm"), "steps skipped")[0] == list(STEPS[40:])


@pytest.mark.parametrize("index", [True, False])
def test_best_and_latest_checkpoint_are_marked(tmp_path: Path, index: bool) -> None:
    """Without the index by their names: the latest from step_*.pth, the best by what was logged."""
    run = make_run(tmp_path / "run", {300: {"val/loss": 0.1}})
    add_checkpoints(run, *SAVED, index=index)
    axis = panel(curves.draw_training(read_history(run.folder)), "checkpoints")
    assert "best, step 300" in labels(axis)
    assert drawn(axis, "best")[1] == [0.1]
    assert ("latest, step 490" if index else "latest, step 400") in labels(axis)
    assert drawn(axis, "among the best")[0] == [300]
    assert ("saved in a spike" in labels(axis)) == index


def test_a_damaged_index_and_a_file_that_is_gone_are_passed_over(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_checkpoints(run, *SAVED)
    (run.checkpoints / "latest_full.pth").unlink()
    assert [one.file for one in saved.saved(read_history(run.folder)) if one.kind == "latest_full"] == []
    for text in ("[{", '{"a": 1}', '[{"file": 3}]', "[1]"):
        (run.checkpoints / "index.json").write_text(text, encoding="utf-8")
        assert {one.file for one in saved.saved(read_history(run.folder))} >= {"step_00400.pth", "best_model.pth"}


def test_checkpoints_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    add_checkpoints(run, *SAVED, index=False)
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("opened"))
    curves.training(run)


def test_event_files_draw_the_same_figure(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with MetricLog(tmp_path) as log:
        for record in run.records():
            log.write(record.pop("step"), {name: value for name, value in record.items() if name != "time"})
    a = curves.draw_training(read_history(run.folder), titled=False)
    b = curves.draw_training(read_history(tmp_path / "tensorboard"), titled=False)
    for title in ("Training loss", "Validation loss", "Gradient norm"):
        for one, other in zip(panel(a, title).lines, panel(b, title).lines, strict=True):
            np.testing.assert_allclose(one.get_ydata(), other.get_ydata(), rtol=1e-6)


def test_runs_are_compared_with_one_colour_each_and_a_legend_outside(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / place / "same") for place in "abc"]
    (runs[2].folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "val/loss": 1.0}) + "\n", encoding="utf-8")
    figure = curves.draw_comparison([read_history(run.folder) for run in runs], ["train/text_loss", "val/loss"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a/same", "b/same", "c/same"]
    text_loss, val = figure.axes[:2]
    assert [line.get_label() for line in text_loss.lines] == ["a/same", "b/same"]
    colours = {line.get_label(): line.get_color() for line in val.lines}
    assert len(set(colours.values())) == 3
    assert all(colours[line.get_label()] == line.get_color() for line in text_loss.lines)
    assert all(axis.get_legend() is None for axis in figure.axes)


def test_comparing_takes_runs_paths_and_metrics_that_nobody_has(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    picture = curves.compare([run, run.folder, str(run.folder), tmp_path], ["val/loss", "nobody/has_this"])
    assert imread(io.BytesIO(picture)).ndim == 3
    assert curves.compare([tmp_path]).startswith(b"\x89PNG")


# Lines


def series(values: np.ndarray) -> Series:
    return Series(np.arange(len(values)), values, np.zeros(len(values)))


def test_a_long_history_is_thinned_without_losing_its_extremes() -> None:
    values = np.random.default_rng(0).normal(size=300_001)
    values[77_777], values[100:900] = 1000.0, np.nan
    steps, means, low, high = lines.thin(series(values))
    assert len(steps) <= lines.MOST
    assert (np.nanmax(high), np.nanmin(low)) == (1000.0, np.nanmin(values))
    assert np.isnan(means).sum() >= 2
    assert (np.diff(steps) > 0).all()


def test_what_is_noisy_is_smoothed_and_what_is_smooth_is_not() -> None:
    x, noise = np.linspace(0, 1, 400), np.random.default_rng(0).normal(size=400)
    assert lines.noisy(np.exp(-5 * x) + 0.1 * noise)
    assert lines.noisy(np.where(x > 0.9, np.exp(30 * (x - 0.9)), 1) + 0.1 * noise)  # blows up at its end
    assert not lines.noisy(np.exp(-5 * x))
    assert not lines.noisy(np.minimum(x * 10, 1))
    assert not lines.noisy(noise[:20])  # too few to judge
    smoothed = lines.smooth(2 * x + 0.1 * noise)
    assert np.abs(smoothed - 2 * x)[20:-20].max() < 0.12


def test_smoothing_leaves_gaps_and_keeps_constants() -> None:
    values = np.full(200, 3.0)
    values[50:60] = np.nan
    smoothed = lines.smooth(values)
    np.testing.assert_array_equal(np.isnan(smoothed), np.isnan(values))
    np.testing.assert_allclose(smoothed[~np.isnan(values)], 3.0)


@pytest.mark.parametrize(("values", "kind"), [([1, 900], "log"), ([1, 50], "linear"), ([0, 900], "linear")])
def test_the_scale_is_logarithmic_where_positive_values_span_decades(values: list[float], kind: str) -> None:
    axis = Figure().subplots()
    lines.scale(axis, series(np.array(values, float)))
    assert axis.get_yscale() == kind


def test_names_that_the_font_does_not_have_are_drawn(tmp_path: Path) -> None:
    run: Run = make_run(tmp_path / "달리기")
    assert curves.training(run).is_file()
