"""Figures of a training run and of its judgement, as PNG files in the run's figures/ whose paths are returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tts_kernel.runs import Run
from tts_kernel.widgets.figures import make_figure, save_figure

# Okabe & Ito's palette: told apart by colour-blind readers, and in print.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#7F7F7F"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, "#56B4E9", "#F0E442", "#000000")


def _draw(axis: Axes, run: Run, metric: str, label: str, colour: str, *, marks: bool = False) -> None:
    steps, values = run.series(metric)
    finite = [np.nan if value is None else value for value in values]
    if steps:
        axis.plot(steps, finite, "o-" if marks else "-", color=colour, label=label, linewidth=1.4, markersize=4)


def training(run: Run) -> Path:
    """Losses, speaker accuracy against chance with the reversal's strength, rate and gradient norm, by step."""
    figure, axes = make_figure(12, 3.6, 1, 3)
    losses, speaker, rate = axes[0]
    for name, colour in (("mel", BLUE), ("text", ORANGE)):
        title = "semantic codes" if name == "mel" else "text"
        _draw(losses, run, f"train/{name}_loss", f"{title}, training", colour)
        _draw(losses, run, f"val/{name}_loss", f"{title}, validation", colour, marks=True)
    losses.set(title="Cross-entropy", xlabel="step", ylabel="nats per token", ylim=(0, None))
    if losses.lines:
        losses.legend(fontsize=8, frameon=False)

    mapping = run.folder / "speaker_mapping.json"
    if mapping.exists() and run.series("train/speaker_acc")[0]:
        chance = 1.0 / len(json.loads(mapping.read_text(encoding="utf-8")))
        _draw(speaker, run, "train/speaker_acc", "training", BLUE)
        _draw(speaker, run, "val/speaker_acc", "validation", BLUE, marks=True)
        speaker.axhline(chance, color=GREY, linestyle="--", linewidth=1, label=f"chance {chance:.3f}")
        speaker.set(title="The adversary's speaker accuracy", xlabel="step", ylabel="accuracy", ylim=(0, 1))
        strength = speaker.twinx()
        _draw(strength, run, "train/grl_lambda", "reversal strength", RED)
        strength.set_ylabel("reversal strength", color=RED)
        strength.spines["top"].set_visible(False)
        speaker.set_ylim(0, 1.2)
        speaker.set_yticks(np.linspace(0, 1, 6))
        strength.set_ylim(0, 1.2 * max(run.series("train/grl_lambda")[1]) or 1.0)
        speaker.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", columnspacing=1.0)
    else:
        speaker.set_axis_off()
        speaker.text(0.5, 0.5, "no adversary in this stage", ha="center", color=GREY)

    _draw(rate, run, "train/lr", "learning rate", GREEN)
    rate.set(title="Learning rate and gradient", xlabel="step", ylim=(0, None))
    rate.set_ylabel("learning rate", color=GREEN)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    norm = rate.twinx()
    _draw(norm, run, "train/grad_norm", "gradient norm", PURPLE)
    norm.set_ylabel("gradient norm before clipping", color=PURPLE)
    norm.set_ylim(0, None)
    norm.spines["top"].set_visible(False)
    return save_figure(figure, run, "training")


def judged(run: Run) -> list[Path]:
    """The figures of a judgement, those for which the run has the data."""
    return [probes(run), emotion_space(run)] if (run.folder / "emotion_after.npz").exists() else [probes(run)]


def probes(run: Run) -> Path:
    """What a fresh linear probe reads from held-out emotion vectors before and after, with chance and the targets."""
    facts: dict[str, Any] = json.loads((run.folder / "probe.json").read_text(encoding="utf-8"))
    figure, axes = make_figure(8.4, 3.6, 1, 2)
    bars, loss = axes[0]
    for place, name in enumerate(("speaker", "style")):
        before, after = facts[f"{name}_before"], facts[f"{name}_after"]
        if before is None or after is None:
            bars.text(place, 0.5, "not\nmeasured", ha="center", va="center", color=GREY)
            continue
        for shift, probe, colour in ((-0.2, before, GREY), (0.2, after, BLUE)):
            bars.bar(place + shift, probe["accuracy"], 0.36, color=colour, yerr=probe["spread"], capsize=3)
            bars.text(place + shift, 0.02, f"{probe['accuracy']:.2f}", ha="center", color="white", fontsize=9)
        bars.hlines(after["chance"], place - 0.42, place + 0.42, color="black", linestyle="--", linewidth=1)
        if name == "speaker":
            limit = after["chance"] + 0.5 * (before["accuracy"] - after["chance"])
        else:
            limit = 0.7 * before["accuracy"]
        bars.hlines(limit, place + 0.02, place + 0.38, color=RED, linewidth=2)
    bars.set_xticks([0, 1], ["speaker:\nbelow the line", "style:\nabove the line"])
    bars.set(title="What a linear probe reads, held-out clips", ylabel="accuracy", ylim=(0, 1.25))
    bars.set_yticks(np.linspace(0, 1, 6))
    bars.grid(visible=False, axis="x")
    keys = [("before", GREY), ("after", BLUE)]
    handles = [bars.bar(0, 0, color=colour, label=label) for label, colour in keys]
    dashed = bars.plot([], [], "--", color="black", linewidth=1, label="chance")
    target = bars.plot([], [], "-", color=RED, linewidth=2, label="target")
    bars.legend(
        handles=[*handles, *dashed, *target], fontsize=8, frameon=False, ncols=4, loc="upper center", columnspacing=1.0
    )

    values = [facts["val_loss_before"], facts["val_loss_after"]]
    loss.bar([0, 1], values, 0.5, color=[GREY, BLUE])
    for place, value in enumerate(values):
        loss.text(place, 0.05 * max(values), f"{value:.3f}", ha="center", color="white", fontsize=9)
    loss.axhline(1.1 * values[0], color=RED, linewidth=2)
    loss.set_xticks([0, 1], ["before", "after"])
    loss.set(title="Validation loss", ylabel="0.2 text + 0.8 codes, nats", ylim=(0, 1.25 * max(values)))
    loss.grid(visible=False, axis="x")
    return save_figure(figure, run, "probes")


def emotion_space(run: Run) -> Path:
    """Held-out emotion vectors before and after, on the plane that separates each label best (linear discriminants,
    fitted on the clips shown): overlapping clouds of speakers and separate clouds of styles are what stage 2 is for."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.preprocessing import StandardScaler

    figure, axes = make_figure(9, 7.4, 2, 2)
    for column, when in enumerate(("before", "after")):
        with np.load(run.folder / f"emotion_{when}.npz", allow_pickle=False) as kept:
            vectors, labels = kept["vectors"], {name: kept[f"{name}s"] for name in ("speaker", "style")}
        for row, (name, names) in enumerate(labels.items()):
            axis = axes[row, column]
            axis.set(title=f"{name}s, {when}", xticks=[], yticks=[])
            classes = np.unique(names)
            if len(classes) < 3:
                axis.text(0.5, 0.5, f"fewer than 3 {name}s", ha="center", transform=axis.transAxes, color=GREY)
                continue
            discriminants = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=2)
            plane = discriminants.fit_transform(StandardScaler().fit_transform(vectors), names)
            for number, label in enumerate(classes[: len(COLOURS)]):
                chosen = names == label
                axis.scatter(*plane[chosen].T, s=14, color=COLOURS[number], label=str(label), alpha=0.8, linewidths=0)
            if column == 1:
                axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save_figure(figure, run, "emotion_space")
