"""A second process that copies a run's metrics.jsonl into the Aim repository beside the run folders, `runs/.aim`.

Training neither imports Aim nor waits for its databases: a repository that is locked, damaged or slow costs one
warning. The other process reads the file as anyone may, so by hand it also adds a run that was trained without Aim, or
catches up:

python -m tts_kernel.training.aim_process runs/NAME
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tts_kernel.runs import write_atomically

log = logging.getLogger(__name__)

PATIENCE = 30.0  # seconds that the end of training waits for Aim
_PAUSE = 2.0  # seconds between two looks at metrics.jsonl
_STATE = "aim.json"  # in the run folder: {"run": Aim's hash, "read": bytes of metrics.jsonl that are tracked}
_LOG = "aim.log"  # in the run folder: what Aim said


def installed() -> bool:
    """Whether Aim can be imported; it is not imported for that."""
    return importlib.util.find_spec("aim") is not None


class AimProcess:
    """The other process, seen from the one that trains. It ends when it is told to, or when this one dies; nothing here
    waits for it but `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / _LOG
        with self.log.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, "--follow", str(folder.resolve())],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                start_new_session=True,  # an interrupt at the terminal is for training
            )

    def healthy(self) -> bool:
        """Whether it goes on; warns if not."""
        if self._process.poll() is None:
            return True
        self._warn(self._reason())
        return False

    def close(self) -> None:
        """Let it write what is left, for at most PATIENCE seconds."""
        try:
            self._process.communicate(b"end", timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._warn(f"not done {PATIENCE:.0f} s after training was")
            return
        if self._process.returncode:
            self._warn(self._reason())

    def _reason(self) -> str:
        said = self.log.read_text(encoding="utf-8", errors="replace").strip() if self.log.exists() else ""
        return said.splitlines()[-1] if said else f"exit status {self._process.returncode}"

    def _warn(self, reason: str) -> None:
        log.warning(
            "Aim does not have all of run %s (%s; more in %s). Nothing is lost: metrics.jsonl and TensorBoard are "
            "complete. Once %s is free and whole, `python -m %s %s` catches up",
            self.folder.name,
            reason,
            self.log,
            self.folder.parent / ".aim",
            __name__,
            self.folder,
        )


# What the other process does


def follow(folder: Path, ended: threading.Event) -> None:
    """Track the lines of metrics.jsonl that are not tracked yet, and those to come until `ended`."""
    tracker = Tracker(folder)
    while not ended.wait(_PAUSE):
        tracker.catch_up()
    tracker.catch_up()
    tracker.close()


class Tracker:
    """One run folder's run in Aim. Its name and settings are the run folder's, a resumed run continues the same one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.state = folder, folder / "metrics.jsonl", folder / _STATE
        self.repository = _repository(folder.parent)
        known = self._state().get("run")
        self.run = self._open(known if known and self.repository.run_exists(known) else None)
        self.run.name = folder.name
        settings = folder / "settings.json"
        if settings.exists():
            self.run["settings"] = json.loads(settings.read_text(encoding="utf-8"))
        # Under the run's lock: another process may have read on in the meantime.
        self.read = self._state().get("read", 0) if known == self.run.hash else 0
        if self.path.exists() and self.path.stat().st_size < self.read:  # another file, of a run that began anew
            self._take_back(-1)
            self.read = 0
        self._save()

    def _state(self) -> dict[str, Any]:
        return json.loads(self.state.read_text(encoding="utf-8")) if self.state.exists() else {}

    def _save(self) -> None:
        write_atomically(self.state, json.dumps({"run": self.run.hash, "read": self.read}) + "\n")

    def _open(self, run_hash: str | None) -> Any:
        from aim.sdk.run import Run

        return Run(
            run_hash,
            repo=self.repository,
            system_tracking_interval=None,
            log_system_params=False,
            capture_terminal_logs=False,
        )

    def catch_up(self) -> None:
        """Track what has been logged since, without a last line that is still being written. Doing it twice changes
        nothing: a step has one value."""
        before = self.read
        for end, record in _lines(self.path, self.read):
            if "resumed_at" in record:
                self._take_back(record["resumed_at"])
            elif "step" in record:
                values = {name: value for name, value in record.items() if name not in ("step", "time")}
                for name, value in values.items():
                    self.run.track(float("nan") if value is None else float(value), name=name, step=record["step"])
            self.read = end
        if self.read != before:
            self._save()

    def _take_back(self, step: int) -> None:
        """Remove what was tracked after `step`. Aim has no call for it; these are the trees that it writes itself."""
        from aim.storage.context import Context

        context = Context({}).idx
        facts, series = self.run.meta_run_tree, self.run.series_run_trees[2]
        for name in list(facts.get(("traces", context), {})):
            columns = series.subtree((context, name))
            steps, values = dict(columns.subtree("step").items()), dict(columns.subtree("val").items())
            for key in [key for key, at in steps.items() if at > step]:
                for column in ("step", "val", "epoch", "time"):
                    del columns[column, key]
                del steps[key]
            kept = {at: values[key] for key, at in steps.items()}
            trace = ("traces", context, name)
            if kept:
                last = max(kept)
                finite = [value for value in kept.values() if value == value]
                news = {"last_step": last, "last": kept[last]}
                news |= {"min": min(finite), "max": max(finite)} if finite else {}
                for fact, value in news.items():
                    facts[(*trace, fact)] = value
            else:
                del facts[trace]
                del facts["typed_traces", "metric", context, name]
        run_hash = self.run.hash
        self.run.close()  # its tracker remembers what was there
        self.run = self._open(run_hash)

    def close(self) -> None:
        self.run.close()


def _repository(folder: Path) -> Any:
    """The Aim repository in `folder`, made where there is none."""
    from aim.sdk.repo import Repo

    return Repo(str(folder), init=not (folder / ".aim" / "VERSION").exists())


def _lines(path: Path, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole lines from byte `start` on: where each ends, and what it says; {} for one torn by a killed process."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            try:
                record = json.loads(line)
            except ValueError:
                record = {}
            yield start, record if isinstance(record, dict) else {}


def main(arguments: list[str]) -> None:
    """Catch up once, or with --follow until standard input ends, as it does when the process that trains dies."""
    folder = Path(arguments[-1])
    ended = threading.Event()

    def wait_for_end() -> None:
        os.read(0, 1)  # the word that it is over, or the end of the file
        ended.set()

    if "--follow" in arguments:
        threading.Thread(target=wait_for_end, daemon=True).start()
    else:
        ended.set()
    follow(folder, ended)


def _end_at_once(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """After an error. Aim's own end waits, without limit, for a thread that may have failed as well."""
    sys.__excepthook__(kind, error, trace)
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    sys.excepthook = _end_at_once
    main(sys.argv[1:])
