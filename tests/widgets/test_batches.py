from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from tts_kernel.data.pipeline.settings import CountSettings
from tts_kernel.data.pipeline.survey import open_source, survey
from tts_kernel.runs import Run
from tts_kernel.widgets import batches
from tts_kernel.widgets.figures import BLUE


def saved(folder: Path, **values: Any) -> Run:
    settings = CountSettings(**values)
    run = Run(folder)
    survey(open_source(settings), settings).save(run)
    return run


@pytest.mark.parametrize(
    "values",
    [
        {"utterances": 266, "token_max_length": 0},  # nothing left
        {"utterances": 30, "batch_type": "static", "try_text_tokens": "", "min_length": 300.0},  # nothing else tried
    ],
)
def test_every_figure_is_drawn_whatever_is_left(tmp_path: Path, values: dict[str, Any]) -> None:
    paths = batches.figures(saved(tmp_path, **values))
    assert [path.stem for path in paths] == ["batches_funnel", "batches_lengths", "batches_settings"]
    for path in paths:
        picture = matplotlib.image.imread(path)
        assert np.unique(picture.reshape(-1, picture.shape[-1]), axis=0).shape[0] > 20


def test_the_funnel_shows_every_processor_and_every_reason(tmp_path: Path) -> None:
    run = saved(tmp_path, utterances=266, min_length=300.0, token_max_length=30)
    values = json.loads((run.folder / "count.json").read_text(encoding="utf-8"))
    figure = batches.funnel(values)
    (axis,) = figure.axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == [account["processor"] for account in values["accounts"]]
    said = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert len(said) == 2
    for drop in values["accounts"][2]["drops"]:
        assert any(f"filter: {drop['count']} {drop['reason']}" in label for label in said)
    assert axis.get_title(loc="left").replace("\n", " ") == values["facts"]["verdict"]


def test_the_chosen_setting_is_told_from_the_others(tmp_path: Path) -> None:
    run = saved(tmp_path, utterances=60)
    figure = batches.settings(json.loads((run.folder / "count.json").read_text(encoding="utf-8")))
    bars = figure.axes[0].patches
    colours = [to_hex(bar.get_facecolor()) for bar in bars]
    assert colours.count(BLUE.lower()) == 1
    assert colours.count(batches.PALE) == len(colours) - 1


def test_limits_are_drawn_where_they_cut_and_named(tmp_path: Path) -> None:
    run = saved(tmp_path, utterances=266, min_length=300.0, token_max_length=30)
    figure = batches.lengths(json.loads((run.folder / "count.json").read_text(encoding="utf-8")))
    frames, text, *others = figure.axes
    assert frames.get_xlabel() == "min_length 300 x 10 ms = 150\nmax_frames_in_batch 400"
    assert [np.unique(line.get_xdata()).tolist() for line in frames.lines] == [[150], [400]]
    assert text.get_xlabel() == "token_max_length 30"
    assert not any(axis.lines for axis in others)


def test_no_label_is_cut_or_in_powers_of_ten(tmp_path: Path) -> None:
    run = saved(tmp_path, utterances=20_000, token_max_length=0, zero_is_no_limit=True, try_frames="400, 2000")
    values = json.loads((run.folder / "count.json").read_text(encoding="utf-8"))
    for figure in (batches.funnel(values), batches.lengths(values), batches.settings(values)):
        FigureCanvasAgg(figure).draw()
        width, height = figure.canvas.get_width_height()
        for axis in figure.axes:
            said = [label.get_text() for label in (*axis.get_xticklabels(), *axis.get_yticklabels(), *axis.texts)]
            assert not any("e+" in text for text in said)
            for label in (*axis.texts, axis.title, axis.xaxis.label):
                box = label.get_window_extent()
                assert 0 <= box.x0 <= box.x1 <= width
                assert box.y1 <= height + 1
    rows = [[label.get_text() for label in axis.get_yticklabels()] for axis in batches.settings(values).axes]
    assert "none" in rows[-5]
