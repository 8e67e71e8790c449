"""What all figures share: colours, size, axes, and the files they are saved in."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tts_kernel.runs import Run

# Okabe & Ito's palette: told apart by colour-blind readers, and in print.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#7F7F7F"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, "#56B4E9", "#F0E442", "#000000")


def make_figure(
    width: float, height: float, rows: int, columns: int, width_ratios: Sequence[float] | None = None
) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches, and its axes (rows, columns): no box, a faint grid."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=width_ratios)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(visible=True, alpha=0.25, linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def save_figure(figure: Figure, run: Run, name: str) -> Path:
    """Into the run's figures/."""
    run.figures.mkdir(exist_ok=True)
    path = run.figures / f"{name}.png"
    figure.savefig(path)
    return path


def png(figure: Figure) -> bytes:
    """What `IPython.display.Image` and an image widget show, at half the cost of `savefig`, which draws twice."""
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return picture.getvalue()


def say_instead(axis: Axes, text: str, colour: str) -> None:
    """Words in the place of a drawing."""
    axis.set_axis_off()
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color=colour)


def plain(name: str) -> str:
    """A name from data as a label: the default font has Latin letters only."""
    return name if name.isascii() else ascii(name)[1:-1]
