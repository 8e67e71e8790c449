"""Metrics of a run: metrics.jsonl is the truth, TensorBoard shows the same under the same names."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


class MetricLog:
    """Appends one JSON object per call: step, time (seconds since the epoch) and the metrics."""

    def __init__(self, folder: Path, resumed_at: int | None = None) -> None:
        self.path = folder / "metrics.jsonl"
        torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"\n", b"")
        self._file = self.path.open("a", encoding="utf-8")
        if torn:  # the process died in the middle of a line
            self._file.write("\n")
        purge = None if resumed_at is None else resumed_at + 1
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)
        if resumed_at is not None:
            self._line({"resumed_at": resumed_at, "time": time.time()})

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log `metrics` at optimiser step `step`. A non-finite value is logged as null, JSON has no NaN."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._line({"step": step, "time": round(time.time(), 3), **finite})
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def _line(self, record: Mapping[str, object]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self._board.close()

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
