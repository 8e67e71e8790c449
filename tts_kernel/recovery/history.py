"""The metrics of a run as arrays, from whatever logged them.

Our run folders, TensorBoard event files, Aim repositories, the text logs of the guide's trainer and of CosyVoice, and
CSV. A crashed run, a running one, a torn line and a damaged file are read as far as they go; what could not be read is
listed. A run that went back, because it was resumed or rolled back, has every step once: what it logged before it went
back is taken back, as `Run.records` does.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Series:
    """One metric, each step once, ascending. All three are (points,)."""

    steps: np.ndarray  # int64
    values: np.ndarray  # float64, NaN where the value was not finite
    times: np.ndarray  # float64, seconds since the epoch, NaN where unknown; a clock may go backwards

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> Series:
        """Without the values that are not."""
        kept = np.isfinite(self.values)
        return Series(self.steps[kept], self.values[kept], self.times[kept])


NOTHING = Series(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class History:
    """Metric -> series, in the order of first appearance."""

    path: Path
    metrics: dict[str, Series]
    resumes: tuple[int, ...] = ()  # steps from which the run went on, in the order it did
    problems: list[str] = field(default_factory=list)  # what could not be read: place and reason

    @property
    def name(self) -> str:
        return self.path.name

    def __contains__(self, metric: str) -> bool:
        return metric in self.metrics

    def __getitem__(self, metric: str) -> Series:
        """Empty for a metric that was never logged."""
        return self.metrics.get(metric, NOTHING)

    def last(self, metric: str) -> float:
        """The newest value, NaN where there is none."""
        values = self[metric].values
        return float(values[-1]) if len(values) else float("nan")

    @property
    def step(self) -> int:
        """The highest step that was logged; -1 before the first."""
        return max((int(series.steps.max()) for series in self.metrics.values() if len(series)), default=-1)


def read_history(path: Path | str) -> History:
    """Of a run folder, a file of any kind above, or a folder that holds some; of several kinds the first in that order.
    An Aim repository may be followed by the name or the hash of the run that is meant: runs/.aim/NAME. Never fails for
    what it finds there."""
    from tts_kernel.recovery.aim_store import read_aim
    from tts_kernel.recovery.events import find_events, read_events
    from tts_kernel.recovery.json_lines import read_json_lines
    from tts_kernel.recovery.tables import find_tables, read_tables
    from tts_kernel.recovery.text_logs import find_text_logs, read_text_logs

    path = Path(path)
    if (path / "metrics.jsonl").is_file():
        return read_json_lines(path)
    if ".aim" in path.parts[-2:]:
        return read_aim(path)
    for find, read in ((find_events, read_events), (find_text_logs, read_text_logs), (find_tables, read_tables)):
        if files := find(path):
            return read(path, files)
    if (path / ".aim").is_dir():
        return read_aim(path)
    problem = (
        f"{path}: found no metrics.jsonl, event files, text logs, tables (.csv) or Aim repository; has the run logged "
        "anything yet?"
    )
    return History(path, {}, problems=[problem if path.exists() else f"{path}: no such file or folder"])


class Points:
    """Collects points in the order they were logged, and what takes them back."""

    def __init__(self) -> None:
        self.names: dict[str, list[tuple[np.ndarray, ...]]] = defaultdict(list)  # (order, steps, values, times)
        self.backs: list[tuple[int, int]] = []  # order and step of each going back
        self.resumes: list[int] = []

    def add(self, name: str, order: np.ndarray, steps: np.ndarray, values: np.ndarray, times: np.ndarray) -> None:
        """All (points,); `order` numbers them, over all metrics, by when they were logged."""
        self.names[name].append((order, steps, values, times))

    def go_back(self, order: int, step: int) -> None:
        """From here on, what was logged before after `step` does not count."""
        self.backs.append((order, step))
        self.resumes.append(step)

    def note_resume(self, step: int) -> None:
        """The run went on from `step`; what was logged before counts where no later point says otherwise."""
        self.resumes.append(step)

    def history(self, path: Path, problems: list[str]) -> History:
        # Going back twice leaves what the lower of the two leaves: a point's limit is the minimum of all later ones.
        orders, backs = np.array(self.backs, np.int64).reshape(-1, 2).T
        limits = np.append(np.minimum.accumulate(backs[::-1])[::-1], np.iinfo(np.int64).max)
        found: dict[str, Series] = {}
        repeated = 0
        for name, parts in self.names.items():
            order, steps, values, times = (np.concatenate(column) for column in zip(*parts, strict=True))
            kept = steps <= limits[np.searchsorted(orders, order)]
            sequence = np.argsort(order[kept], kind="stable")
            found[name] = _forward(*(column[kept][sequence] for column in (steps, values, times)))
            repeated += len(sequence) - len(found[name])
        if repeated and not self.resumes:
            problems.append(
                f"{path}: {repeated:,} points taken back by later ones of the same or a lower step, and nothing says "
                "that the run was resumed"
            )
        return History(path, found, tuple(self.resumes), problems)


def _forward(steps: np.ndarray, values: np.ndarray, times: np.ndarray) -> Series:
    """Each step once, ascending: a later point takes back the earlier ones that are not below it."""
    later = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], np.iinfo(np.int64).max)
    kept = steps < later
    return Series(steps[kept], np.where(np.isfinite(values), values, np.nan)[kept], times[kept])
