"""How long a save holds training up; benchmarks/training/saves.py measures it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.data.measure import Figures, measure
from benchmarks.data.result import Result, amount, below
from benchmarks.training import saves
from benchmarks.training.sizes import Sizes

SAVES = 7
AT_MOST = 15.0  # percent of a synchronous save that training may be blocked for

TITLE = "Saves"
METHOD = f"""A checkpoint of {{gigabytes}} GB, weights and AdamW's state, and the weights again, written at once (left)
and copied and written by the thread (right), beside steps that use all cores; medians of {SAVES} saves. Blocked: the
call itself. Lost: what a save costs the loop in all, which on a CPU is more, for writing needs the same cores."""


def timed(folder: str, gigabytes: float) -> Figures:
    weights, full = saves.state(gigabytes)
    figures: Figures = {}
    for name, background in (("plain", False), ("ours", True)):
        place = Path(folder) / name
        place.mkdir(parents=True)
        found = saves.measure(place, weights, full, SAVES, background)
        figures |= {f"{name}_blocked": found.blocked, f"{name}_first": found.first, f"{name}_lost": found.lost}
    return figures


def run(sizes: Sizes) -> list[Result]:
    found = measure(timed, 1, folder=sizes.folder / "saves", gigabytes=sizes.gigabytes)
    share = 100 * found["ours_blocked"] / found["plain_blocked"]
    return [
        below("blocked, of a synchronous save", share, AT_MOST, "%", judged=sizes.gigabytes >= 1),
        *(
            Result(what, amount(found[f"plain_{name}"], "s"), amount(found[f"ours_{name}"], "s"))
            for name, what in (("blocked", "blocked"), ("first", "blocked, first save"), ("lost", "lost"))
        ),
    ]
