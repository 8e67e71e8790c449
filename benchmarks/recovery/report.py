"""The measured readings as a page."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.data.report import processor, row
from benchmarks.recovery.measure import Judged, Read
from benchmarks.recovery.phase import KINDS
from benchmarks.recovery.simulate import DIVERGED, HEALTHY

GO_ON = 40  # points of the guide's from which training goes on
ONSET, FALSE, MISSED = 0.02, 0.02, 0.02  # the targets


@dataclass(frozen=True)
class Summary:
    """What the targets are about."""

    histories: int
    onset: float  # median of the error, of the run
    false: float  # alarms, of the healthy runs
    missed: float  # of the divergences

    @staticmethod
    def of(reads: Sequence[Read]) -> Summary:
        healthy, diverged = ([one for one in reads if one.diverged == side] for side in (False, True))
        return Summary(
            len(reads),
            _median(abs(one.error) for one in diverged if one.found),
            _share(healthy, lambda one: one.found),
            _share(diverged, lambda one: not one.found),
        )

    @property
    def met(self) -> dict[str, bool]:
        return {
            f"onset error, median {100 * self.onset:.2f} % of the run (target 2 %)": self.onset <= ONSET,
            f"false alarms on healthy runs {100 * self.false:.1f} % (target below 2 %)": self.false < FALSE,
            f"missed divergences {100 * self.missed:.1f} % (target below 2 %)": self.missed < MISSED,
        }


def render(
    reads: Sequence[Read], phases: Sequence[Judged], same: Mapping[str, float], seed: int, date: str, images: str
) -> str:
    """Markdown; `images` is the folder of the pictures, from the page."""
    summary = Summary.of(reads)
    met = summary.met
    seconds = np.array([one.seconds for one in reads])
    lines = [
        "# Diagnosis of damaged runs, measured",
        "",
        f"Made by `python -m benchmarks.diagnosis` on {date} UTC: {summary.histories:,} simulated histories of "
        f"{min(one.points for one in reads):,} to {max(one.points for one in reads):,} logged points whose truth is "
        f"known, from seeds ({seed:,} on) that nothing was tried on before. {processor()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, numpy {np.__version__}; a history is read in {np.median(seconds):.2f} s "
        f"(median; at most {seconds.max():.2f} s).",
        "",
        f"**{sum(met.values())} of {len(met)} targets met.**",
        "",
        *(f"- {'met' if reached else 'MISSED'}: {what}" for what, reached in met.items()),
        "",
        "## How the histories are made",
        "",
        "A power law, two exponentials or an exponential after a slow start fall by 1 to 6; a plateau, warm restarts "
        "(period 7 to 25 % of the run, the same or longer each time), a decay at the end and recovered spikes are what "
        "healthy runs have. Divergences begin between 12 and 92 % of the run: a jump, a ramp, a runaway, a rise that "
        "levels off, a slow drift, a parabola as of over-fitting, an explosion that ends in NaN, a second divergence "
        "after one that was recovered from, a ramp after a plateau or in the middle of warm restarts. They end 0.2 to "
        "3 times the drop higher. Noise of 0.3 to 15 % of the drop is normal, heavy-tailed or skewed, in half of the "
        "runs correlated over up to 1.5 % of the run, in three of ten with outliers of 5 to 30 deviations or louder "
        "where the loss is higher. Logged every 1 to 500 steps, in one run of ten at two intervals. The true onset is "
        "the last point before the loss without noise rises for good. `benchmarks/recovery/simulate.py` has the "
        "ranges; detection thresholds were set on other seeds.",
        "",
        f"![Eight simulated histories and how they are read; a picked seed]({images}/recovery_examples.png)",
        "",
        "## Onset, false alarms, misses",
        "",
        row(("kind", "runs", "false alarms", "missed", "onset error, median", "90 %", "in the interval", "its width")),
        row(("---", *["---:"] * 7)),
        *(_kind(kind, [one for one in reads if one.kind == kind]) for kind in HEALTHY + DIVERGED),
        _kind("**all**", reads),
        "",
        "Errors and widths in % of the run's steps. The interval is meant to hold the onset 9 times out of 10.",
        "",
        f"![Error of the onset by noise; best against luckiest point]({images}/recovery_onset.png)",
        "",
        "## Best point",
        "",
        f"The loss without noise at the best stretch lies above the lowest by {_percent(reads, 'best')} of the drop "
        f"(median; {_percent(reads, 'best', 0.9)} at most in nine runs of ten); at the lowest logged point by "
        f"{_percent(reads, 'luckiest')} ({_percent(reads, 'luckiest', 0.9)}).",
        "",
        "## Recommendation",
        "",
        "Each run with checkpoints at 20, 40, 60, 80 and 100 % of its steps, a base to restart from and 70 % of its "
        "plan behind it: how often the recommended way is the one that the loss without noise, its true best and its "
        "true onset lead to by the same rules.",
        "",
        row(("what counts", "the same")),
        row(("---", "---:")),
        *(row((name, f"{100 * share:.1f} %")) for name, share in same.items()),
        "",
        "## Not told right",
        "",
        *_wrong(reads),
        "",
        "## Judgement after phase 1",
        "",
        f"{len(phases):,} simulated phases of 5,000 steps, 50 to 500 logged points, noise of 0.3 to 8 % of the loss, a "
        "rate that warms up over up to 60 % of them; recovering means that the loss without noise will be a tenth of "
        "the way to the target lower after another such phase, and the validation does not rise. Going on: the "
        f"guide's rule from {GO_ON} points, the estimate from 50 %.",
        "",
        row(("kind", "phases", "recover", "guide goes on", "estimate goes on", "guide right", "estimate right")),
        row(("---", *["---:"] * 6)),
        *(_phase(kind, [one for one in phases if one.kind == kind]) for kind in KINDS),
        _phase("**all**", phases),
        "",
        f"Brier score, 0 is perfect: the guide's points / 100 {_brier(phases, lambda one: one.points / 100):.3f}, the "
        f"estimate {_brier(phases, lambda one: one.probability):.3f}; always saying {_base(phases):.0%}, the share "
        f"that recovers here, {_brier(phases, lambda one: _base(phases)):.3f}. The estimate knows no share of runs "
        "that recover; where few do, as here, its high values come true less often than they say: right picture.",
        "",
        f"![Both rules on phases that recover and that do not]({images}/recovery_phase_1.png)",
    ]
    return "\n".join(lines) + "\n"


def _kind(name: str, reads: Sequence[Read]) -> str:
    healthy, diverged = ([one for one in reads if one.diverged == side] for side in (False, True))
    found = [one for one in diverged if one.found]
    cells = ["", "", "", "", ""]
    if found:
        errors = [abs(one.error) for one in found]
        cells = [
            f"{100 * _share(diverged, lambda one: not one.found):.1f} %",
            f"{100 * _median(errors):.2f}",
            f"{100 * np.quantile(errors, 0.9):.1f}",
            f"{100 * _share(found, lambda one: one.inside):.0f} %",
            f"{100 * _median(one.width for one in found):.1f}",
        ]
    false = f"{100 * _share(healthy, lambda one: one.found):.1f} %" if healthy else ""
    return row((name, f"{len(reads):,}", false, *cells))


def _phase(name: str, phases: Sequence[Judged]) -> str:
    return row(
        (
            name,
            f"{len(phases):,}",
            *(
                f"{100 * _share(phases, test):.0f} %"
                for test in (
                    lambda one: one.recovers,
                    lambda one: one.points >= GO_ON,
                    lambda one: one.probability >= 0.5,
                    lambda one: (one.points >= GO_ON) == one.recovers,
                    lambda one: (one.probability >= 0.5) == one.recovers,
                )
            ),
        )
    )


def _wrong(reads: Sequence[Read]) -> list[str]:
    """Every false alarm and miss, so that it can be looked at."""
    wrong = [one for one in reads if one.diverged != one.found]
    if not wrong:
        return ["Nothing."]
    lines = [row(("kind", "seed", "what", "points", "noise, % of the drop", "stands out by, standard errors"))]
    lines.append(row(("---", "---:", "---", "---:", "---:", "---:")))
    for one in wrong:
        what, clear = ("missed", f"{one.clear:,.0f}") if one.diverged else ("false alarm", "")
        lines.append(row((one.kind, f"{one.seed}", what, f"{one.points:,}", f"{100 * one.noise:.1f}", clear)))
    return lines


def _share(of: Sequence, test: Callable[..., bool]) -> float:
    return sum(map(test, of)) / len(of) if of else 0.0


def _median(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.median(found)) if found else float("nan")


def _percent(reads: Sequence[Read], name: str, part: float = 0.5) -> str:
    return f"{100 * np.nanquantile([getattr(one, name) for one in reads], part):.2f} %"


def _brier(phases: Sequence[Judged], given: Callable[[Judged], float]) -> float:
    return float(np.mean([(given(one) - one.recovers) ** 2 for one in phases]))


def _base(phases: Sequence[Judged]) -> float:
    return _share(phases, lambda one: one.recovers)
