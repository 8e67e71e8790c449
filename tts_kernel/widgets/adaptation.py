"""Figures of a CosyVoice2 run: what each model learned, and how much more the voice sounds like the speaker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from tts_kernel.recovery.history import History, read_history
from tts_kernel.runs import Run
from tts_kernel.widgets.figures import BLUE, GREEN, GREY, ORANGE, make_figure, save_figure, say_instead
from tts_kernel.widgets.lines import draw, label_steps

TITLES = {"llm": "LLM: loss", "flow": "flow: loss"}
UNITS = {"llm": "cross-entropy, nats per speech token", "flow": "squared error of the velocity"}


def learned(run: Run) -> Path:
    """Training and CV loss of each model that the run has trained, as figures/losses.png."""
    figure, axes = make_figure(11, 4, 1, 2)
    for axis, (name, title) in zip(axes[0], TITLES.items(), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_ylabel(UNITS[name])
        _losses(axis, read_history(run.folder / name) if (run.folder / name).is_dir() else None)
    return save_figure(figure, run, "losses")


def _losses(axis: Axes, history: History | None) -> None:
    if history is None or not len(history["train/loss"]):
        say_instead(axis, "not trained in this run", GREY)
        return
    draw(axis, history["train/loss"], "training", BLUE)
    held = history["val/loss"]
    if draw(axis, held, "CV", ORANGE, marks=True):
        values = held.finite()
        best = int(values.values.argmin())
        step, value = int(values.steps[best]), float(values.values[best])
        axis.plot([step], [value], "*", color=GREEN, markersize=14, label=f"lowest CV, {value:.4g} at step {step:,}")
    label_steps(axis)
    axis.set_xlabel("optimiser step")
    axis.legend(fontsize=8, frameon=False)


def similarity(run: Run) -> Path:
    """Speaker similarity before and after against what real clips reach, as figures/similarity.png."""
    values: dict[str, Any] = json.loads((run.folder / "similarity.json").read_text(encoding="utf-8"))
    figure, axes = make_figure(5.5, 3.6, 1, 1)
    axis = axes[0, 0]
    axis.set_title("Speaker similarity of generated to real clips", fontsize=10)
    measured = {when: found for when, found in values.items() if found["score"] is not None}
    if not measured:
        say_instead(axis, "not measured", GREY)
    else:
        for place, (when, found) in enumerate(measured.items()):
            colour = GREY if when == "before" else BLUE
            axis.bar(place, found["score"], 0.5, color=colour, yerr=found["spread"], capsize=4)
            top = max(found["score"], 0.0) + found["spread"]
            axis.annotate(
                f"{found['score']:.2f}",
                (place, top),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                zorder=4,  # before the line of real clips
            )
        axis.set_xticks(range(len(measured)), list(measured))
        axis.set(ylabel="cosine of speaker embeddings", xlim=(-0.6, len(measured) - 0.4))
        clips = " and ".join(str(count) for count in sorted({found["clips"] for found in measured.values()}))
        axis.set_xlabel(f"mean and standard deviation of {clips} clips")
        axis.axhline(0, color="black", linewidth=0.8)
        real = next(iter(measured.values()))["real"]
        if real is not None:
            axis.axhline(real, color=GREEN, linestyle="--", linewidth=1.2, label=f"real clips, {real:.2f}")
            axis.set_ylim(top=1.25 * max(real, *(found["score"] + found["spread"] for found in measured.values())))
            axis.legend(fontsize=8, frameon=False, loc="upper left")
    return save_figure(figure, run, "similarity")
