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
    plain,
    save_figure,
    say_instead,
)

COMMAS = FuncFormatter(lambda value, _: f"{value:,.0f}")
REASON_COLOURS = (RED, ORANGE, PURPLE, GREEN, *COLOURS[5:])
PALE = "#9ecae1"  # what was not chosen
FEW = 25  # bars of a histogram that are told apart by gaps
_MEASURES = (
    ("kept", "utterances kept", "{:,.0f}"),
    ("batches", "batches per epoch", "{:,.0f}"),
    ("steps", "optimiser steps per epoch", "{:,.0f}"),
    ("padding", "padding, % of frames", "{:.1f}"),
    ("memory_gb", "memory, GB", "{:.1f}"),
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
        said = f"{account['left']:,}{'  ' if account['note'] else ''}{account['note']}"
        axis.annotate(said, (start, place), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
    for processor, drop in drops:
        because = f"\n{drop['setting'].split(',')[0]}" if drop["setting"] else ""
        axis.bar(0, 0, color=colours[drop["reason"]], label=f"{processor}: {drop['count']:,} {drop['reason']}{because}")
    if drops:
        figure.legend(frameon=False, fontsize=8.5, loc="outside right upper", labelspacing=0.9)
    axis.set_yticks(range(len(accounts))[::-1], [account["processor"] for account in accounts])
    axis.set_xlim(0, 1.2 * whole)
    axis.set_ylim(-0.6, len(accounts) - 0.4)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.xaxis.set_major_formatter(COMMAS)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("utterances", loc="left")
    width = 78 if drops else 95  # letters beside the legend
    axis.set_title("\n".join(textwrap.wrap(plain(values["facts"]["verdict"]), width)), loc="left", fontsize=10.5)
    return figure


def lengths(values: dict[str, Any]) -> Figure:
    """Frames and tokens of every utterance that came in, with the limits; utterances of a batch."""
    figure, axes = make_figure(12, 3.4, 1, 4)
    drawn = (
        ("frames", "Mel frames, 50 a second", BLUE),
        ("text_tokens", "Text tokens", GREEN),
        ("speech_tokens", "Speech tokens, 25 a second", ORANGE),
        ("batch_sizes", "Utterances in a batch", GREY),
    )
    for axis, (name, title, colour) in zip(axes[0], drawn, strict=True):
        axis.set(title=title, ylabel="batches" if name == "batch_sizes" else "utterances" if name == "frames" else "")
        if _bars(axis, values[name], colour):
            _limits(axis, values["limits"].get(name, []))
    return figure


def _bars(axis: Axes, histogram: dict[str, list[float]], colour: str) -> bool:
    """Whether there is anything to draw."""
    edges, counts = np.array(histogram["edges"]), histogram["counts"]
    if not any(counts):
        say_instead(axis, "none", GREY)
        return False
    width = np.diff(edges)
    axis.bar((edges[:-1] + edges[1:]) / 2, counts, width * (0.8 if len(counts) < FEW else 1.0), color=colour)
    axis.set_xlim(edges[0], edges[-1])
    axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.yaxis.set_major_formatter(COMMAS)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.xaxis.set_major_formatter(COMMAS)
    return True


def _limits(axis: Axes, limits: list[tuple[str, float]]) -> None:
    """A line for each that lies among the bars, and their names below, from left to right."""
    shown = sorted((value, name) for name, value in limits if value <= axis.get_xlim()[1])
    for value, _ in shown:
        axis.axvline(value, color=RED, linestyle="--", linewidth=1.2)
    axis.set_xlabel("\n".join(name for _, name in shown), color=RED, fontsize=8.5)


def settings(values: dict[str, Any]) -> Figure:
    """What an epoch would be with other values of each setting; the chosen one is dark."""
    names = list(dict.fromkeys(each["setting"] for each in values["tries"]))
    tallest = max((sum(each["setting"] == name for each in values["tries"]) for name in names), default=1)
    height = 0.75 + 0.27 * max(tallest, 3)
    figure, axes = make_figure(12, 0.2 + height * max(len(names), 1), max(len(names), 1), len(_MEASURES))
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
            labels = ["none" if each["unlimited"] else f"{each['value']:,}" for each in tried]
            axis.set_yticks(places, labels)
            axis.tick_params(left=axis is row[0], labelleft=axis is row[0])
            axis.set_xlim(0, 1.45 * max(numbers) or 1.0)
            axis.set_xticks([])
            axis.grid(visible=False)
            axis.spines["bottom"].set_visible(False)
            axis.set_title(title, fontsize=9.5, loc="left")
        row[0].set_ylabel(name, fontsize=9)
    return figure
