"""What would be recommended for a simulated run: the ordinary options and choice on its course."""

from __future__ import annotations

from pathlib import Path

from benchmarks.recovery.simulate import DIVERGED, HEALTHY
from benchmarks.recovery.truth import agreement
from tts_kernel.recovery.choice import Wishes, choose
from tts_kernel.recovery.course import Course
from tts_kernel.recovery.diagnosis import Diagnosis
from tts_kernel.recovery.facts import Interval, RunFacts
from tts_kernel.recovery.history import History
from tts_kernel.recovery.options import make_options
from tts_kernel.recovery.survivors import Survivor, state_at

SAVED = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the run: where its checkpoints are from
DONE = 0.7  # of the horizon
WEIGHTS = {"equal": Wishes(), "time": Wishes(quality=0, risk=0), "quality": Wishes(time=0, risk=0)}


def recommend(course: Course, wishes: Wishes) -> str:
    """The option's name, for a run of batches of 4 whose restart is possible."""
    steps = course.series.steps
    last = int(steps[-1])
    survivors = tuple(_survivor(course, int(steps[0] + share * (last - steps[0]))) for share in SAVED)
    facts = RunFacts(learning_rate=2e-5, batch_size=4, horizon=int(last / DONE), seconds_per_step=Interval(1, 0.9, 1.1))
    history = History(Path("simulated"), {"train/loss": course.series})
    diagnosis = Diagnosis(history, "train/loss", course, facts, survivors, (), alive=False)
    best = course.best.value if course.best else None
    return choose(make_options(diagnosis), wishes, float(course.trend[-1]), best).recommended.option.name


def _survivor(course: Course, step: int) -> Survivor:
    level = course.at(step)[0]
    above = level - course.best.value if course.best else None
    return Survivor(Path(f"step_{step}.pth"), "step", step, *state_at(course, step, True), level, above, True, 0)


def agreements(seed: int, each: int) -> dict[str, float]:
    """By which weights -> how often the recommendation is the one that the truth leads to."""
    runs = [(seed + number, kind) for kind in HEALTHY + DIVERGED for number in range(each)]
    return {
        name: agreement(lambda course, wishes=wishes: recommend(course, wishes), runs)  # type: ignore[misc]
        for name, wishes in WEIGHTS.items()
    }
