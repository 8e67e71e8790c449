"""Figures of stage 2's judgement, as PNG files in the run's figures/ whose paths are returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tts_kernel.runs import Run
from tts_kernel.widgets.figures import BLUE, COLOURS, GREY, RED, make_figure, save_figure


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
