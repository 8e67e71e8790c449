"""What a recovery decision rests on, as figures: the damaged run, the ways out side by side, phase 1 judged."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tts_kernel.recovery.choice import Choice, Weighed, expected_pairs
from tts_kernel.recovery.course import read_course
from tts_kernel.recovery.diagnosis import Diagnosis
from tts_kernel.recovery.history import History, read_history
from tts_kernel.recovery.phases import Verdict
from tts_kernel.runs import Run, runs_folder
from tts_kernel.widgets.figures import (
    BLUE,
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
from tts_kernel.widgets.lines import label_steps, scale, thin

STATES = {"healthy": GREEN, "rising": ORANGE, "ruined": RED, "unreadable": "#000000", "unknown": GREY}
SOURCES = {"prior": BLUE, "rule of thumb": ORANGE, "measured": GREEN, "yours": PURPLE}


def damage(diagnosis: Diagnosis, run: Run) -> Path:
    """The figure of `draw_damage` as the decision's figures/damage.png."""
    return save_figure(draw_damage(diagnosis), run, "damage")


def options(choice: Choice, run: Run) -> Path:
    """The figure of `draw_options` as the decision's figures/options.png."""
    return save_figure(draw_options(choice), run, "options")


def phase_1(name: str, diagnosis: Diagnosis, verdict: Verdict, run: Run) -> Path:
    """The figure of `draw_phase_1` for the run `name`, as the decision's figures/phase_1.png."""
    history = read_history(runs_folder() / name)
    return save_figure(draw_phase_1(history, diagnosis, verdict), run, "phase_1")


def draw_damage(diagnosis: Diagnosis) -> Figure:
    """The diagnosed metric with its trend, best stretch, onset and spikes; every surviving checkpoint at its step, by
    its state; where the run was resumed."""
    figure, axes = make_figure(13, 4.6, 1, 1)
    axis, course = axes[0, 0], diagnosis.course
    axis.set_title(plain(f"{diagnosis.history.name}: {diagnosis.metric or 'no loss was logged'}"), fontsize=11)
    if not len(course.series):
        say_instead(axis, "no finite value has been logged", GREY)
        return figure
    steps, means, low, high = thin(course.series)
    axis.fill_between(steps, low, high, color=BLUE, alpha=0.15, linewidth=0)
    axis.plot(steps, means, color=BLUE, alpha=0.35, linewidth=0.8)
    every = max(len(course.trend) // 2000, 1)
    axis.plot(course.series.steps[::every], course.trend[::every], color=BLUE, linewidth=1.8, label="trend")
    if course.onset:
        axis.axvspan(course.onset.first, max(course.onset.last, course.onset.first + 1), color=RED, alpha=0.18)
        axis.axvline(course.onset.step, color=RED, linewidth=1.2, label=f"onset, step {course.onset.step:,}")
    for number, spell in enumerate(course.spikes):
        axis.axvspan(spell.first, spell.last, color=PURPLE, alpha=0.15, label="" if number else "spike, recovered")
    if course.best:
        place = (course.best.step, course.best.value)
        axis.plot(*place, "*", color=GREEN, markersize=15, label=f"best, {place[1]:.4g} at step {place[0]:,}", zorder=5)
    for number, step in enumerate(diagnosis.history.resumes):
        axis.axvline(step, color=GREY, linestyle=":", linewidth=1, label="" if number else "resumed")
    _mark_checkpoints(axis, diagnosis)
    scale(axis, course.series, zero=False, decades=0.8)
    axis.set_ylabel("loss")
    label_steps(axis)
    axis.legend(fontsize=8, frameon=False, ncols=7, loc="upper center", bbox_to_anchor=(0.5, -0.11))
    return figure


def draw_options(choice: Choice) -> Figure:
    """Expected hours over the chance of phase 1; chance and final loss of each way with their intervals; its score."""
    figure, axes = make_figure(14, 4.4, 1, 4, width_ratios=[1.25, 1, 1, 1])
    rows = sorted(choice.weighed, key=lambda one: -one.score)[::-1]
    _hours(axes[0, 0], choice)
    _chances(axes[0, 1], rows)
    _losses(axes[0, 2], rows, choice)
    _scores(axes[0, 3], rows, choice)
    return figure


def draw_phase_1(history: History, diagnosis: Diagnosis, verdict: Verdict) -> Figure:
    """Phase 1's curve and trend beside the best of the damaged run and where it starts from, with both judgements."""
    figure, axes = make_figure(13, 4.2, 1, 1)
    axis, series = axes[0, 0], history[diagnosis.metric].finite()
    judged = ("go on" if verdict.go_on else "restart") if verdict.estimate.measured else "too early to judge"
    axis.set_title(f"Phase 1, {plain(diagnosis.metric)}: {judged}", fontsize=11)
    if not len(series):
        say_instead(axis, "nothing has been logged yet", GREY)
        return figure
    course = read_course(series)
    axis.plot(series.steps, series.values, "o", color=BLUE, alpha=0.35, markersize=3)
    axis.fill_between(series.steps, course.low, course.high, color=BLUE, alpha=0.15, linewidth=0)
    axis.plot(series.steps, course.trend, color=BLUE, linewidth=1.8, label="trend")
    if diagnosis.course.best:
        value = diagnosis.course.best.value
        axis.axhline(value, color=GREEN, linestyle="--", linewidth=1.2, label=f"best of the damaged run, {value:.4g}")
    estimate, score = verdict.estimate, verdict.score
    text = (
        f"estimate {estimate.probability:.0%} ({estimate.low:.0%} to {estimate.high:.0%}), slope "
        f"{estimate.slope:+.3g} per 1,000 steps\nguide's score {score.points}: {score.advice}"
    )
    text = text if estimate.measured else textwrap.fill(estimate.text, 60)
    axis.text(1.0, 1.02, text, ha="right", va="bottom", transform=axis.transAxes, fontsize=9)  # clear of the curve
    axis.set_ylabel("loss")
    label_steps(axis)
    axis.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    return figure


def _mark_checkpoints(axis: Axes, diagnosis: Diagnosis) -> None:
    """On the trend at their steps; those that cannot be placed are counted in the legend."""
    course = diagnosis.course
    for state, colour in STATES.items():
        found = [one for one in diagnosis.survivors if one.state == state]
        placed = [one.step for one in found if one.step is not None]
        if placed:
            levels = [course.at(step)[0] for step in placed]
            axis.plot(placed, levels, "D", color=colour, markersize=6, label=f"checkpoint, {state}", zorder=4)
        elif found:
            axis.plot([], [], "D", color=colour, markersize=6, label=f"{len(found)} {state}, step unknown")


def _hours(axis: Axes, choice: Choice) -> None:
    """Expected hours of the phased way and of a restart, over the success probability of phase 1."""
    found = {one.option.name: one for one in choice.weighed}
    phased, restart = found["phased"], found["restart"]
    axis.set_title("Expected time", fontsize=10)
    if restart.option.impossible or phased.option.impossible:
        missing = restart if restart.option.impossible else phased
        say_instead(axis, f"nothing to compare:\n{textwrap.fill(missing.option.impossible, 34)}", GREY)
        return
    per_pair = (restart.option.hours.value if restart.option.hours else 1.0) / restart.option.pairs
    known = restart.option.hours is not None
    chances = np.linspace(0, 1, 50)
    expected = [per_pair * expected_pairs(phased.option, restart.option, chance) for chance in chances]
    axis.plot(chances, expected, color=BLUE, label="phased")
    axis.axhline(per_pair * restart.option.pairs, color=ORANGE, label="restart")
    axis.plot([phased.chance], [per_pair * phased.pairs], "o", color=BLUE, label=f"at {phased.chance:.0%}")
    if choice.break_even is not None:
        axis.axvline(choice.break_even, color=GREY, linestyle=":", label=f"break-even, {choice.break_even:.0%}")
    axis.set(xlabel="chance that phase 1 succeeds", ylim=(0, None))
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.set_ylabel("hours" if known else "time, restart = 1")
    axis.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _chances(axis: Axes, rows: list[Weighed]) -> None:
    axis.set_title("Chance of success", fontsize=10)
    for place, row in enumerate(rows):
        found = row.option.success
        colour = SOURCES[found.source]
        shown = 0.35 if row.option.impossible else 1.0
        axis.plot(
            [found.low, found.high], [place, place], color=colour, alpha=shown, linewidth=5, solid_capstyle="butt"
        )
        axis.plot([row.chance], [place], "o", color=colour, alpha=shown, markersize=8)
    used = [source for source in SOURCES if any(row.option.success.source == source for row in rows)]
    for source in used:
        axis.plot([], [], "o-", color=SOURCES[source], label=source)
    axis.set(xlim=(-0.03, 1.06), xticks=[0, 0.25, 0.5, 0.75, 1])
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    _name_rows(axis, rows)


def _losses(axis: Axes, rows: list[Weighed], choice: Choice) -> None:
    axis.set_title("Final loss, where it succeeds", fontsize=10)
    for place, row in enumerate(rows):
        if row.option.loss is None:
            axis.text(0.5, place, "unknown", transform=axis.get_yaxis_transform(), ha="center", va="center", color=GREY)
            continue
        shown = 0.35 if row.option.impossible else 1.0
        loss = row.option.loss
        axis.plot([loss.low, loss.high], [place, place], color=BLUE, alpha=shown, linewidth=5, solid_capstyle="butt")
        axis.plot([loss.value], [place], "o", color=BLUE, alpha=shown, markersize=8)
    if choice.target is not None:
        axis.axvline(choice.target, color=GREEN, linestyle="--", linewidth=1.2, label=f"target, {choice.target:.4g}")
        axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    axis.margins(x=0.12)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    _name_rows(axis, rows, named=False)


def _scores(axis: Axes, rows: list[Weighed], choice: Choice) -> None:
    """Each weight's share of the score."""
    axis.set_title("Score by your weights", fontsize=10)
    wishes = choice.wishes
    weights = {"time": (wishes.time, BLUE), "quality": (wishes.quality, GREEN), "risk": (wishes.risk, ORANGE)}
    total = sum(weight for weight, _ in weights.values())
    for place, row in enumerate(rows):
        if row.option.impossible:
            axis.text(0.02, place, "not possible here", va="center", color=GREY, fontsize=9)
            continue
        left = 0.0
        for name, (weight, colour) in weights.items():
            part = weight * getattr(row, name) / total
            axis.barh(place, part, left=left, color=colour, height=0.5, label=name if row is rows[-1] else "")
            left += part
        axis.text(left + 0.02, place, f"{left:.2f}" + ("" if row.fits else ", too long"), va="center", fontsize=9)
    axis.set(xlim=(0, 1.2), xticks=[0, 0.5, 1])
    axis.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    _name_rows(axis, rows, named=False)


def _name_rows(axis: Axes, rows: list[Weighed], *, named: bool = True) -> None:
    names = [row.option.name + ("  >" if row is rows[-1] and not row.option.impossible else "") for row in rows]
    axis.set(ylim=(-0.6, len(rows) - 0.4), yticks=range(len(rows)), yticklabels=names if named else [])
