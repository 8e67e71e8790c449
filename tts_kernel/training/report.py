"""What a run says while it goes on: its metrics, written by the main process, and a log line for each interval."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tts_kernel.runs import Run
from tts_kernel.training.metrics import MetricLog
from tts_kernel.training.outcome import TrainingError
from tts_kernel.training.processes import Processes
from tts_kernel.training.progress import Clock, Interval, Pace, describe, memory_gb

log = logging.getLogger(__name__)


class Report:
    """Of one run. `interval` collects the metrics of each update until the next log line."""

    def __init__(self, run: Run, processes: Processes, horizon: int, aim: bool) -> None:
        self.run, self.processes, self.horizon, self.aim = run, processes, horizon, aim
        self.interval, self.pace, self.clock = Interval(), Pace(), Clock(0)
        self._metrics: MetricLog | None = None  # on the main process, while it is open

    @contextmanager
    def open(self, resumed_at: int) -> Iterator[None]:
        """Metrics are written inside. What an earlier session logged after `resumed_at` no longer counts: -1 for one
        that died before its first checkpoint."""
        if self.processes.main:
            begun = (self.run.folder / "metrics.jsonl").exists()
            self._metrics = MetricLog(self.run.folder, resumed_at if begun else None, aim=self.aim)
        try:
            yield
        finally:
            if self._metrics is not None:
                self._metrics.close()
                self._metrics = None

    def begin(self, step: int) -> None:
        """The session's training begins at this step."""
        self.pace = Pace()
        self.restart_clock(step)

    def restart_clock(self, step: int) -> None:
        """The speed is that of training: what else took time since the last log line does not count."""
        self.clock = Clock(step)

    def add(self, metrics: dict[str, float], tokens: int) -> None:
        """Of one more update."""
        self.interval.add(metrics)
        self.clock.add(tokens)
        self.pace.steps += 1

    def tell_interval(self, step: int, left: int) -> dict[str, float]:
        """Write the means since the last line with the speed, and log them; `left` steps are to come in this session.
        Returns the means."""
        means = self.interval.means()
        speed = self.clock.read(step)
        now = {
            "train/steps_per_second": speed.steps,
            "train/tokens_per_second": speed.tokens,
            "train/memory_gb": memory_gb(self.processes.device),
            "train/eta_seconds": self.pace.seconds(left),
        }
        self.write(step, {**means, **now})
        log.info(describe(step, self.horizon, {**means, **now}))
        return means

    def tell_validation(self, step: int, values: Mapping[str, float], kept: list[str]) -> None:
        """Log what `write` has written, and the names that it was kept under."""
        text = "  ".join(f"{name.removeprefix('val/')} {value:.4g}" for name, value in values.items())
        log.info("step %d  validation  %s%s", step, text, f"  -> {', '.join(kept)}" if kept else "")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises TrainingError where the disk takes no more."""
        if self._metrics is None:
            return
        try:
            self._metrics.write(step, metrics)
        except OSError as error:
            raise TrainingError(
                f"{self.run.folder}: its metrics could not be written ({error.strerror}); the checkpoints stand. Make "
                "room and resume the run"
            ) from error

    def take_back(self, step: int) -> None:
        """The run goes on from an earlier step: what was logged after it no longer counts."""
        if self._metrics is not None:
            self._metrics.take_back(step)
