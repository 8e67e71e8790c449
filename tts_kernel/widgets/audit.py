"""Figures of an audit, drawn from its run folder alone; the panel beside them is widgets/audit_panel.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from tts_kernel.runs import Run
from tts_kernel.widgets.figures import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    make_figure,
    plain,
    save_figure,
    say_instead,
)

SEVERITY_COLOURS = {"error": RED, "warning": ORANGE, "info": BLUE}
COMMAS = FuncFormatter(lambda value, _: f"{value:,.0f}")
BAR_SHARE = 0.45  # of the width of the findings' figure; the rest is for words
FEWEST = 5  # clips of a language that make a distribution
MANY = 4000  # points of a scatter plot; more only darken it


@dataclass(frozen=True)
class Audited:
    """What an audit left in its run folder."""

    root: Path  # the data folder
    settings: dict[str, Any]
    summary: dict[str, Any]
    findings: list[dict[str, Any]]
    cases: pa.Table
    clips: pa.Table

    @classmethod
    def of(cls, run: Run) -> Audited:
        """Read audit.json, cases.parquet and clips.parquet."""
        values = json.loads((run.folder / "audit.json").read_text(encoding="utf-8"))
        tables = (pq.read_table(run.folder / f"{name}.parquet") for name in ("cases", "clips"))
        return cls(Path(values["data"]), run.settings(), values["summary"], values["findings"], *tables)


def figures(run: Run) -> list[Path]:
    """All figures for which the audit has the data, as files in the run's figures/."""
    audited = Audited.of(run)
    drawn = {"findings": findings(audited), "corpus": corpus(audited)}
    if audited.clips.num_rows:
        drawn["sound"] = sound(audited)
    drawn["text"] = text(audited)
    return [save_figure(figure, run, f"audit_{name}") for name, figure in drawn.items()]


def findings(audited: Audited) -> Figure:
    """Every finding as a bar, worst first, on a logarithmic scale; how many there are of each severity."""
    found = audited.findings
    figure, axes = make_figure(9.6, 1.1 + 0.24 * max(len(found), 3), 1, 1)
    axis: Axes = axes[0, 0]
    if not found:
        say_instead(axis, "nothing found", GREY)
        return figure
    places = np.arange(len(found))[::-1]
    counts = [item["count"] for item in found]
    axis.barh(places, counts, 0.7, color=[SEVERITY_COLOURS[item["severity"]] for item in found], left=0)
    axis.set_xscale("log")
    axis.set_xlim(0.5, 0.5 * (max(*counts, 10) / 0.5) ** (1 / BAR_SHARE))
    powers = range(0, 8, 1 if max(counts) < 10_000 else 2)
    axis.set_xticks([10**power for power in powers if 10**power <= max(*counts, 10)])
    axis.xaxis.set_minor_locator(NullLocator())
    for place, item in zip(places, found, strict=True):
        of = f" of {item['of']:,}" if item["of"] else ""
        sample = " sampled" if item["sampled"] else ""
        label = f"{item['count']:,}{of} {item['unit']}{sample}"
        axis.annotate(
            f"{label}: {item['title']}",
            (item["count"], place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_yticks(places, [item["kind"].replace("_", " ") for item in found], fontsize=8.5)
    axis.set_ylim(-0.6, len(found) - 0.4)
    axis.grid(visible=False, axis="y")
    axis.xaxis.set_major_formatter(COMMAS)
    for severity, colour in SEVERITY_COLOURS.items():
        number = sum(item["severity"] == severity for item in found)
        axis.bar(1, 0, color=colour, label=f"{severity} ({number})")
    figure.legend(frameon=False, fontsize=9, loc="outside upper right", ncols=3)
    axis.set_title("What the audit found", loc="left")
    axis.set_xlabel("cases", loc="left")
    return figure


def corpus(audited: Audited) -> Figure:
    """Hours of each language, clips of each speaker, durations."""
    figure, axes = make_figure(12, 3.4, 1, 3)
    languages, speakers, durations = axes[0]
    summary = audited.summary

    shown = list(summary["languages"].items())[: len(COLOURS)]
    names = [plain(name) or "none" for name, _ in shown]
    hours = [facts["hours"] for _, facts in shown]
    bars = languages.bar(names, hours, 0.6, color=COLOURS[: len(names)])
    languages.bar_label(bars, [f"{facts['clips']:,}" for _, facts in shown], fontsize=8, padding=2, color=GREY)
    languages.set(title="Languages (number of clips above)", ylabel="hours", ylim=(0, 1.15 * max([*hours, 1e-9])))
    languages.set_xlim(-0.8, max(len(names), 3) - 0.2)
    languages.grid(visible=False, axis="x")

    ranks = summary["speakers"]["ranks"]
    few = summary["speakers"]["count"] <= 40
    if few:
        speakers.bar(ranks["rank"], ranks["clips"], 0.7, color=GREEN)
        speakers.set(xlabel="speaker, most clips first", ylim=(0, None))
    else:
        speakers.plot(ranks["rank"], ranks["clips"], color=GREEN, linewidth=1.8)
        speakers.set(xscale="log", yscale="log", xlabel="speakers, most clips first")
        speakers.xaxis.set_major_formatter(COMMAS)
    speakers.yaxis.set_major_formatter(COMMAS)
    speakers.set(title=f"{summary['speakers']['count']:,} speakers", ylabel="clips")

    bars_ = summary["durations"]
    edges = np.array(bars_["edges"])
    durations.bar(edges[:-1], bars_["clips"], np.diff(edges), align="edge", color=BLUE)
    for name in ("min_duration", "max_duration"):
        if audited.settings[name] <= edges[-1]:
            durations.axvline(audited.settings[name], color=RED, linestyle="--", linewidth=1)
    durations.set(title=f"{summary['clips']:,} clips, {summary['hours']:,.2f} hours", ylabel="clips")
    durations.yaxis.set_major_formatter(COMMAS)
    durations.set_xlabel("seconds, longer ones in the last bar")
    return figure


def sound(audited: Audited) -> Figure:
    """Level against silence at the ends of every clip that was opened, with the limits; sample rates."""
    figure, axes = make_figure(12, 3.8, 1, 2, width_ratios=(2.2, 1))
    scatter, rates = axes[0]
    clips, settings = audited.clips, audited.settings
    column = {name: clips.column(name).to_numpy() for name in ("level", "lead", "tail", "duration", "sample_rate")}
    level, silence = column["level"], np.maximum(column["lead"], column["tail"])
    known = np.flatnonzero(np.isfinite(level) & (level > -100))
    if len(known) > MANY:
        known = known[np.linspace(0, len(known) - 1, MANY).astype(int)]
    outside = (level[known] < settings["min_level"]) | (silence[known] > settings["max_silence"])
    for chosen, colour, label in ((known[~outside], BLUE, "within the limits"), (known[outside], RED, "outside")):
        if len(chosen):
            scatter.scatter(level[chosen], silence[chosen], s=12, color=colour, alpha=0.5, linewidths=0, label=label)
    scatter.axvline(settings["min_level"], color=RED, linestyle="--", linewidth=1)
    scatter.axhline(settings["max_silence"], color=RED, linestyle="--", linewidth=1)
    scatter.set_yscale("symlog", linthresh=0.1, linscale=0.5)
    scatter.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    scatter.set_ylim(0, max(10.0, 1.2 * float(silence[known].max(initial=0))))
    left = min(settings["min_level"], float(level[known].min(initial=0)))
    scatter.set_xlim(left - 3, max(0.0, float(level[known].max(initial=-20))))
    scatter.set(title=f"{len(level):,} sounds opened", xlabel="level of the speech, dB below full scale")
    scatter.set_ylabel("longest silence at an end, seconds")
    if len(known):
        scatter.legend(frameon=False, fontsize=8, loc="upper right")

    values, counts = np.unique(column["sample_rate"][column["sample_rate"] > 0], return_counts=True)
    if not len(values):
        say_instead(rates, "no file could be read", GREY)
        return figure
    low = values < settings["min_sample_rate"]
    bars = rates.barh(np.arange(len(values)), counts, 0.6, color=np.where(low, RED, BLUE))
    rates.bar_label(bars, [f"{count:,}" for count in counts], fontsize=8, padding=3)
    rates.set_yticks(np.arange(len(values)), [f"{value:,} Hz" for value in values])
    rates.set(
        title="Sample rates", xlabel="files", xlim=(0, 1.2 * counts.max()), ylim=(-0.8, max(len(values), 3) - 0.2)
    )
    rates.grid(visible=False, axis="y")
    return figure


def text(audited: Audited) -> Figure:
    """How much text there is per second of sound, and what the tokenizer does not know, by language."""
    figure, axes = make_figure(12, 3.6, 1, 2, width_ratios=(2.2, 1))
    tempo, unknown = axes[0]
    told = audited.summary["tempo"]
    edges = np.array(told["edges"])
    order = list(audited.summary["languages"])
    for name, facts in sorted(told["languages"].items(), key=lambda item: order.index(item[0])):
        number, clips = order.index(name), np.array(facts["clips"])
        if number >= len(COLOURS) or clips.sum() < FEWEST:
            continue
        label = f"{plain(name) or 'none given'}: {clips.sum():,} clips, median {facts['median']:.1f}"
        tempo.stairs(clips / max(clips.max(), 1), edges, color=COLOURS[number], linewidth=1.6, label=label)
        tempo.axvline(facts["median"], color=COLOURS[number], linestyle=":", linewidth=1)
    tempo.set(title="Text per second of sound", xlabel=f"{told['unit']} per second", ylabel="clips, scaled to the peak")
    tempo.set_xlim(0, edges[-1])
    tempo.set_ylim(0, 1.08)
    if told["languages"]:
        tempo.legend(frameon=False, fontsize=8)
    rates = audited.summary["unknown_tokens"]
    if not rates:
        say_instead(unknown, "unknown tokens: not measured\n(no tokenizer, or no text opened)", GREY)
        return figure
    shares = [100 * share for share in rates.values()]
    bars = unknown.bar([plain(name) or "none" for name in rates], shares, 0.6, color=ORANGE)
    unknown.bar_label(bars, [f"{share:.2f} %" for share in shares], fontsize=8, padding=2)
    unknown.set(title="Tokens unknown to the tokenizer", ylabel="% of tokens", ylim=(0, max(1.0, 1.3 * max(shares))))
    unknown.grid(visible=False, axis="x")
    return figure
