"""A run that is trained by another process: finding it, following it, stopping it.

In the run folder: `session.json` (who), `launch.yaml` (the settings it got), `train.log` (all it printed), `run.log`
(its log lines), `outcome.json` (how it ended), and `stop`, which asks it to save and stop.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tts_kernel.runs import Run, write_atomically
from tts_kernel.training.launch import ending
from tts_kernel.training.launch.hold import Holder, in_use
from tts_kernel.training.outcome import Outcome, RunInterrupted, TrainingError

SESSION, SETTINGS, LOG, STOP = "session.json", "launch.yaml", "train.log", "stop"

log = logging.getLogger(__name__)

OnUpdate = Callable[[Run], object]

_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([A-Z]+) (.*)")  # of run.log, as Run.start_logging writes it
_SHOWN = 1500  # bytes of what was logged before this process began to follow
_TAIL = 30  # lines of train.log in an error


@dataclass(frozen=True)
class Session:
    """A process that trains `run`, or starts those that do."""

    run: Run
    holder: Holder
    detached: bool = True  # goes on when its follower ends
    printed_from: int = 0  # byte in train.log where its output begins
    logged_from: int = 0  # byte in run.log
    child: subprocess.Popen[bytes] | None = None  # where this process started it

    @property
    def pid(self) -> int:
        return self.holder.pid

    def write(self) -> None:
        """session.json, by which others find it."""
        known = {**asdict(self.holder), "detached": self.detached}
        known |= {"printed_from": self.printed_from, "logged_from": self.logged_from}
        write_atomically(self.run.folder / SESSION, json.dumps(known, indent=1, ensure_ascii=False) + "\n")

    def alive(self) -> bool:
        """Of a process on another machine all that can be seen is whether the run is in use."""
        if self.child is not None:
            return self.child.poll() is None
        return self.holder.alive() if self.holder.here else bool(in_use(self.run))

    def stop(self) -> None:
        """Ask it to save and stop; it does after its step."""
        (self.run.folder / STOP).touch()

    def follow(self, on_update: OnUpdate | None = None, poll: float = 0.5) -> Outcome:
        """Show its log until it ends; look every `poll` seconds, and call `on_update(run)` when there are new metrics.
        Raises TrainingError with its own words when it failed, with the end of its output when it died, and
        RunInterrupted when it was stopped. A KeyboardInterrupt stops one that is not detached, with a checkpoint; of a
        detached one it only ends the following."""
        lines, size, stopping = LogTail(self.run, self.logged_from), -1, False
        with _not_logged_again(self.run):
            while True:
                try:
                    alive = self.alive()  # before the last lines are read
                    for level, line in lines.new():
                        log.log(level, "%s", line, extra={"relayed": True})
                    now = _size(self.run.folder / "metrics.jsonl")
                    if on_update is not None and now != size:
                        on_update(self.run)
                    size = now
                    if not alive:
                        break
                    time.sleep(poll)
                except KeyboardInterrupt:
                    if self.detached or stopping:
                        raise self._left(stopping) from None
                    log.warning("stopping; a second interrupt does not wait", extra={"relayed": True})
                    self.stop()
                    stopping = True
        return ending.outcome(self.run) or self._died()

    def _left(self, stopping: bool) -> RunInterrupted:
        folder, how = self.run.folder, "saves and stops by itself" if stopping else "goes on"
        return RunInterrupted(
            f"no longer followed, run {self.run.name} {how} in {self.holder}. Start it again with run_name "
            f"{self.run.name} to follow it, stop it with `touch {folder / STOP}` (it saves first); its log is "
            f"{folder / LOG}"
        )

    def _died(self) -> Outcome:
        how = ""
        if self.child is not None:
            code = self.child.returncode
            how = f" with exit code {code}" if code >= 0 else f", killed by {signal.Signals(-code).name}"
            how += ", as happens where memory runs out" if code == -signal.SIGKILL else ""
        printed = self.run.folder / LOG
        text = ""
        if printed.exists():
            content = printed.read_bytes()[self.printed_from :].decode("utf-8", "replace")
            text = f". The end of {printed}:\n" + "\n".join(content.splitlines()[-_TAIL:])
        raise TrainingError(
            f"run {self.run.name}: process {self.pid} on host {self.holder.host} ended{how} without an "
            f"{ending.OUTCOME}; start it again with run_name {self.run.name} to go on at its last checkpoint{text}"
        )


class LogTail:
    """What is added to the run's run.log from byte `begin` on; the first time not more than the last few lines."""

    def __init__(self, run: Run, begin: int) -> None:
        self._path = run.folder / "run.log"
        self._at = max(begin, _size(self._path) - _SHOWN)
        self._whole = self._at == begin  # else the first line has lost its head
        self._level = logging.INFO

    def new(self) -> list[tuple[int, str]]:
        """(level, line) of each line that is complete; those of one message have its level."""
        if _size(self._path) <= self._at:
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._at += len(text)
        lines: list[tuple[int, str]] = []
        for line in text.decode("utf-8", "replace").splitlines():
            found = _LINE.fullmatch(line)
            if found:
                self._level, self._whole = logging.getLevelNamesMapping().get(found[1], logging.INFO), True
            if self._whole:
                lines.append((self._level, found[2] if found else line))
        return lines


def find(run: Run) -> Session | None:
    """The session that trains `run` now, whoever started it; None if none does."""
    path = run.folder / SESSION
    if not path.exists():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    session = Session(run, Holder(*(known.pop(name) for name in ("pid", "host", "started", "command"))), **known)
    return session if session.alive() else None


def end_of_log(run: Run) -> int:
    """Byte in run.log where what is logged from now on begins."""
    return _size(run.folder / "run.log")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _not_logged_again(run: Run) -> Iterator[None]:
    """What is shown from the run's log is not written to it once more, where this process logs there, too."""
    path = (run.folder / "run.log").resolve()
    kept = [
        handler
        for handler in logging.getLogger("tts_kernel").handlers
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).resolve() == path
    ]

    def own(record: logging.LogRecord) -> bool:
        return not hasattr(record, "relayed")

    for handler in kept:
        handler.addFilter(own)
    try:
        yield
    finally:
        for handler in kept:
            handler.removeFilter(own)
