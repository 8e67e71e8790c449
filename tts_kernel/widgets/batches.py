"""Figures of a count of batches, drawn from its run folder alone."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tts_kernel.data.pipeline.survey import FILE
from tts_kernel.runs import Run
from tts_kernel.widgets.figures import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    make_figure,
    save_figure,
    say_instead,
)

COMMAS = FuncFormatter(lambda value, _: f"{value:,.0f}")
REASON_COLOURS = (RED, ORANGE, PURPLE, GREEN, *COLOURS[5:])
PALE = "#9ecae1"  # what was not chosen
_MEASURES = (
    ("batches", "batches per epoch", "{:,.0f}"),
    ("kept", "utterances kept", "{:,.0f}"),
    ("padding", "padding, % of frames", "{:.1f}"),
    ("memory_gb", "largest batch with weights, GB", "{:.1f}"),
)


def figures(run: Run) -> list[Path]:
    """Funnel, lengths and other settings, as files in the run's figures/."""
    values = json.loads((run.folder / FILE).read_text(encoding="utf-8"))
    drawn = {"funnel": funnel(values), "lengths": lengths(values), "settings": settings(values)}
    return [save_figure(figure, run, f"batches_{name}") for name, figure in drawn.items()]


def funnel(values: dict[str, Any]) -> Figure:
    """Utterances through the processors: what is left as a bar, what was dropped beside it; the verdict on top."""
    accounts = values["accounts"]
    figure, axes = make_figure(10.5, 0.9 + 0.34 * len(accounts), 1, 1)
    axis: Axes = axes[0, 0]
    drops = [(account["processor"], drop) for account in accounts for drop in account["drops"]]
    colours = {drop["reason"]: REASON_COLOURS[number % len(REASON_COLOURS)] for number, (_, drop) in enumerate(drops)}
    whole = max(accounts[0]["entered"], 1)
    for place, account in zip(range(len(accounts))[::-1], accounts, strict=True):
        start = account["left"]
        axis.barh(place, start, 0.66, color=BLUE)
        for drop in account["drops"]:
            axis.barh(place, drop["count"], 0.66, left=start, color=colours[drop["reason"]])
            start += drop["count"]
        axis.annotate(
            f"{account['left']:,}", (start, place), (5, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    for processor, drop in drops:
        because = f"\n{drop['setting'].split(',')[0]}" if drop["setting"] else ""
        axis.bar(0, 0, color=colours[drop["reason"]], label=f"{processor}: {drop['count']:,} {drop['reason']}{because}")
    if drops:
        figure.legend(frameon=False, fontsize=8.5, loc="outside right upper", labelspacing=0.9)
    axis.set_yticks(range(len(accounts))[::-1], [account["processor"] for account in accounts])
    axis.set_xlim(0, 1.1 * whole)
    axis.set_ylim(-0.6, len(accounts) - 0.4)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.xaxis.set_major_formatter(COMMAS)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("utterances", loc="left")
    axis.set_title("\n".join(textwrap.wrap(values["facts"]["verdict"], 95)), loc="left", fontsize=10.5)
    return figure


def lengths(values: dict[str, Any]) -> Figure:
    """Frames and tokens of every utterance that came in, with the limits; utterances of a batch."""
    figure, axes = make_figure(12, 3.2, 1, 4)
    drawn = (
        ("frames", "Mel frames, 50 a second", BLUE),
        ("text_tokens", "Text tokens", GREEN),
        ("speech_tokens", "Speech tokens, 25 a second", ORANGE),
        ("batch_sizes", "Utterances in a batch", GREY),
    )
    for axis, (name, title, colour) in zip(axes[0], drawn, strict=True):
        _bars(axis, values[name], colour)
        axis.set(title=title, ylabel="batches" if name == "batch_sizes" else "utterances" if name == "frames" else "")
        for limit in values["limits"].get(name, []):
            if limit <= values[name]["edges"][-1]:
                axis.axvline(limit, color=RED, linestyle="--", linewidth=1.2)
                top = axis.get_ylim()[1]
                axis.annotate(f"{limit:,}", (limit, top), (3, -9), textcoords="offset points", fontsize=8, color=RED)
    return figure


def _bars(axis: Axes, histogram: dict[str, list[float]], colour: str) -> None:
    edges, counts = np.array(histogram["edges"]), histogram["counts"]
    if not any(counts):
        say_instead(axis, "none", GREY)
        return
    width = np.diff(edges)
    axis.bar((edges[:-1] + edges[1:]) / 2, counts, width * (0.8 if edges[0] < 0 else 1.0), color=colour)
    axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.yaxis.set_major_formatter(COMMAS)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def settings(values: dict[str, Any]) -> Figure:
    """What an epoch would be with other values of each setting; the chosen one is dark."""
    names = list(dict.fromkeys(each["setting"] for each in values["tries"]))
    figure, axes = make_figure(12, 0.9 + 1.75 * max(len(names), 1), max(len(names), 1), len(_MEASURES))
    if not names:
        for axis in axes[0]:
            say_instead(axis, "nothing else was tried", GREY)
    for row, name in zip(axes, names, strict=False):
        tried = [each for each in values["tries"] if each["setting"] == name]
        places = np.arange(len(tried))[::-1]
        for axis, (measure, title, form) in zip(row, _MEASURES, strict=True):
            numbers = [each[measure] * (100 if measure == "padding" else 1) for each in tried]
            bars = axis.barh(places, numbers, 0.62, color=[BLUE if each["chosen"] else PALE for each in tried])
            axis.bar_label(bars, [form.format(number) for number in numbers], fontsize=8, padding=3)
            axis.set_yticks(places, [f"{each['value']:,}" for each in tried])
            axis.set_xlim(0, 1.25 * max(numbers) or 1.0)
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.grid(visible=False, axis="y")
            axis.set_title(title, fontsize=9.5)
        row[0].set_ylabel(name, fontsize=9)
    return figure
