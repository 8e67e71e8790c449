"""The course of a training run, drawn from its folder or from event files alone: of one that is going on, has finished
or has crashed, and of several on top of each other."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tts_kernel.recovery.history import History, Series, read_history
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
    png,
    save_figure,
    say_instead,
)
from tts_kernel.widgets.lines import draw, label_steps, mark_missing, scale, thin
from tts_kernel.widgets.saved import best, latest, lowest, saved

TITLES = {"text": "text", "mel": "semantic codes", "gpt": "both, weighted"}
COMPARED = ("train/text_loss", "train/mel_loss", "val/loss", "train/grad_norm", "train/lr", "train/tokens_per_second")
STYLES = ("-", "--", ":", "-.")


def training(run: Run) -> Path:
    """The figure of `draw_training` as the run's figures/training.png."""
    return save_figure(draw_training(read_history(run.folder)), run, "training")


def compare(paths: Sequence[Path | str | Run], metrics: Sequence[str] = ()) -> bytes:
    """PNG with one drawing for each metric, all runs in each. `paths` are run folders, event files or their folders;
    without `metrics`, those of COMPARED that any of them has."""
    histories = [read_history(path.folder if isinstance(path, Run) else path) for path in paths]
    return png(draw_comparison(histories, metrics))


def draw_training(history: History, *, titled: bool = True) -> Figure:
    """Losses; validation with the best and the latest checkpoint; speaker accuracy against chance; learning rate;
    gradient norm with what was clipped and skipped; speed and memory. `titled` with the line of `describe`."""
    figure, axes = make_figure(13.5, 8, 2, 3)
    panels = (_losses, _validation, _speaker, _rate, _gradient, _speed)
    for axis, panel in zip(axes.flat, panels, strict=True):
        panel(axis, history)
    if titled:
        figure.suptitle(plain(describe(history)), fontsize=11, x=0.01, ha="left")
    return figure


def draw_comparison(histories: Sequence[History], metrics: Sequence[str] = ()) -> Figure:
    """One drawing for each metric, every run with the same colour in all, named under them."""
    shown = list(metrics) or [name for name in COMPARED if any(name in history for history in histories)]
    columns = min(3, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure, axes = make_figure(4.6 * columns, 3.4 * rows + 0.6, rows, columns)
    if not shown:
        say_instead(axes[0, 0], "nothing has been logged", GREY)
    names = _told_apart(histories)
    handles = {}
    for axis, metric in zip(axes.flat, shown, strict=False):
        axis.set_title(plain(metric), fontsize=10)
        drawn = []
        for number, (name, history) in enumerate(zip(names, histories, strict=True)):
            colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
            if draw(axis, history[metric], name, colour, style=style, marks=metric.startswith("val/")):
                handles[name] = axis.lines[-1]
                drawn.append(history[metric])
        if drawn:
            scale(axis, *drawn, zero=False, decades=0.8 if metric.endswith("loss") else 2)
            label_steps(axis)
        else:
            say_instead(axis, "no run has logged this", GREY)
    for axis in list(axes.flat)[len(shown) :]:
        axis.set_axis_off()
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)), frameon=False
        )
    return figure


def describe(history: History) -> str:
    """One line: where the run stands. What was never logged is left out."""
    told = [f"step {history.step:,}" if history.step >= 0 else "nothing logged yet"]
    told += [f"{_title(name)} {history.last(name):.4g}" for name in _loss_names(history)[:3]]
    for metric, text in (
        ("train/tokens_per_second", "{:,.0f} tokens/s"),
        ("train/steps_per_second", "{:.2f} steps/s"),
        ("train/memory_gb", "{:.1f} GB"),
    ):
        if math.isfinite(value := history.last(metric)):
            told.append(text.format(value))
    if (left := history.last("train/eta_seconds")) > 0:
        told.append(f"{duration(left)} left")
    if (step := lowest(history)) is not None:
        series = history["val/loss"]
        told.append(f"best val/loss {series.values[series.steps == step][-1]:.4g} at step {step:,}")
    if history.problems:
        told.append(f"not readable: {len(history.problems)} lines or files")
    return f"{history.name}:  " + "   ".join(told)


def duration(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


# One panel each


def _losses(axis: Axes, history: History) -> None:
    axis.set_title("Training loss, validation dashed", fontsize=10)
    drawn: list[Series] = []
    for name, colour in zip(_loss_names(history), COLOURS, strict=False):
        label = _title(name)
        held = history[name.replace("train/", "val/", 1)] if name.startswith("train/") else Series(*np.zeros((3, 0)))
        for series, style in ((history[name], "-"), (held, "--")):
            named = label if style == "-" else "_"
            if draw(axis, series, named, colour, marks=style == "--", style=style):
                drawn.append(series)
    if not drawn:
        say_instead(axis, "no finite loss has been logged", GREY)
        return
    scale(axis, *drawn, zero=False, decades=0.8)
    mark_missing(axis, *drawn)
    axis.set_ylabel("cross-entropy, nats per token")
    _finish(axis)


def _title(metric: str) -> str:
    """Of a loss."""
    return TITLES.get(metric.rpartition("/")[2].removesuffix("_loss"), plain(metric))


def _loss_names(history: History) -> list[str]:
    """What is drawn as loss: the terms, or their sum where nothing else was logged."""
    names = [name for name in history.metrics if name.startswith("train/") and name.endswith("loss")]
    names = [name for name in names if name != "train/speaker_loss"]
    terms = [name for name in names if name != "train/gpt_loss"]
    return terms or names or [name for name in history.metrics if "loss" in name]


def _validation(axis: Axes, history: History) -> None:
    axis.set_title("Validation loss and checkpoints", fontsize=10)
    series = history["val/loss"]
    if not draw(axis, series, "val/loss", BLUE, marks=True):
        say_instead(axis, "no validation has been logged", GREY)
        return
    checkpoints = saved(history)
    kept = series.finite()

    def at(step: int) -> float:
        return float(np.interp(step, kept.steps, kept.values))

    tops = [one for one in checkpoints if one.kind == "top"]
    if tops:
        places = [one.step for one in tops]
        axis.plot(
            places,
            [at(step) for step in places],
            "o",
            color=GREEN,
            markersize=7,
            fillstyle="none",
            label="among the best",
        )
    if one := best(checkpoints):
        axis.plot([one.step], [at(one.step)], "*", color=GREEN, markersize=15, label=f"best, step {one.step:,}")
    if one := latest(checkpoints):
        axis.plot([one.step], [at(one.step)], "^", color=ORANGE, markersize=7, label=f"latest, step {one.step:,}")
    if ill := [one for one in checkpoints if not one.healthy]:
        places = [one.step for one in ill]
        axis.plot(places, [at(step) for step in places], "x", color=RED, markersize=8, label="saved in a spike")
    scale(axis, series, zero=False, decades=0.8)
    mark_missing(axis, series)
    _finish(axis)


def _speaker(axis: Axes, history: History) -> None:
    axis.set_title("The adversary's speaker accuracy", fontsize=10)
    accuracy, held, strength = (
        history[f"{name}"] for name in ("train/speaker_acc", "val/speaker_acc", "train/grl_lambda")
    )
    drawn = draw(axis, accuracy, "training", BLUE)
    if not draw(axis, held, "validation", ORANGE, marks=True) and not drawn:
        say_instead(axis, "no adversary in this run", GREY)
        return
    if (speakers := _speakers(history.path)) > 0:
        axis.axhline(1 / speakers, color=GREY, linestyle="--", linewidth=1.2, label=f"chance, {1 / speakers:.3g}")
    axis.set(ylim=(-0.03, 1.03), ylabel="accuracy")
    if len(strength):
        _beside(axis, strength, "reversal strength", RED)
    _finish(axis)


def _speakers(folder: Path) -> int:
    """How many the classifier tells apart, 0 where that is not known."""
    try:
        return len(json.loads((folder / "speaker_mapping.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return 0


def _rate(axis: Axes, history: History) -> None:
    axis.set_title("Learning rate, as it was applied", fontsize=10)
    if not draw(axis, history["train/lr"], "learning rate", GREEN):
        say_instead(axis, "no learning rate has been logged", GREY)
        return
    scale(axis, history["train/lr"])
    if axis.get_yscale() == "linear":
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    label_steps(axis)


def _gradient(axis: Axes, history: History) -> None:
    axis.set_title("Gradient norm before clipping", fontsize=10)
    norm = history["train/grad_norm"]
    if not draw(axis, norm, "gradient norm", PURPLE):
        say_instead(axis, "no gradient norm has been logged", GREY)
        return
    scale(axis, norm)
    mark_missing(axis, norm)
    clipped, skipped = history["train/clipped"].finite(), history["train/skipped"].finite()
    if (clipped.values > 0).any():
        share = axis.twinx()
        steps, means, *_ = thin(clipped, 300)
        share.fill_between(steps, means, step="mid", color=ORANGE, alpha=0.25, linewidth=0)
        share.set(ylim=(0, 1), yticks=[0, 0.5, 1])
        share.set_ylabel("share of steps clipped", color=ORANGE)
        share.spines["top"].set_visible(False)
        axis.set_zorder(share.get_zorder() + 1)
        axis.patch.set_visible(False)
    if len(lost := skipped.steps[skipped.values > 0]):
        places, top = lost[:: -(-len(lost) // 150)], axis.get_xaxis_transform()
        axis.plot(
            places, np.full(len(places), 0.97), "v", color=RED, markersize=5, transform=top, label="steps skipped"
        )
    _finish(axis)


def _speed(axis: Axes, history: History) -> None:
    axis.set_title("Speed and memory", fontsize=10)
    speed, memory = history["train/tokens_per_second"], history["train/memory_gb"]
    unit, label = "tokens per second, without padding", "tokens/s"
    if not len(speed):
        speed, unit, label = history["train/steps_per_second"], "steps per second", "steps/s"
    if not draw(axis, speed, label, BLUE):
        say_instead(axis, "no speed has been logged", GREY)
        return
    scale(axis, speed)
    axis.set_ylabel(unit, color=BLUE)
    if len(memory):
        _beside(axis, memory, "memory, GB", GREEN)
    _finish(axis)


def _beside(axis: Axes, series: Series, label: str, colour: str) -> None:
    """Another unit, on the right."""
    right = axis.twinx()
    right.grid(visible=False)
    draw(right, series, label, colour)
    scale(right, series)
    right.set_ylabel(label, color=colour)
    right.spines["top"].set_visible(False)


def _finish(axis: Axes) -> None:
    """Steps below, and the legend under them, where it hides no data."""
    label_steps(axis)
    if len(axis.get_legend_handles_labels()[0]) > 1:
        axis.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.15))


def _told_apart(histories: Sequence[History]) -> list[str]:
    """Names of the folders, with as much of the path in front as it takes to tell them apart."""
    for depth in range(1, max((len(history.path.parts) for history in histories), default=1) + 1):
        names = ["/".join(history.path.parts[-depth:]) for history in histories]
        if len(set(names)) == len(names):
            break
    return [plain(name) for name in names] if histories else []
