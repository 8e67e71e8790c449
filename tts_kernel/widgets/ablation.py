"""Figure of an ablation, from the run folder's ablation.json: claimed beside measured."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from tts_kernel.runs import Run
from tts_kernel.widgets.figures import BLUE, GREEN, GREY, ORANGE, make_figure, save_figure

KINDS = {"plain": ("plain loop", GREY), "alone": ("one switch", BLUE), "cumulative": ("with those before it", GREEN)}
KINDS["all"] = ("all", ORANGE)


def ablation(run: Run) -> Path:
    """Speed of each variant in multiples of the plain one, with what the guide claims, and peak memory."""
    lines: list[dict[str, Any]] = json.loads((run.folder / "ablation.json").read_text(encoding="utf-8"))
    figure, axes = make_figure(11, 0.34 * len(lines) + 1.3, 1, 2, width_ratios=(3, 2))
    speed, memory = axes[0]
    names = [line["name"] for line in lines]
    for axis in (speed, memory):
        axis.set_ylim(len(lines) - 0.4, -0.6)
        axis.grid(visible=False, axis="y")
        axis.set_yticks(range(len(lines)), names if axis is speed else [""] * len(lines), fontsize=9)
    for place, line in enumerate(lines):
        low_high = claimed_range(line["claimed"])
        if "not_measurable" in line:
            beside = 0.04 + (low_high[1] if low_high else 0.0)
            text = f"not measurable here: {line['not_measurable']}"
            speed.text(beside, place, text, va="center", fontsize=8, color=GREY)
        else:
            _bar(speed, place, line["speedup"], f"{line['speedup']:.2f}", KINDS[line["kind"]][1])
            if line["memory_gb"] is None:
                memory.text(0.0, place, "not measured", va="center", fontsize=8, color=GREY)
            else:
                _bar(memory, place, line["memory_gb"], f"{line['memory_gb']:.2f}", KINDS[line["kind"]][1])
        if low_high:
            speed.plot(low_high, [place, place], color="black", linewidth=2.2, solid_capstyle="butt")
            speed.plot(low_high, [place, place], "|", color="black", markersize=9)
    speed.axvline(1.0, color="black", linewidth=0.8, linestyle="--")
    highest = max([2.5, *(line["speedup"] for line in lines if "speedup" in line)])
    speed.set(title="Tokens per second, in multiples of the plain loop", xlim=(0, 1.35 * highest))
    memory.set(title="Peak memory, GB")
    memory.margins(x=0.15)
    handles: list[Any] = [Patch(color=colour, label=label) for label, colour in KINDS.values()]
    handles += speed.plot([], [], "-|", color="black", linewidth=2.2, markersize=9, label="claimed by the guide")
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    return save_figure(figure, run, "ablation")


def _bar(axis: Axes, place: int, value: float, text: str, colour: str) -> None:
    axis.barh(place, value, 0.62, color=colour)
    axis.text(value, place, f" {text}", va="center", fontsize=8)


def claimed_range(claimed: str) -> tuple[float, float] | None:
    """ "1.10-1.15" -> both ends, "1.40" -> twice the same; None for what is no factor of the whole."""
    found = re.fullmatch(r"(\d+\.\d+)(?:-(\d+\.\d+))?", claimed)
    return (float(found[1]), float(found[2] or found[1])) if found else None
