"""Metrics of a run: metrics.jsonl is the truth; TensorBoard, and Aim where it is installed, show the same under the
same names."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter

from tts_kernel.training import aim_process
from tts_kernel.training.shown import summaries


class MetricLog:
    """Appends one JSON object per call: step, time (seconds since the epoch) and the metrics."""

    def __init__(self, folder: Path, resumed_at: int | None = None, *, aim: bool = False) -> None:
        """`folder` is the run's. `aim` tracks in the Aim repository beside it, `runs/.aim`, where Aim is installed;
        what goes wrong there is one warning."""
        self.folder, self.path = folder, folder / "metrics.jsonl"
        torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"\n", b"")
        self._file = self.path.open("a", encoding="utf-8")
        if torn:  # the process died in the middle of a line
            self._file.write("\n")
        self._board = SummaryWriter(str(folder / "tensorboard"))
        if resumed_at is not None:
            self.take_back(resumed_at)
        self._aim = aim_process.AimProcess(folder) if aim and aim_process.installed() else None

    def write(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Log `metrics`, numbers or tensors of one, at optimiser step `step`. A value that is not finite is logged as
        null, JSON has no NaN. With those of a validation TensorBoard gets the pictures and sounds that it left."""
        values = {name: float(value) for name, value in metrics.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._line({"step": step, "time": round(time.time(), 3), **finite})
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if any(name.startswith("val/") for name in values):
            for summary in summaries(self.folder, step):
                self._board._get_file_writer().add_summary(summary, step)
        if self._aim is not None and not self._aim.healthy():
            self._aim = None

    def take_back(self, step: int) -> None:
        """The run goes on from `step`: what was logged after it no longer counts."""
        purge = Event(session_log=SessionLog(status=SessionLog.START))
        self._board._get_file_writer().add_event(purge, step + 1)
        self._line({"resumed_at": step, "time": round(time.time(), 3)})

    def _line(self, record: Mapping[str, object]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Waits for Aim as well, up to aim_process.PATIENCE seconds."""
        self._file.close()
        self._board.close()
        if self._aim is not None:
            self._aim.close()
            self._aim = None

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
