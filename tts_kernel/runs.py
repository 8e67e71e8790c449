"""The folder of one run: settings, metrics, checkpoints, figures, result. Everything about a run is read from it,
so that it works on a run that crashed or is still going."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

log = logging.getLogger(__name__)

PROJECT_ROOT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunError(ValueError):
    """A run folder that cannot be made, read or continued."""


def project_path(path: str) -> Path:
    """A path as users write it in a parameter: relative to the project root wherever the kernel was started."""
    expanded = Path(path).expanduser()
    return expanded if expanded.is_absolute() else PROJECT_ROOT / expanded


def runs_folder() -> Path:
    """`runs/` of the project, or the folder that the environment variable TTS_KERNEL_RUNS names."""
    return project_path(os.environ.get("TTS_KERNEL_RUNS") or "runs")


def cache_folder() -> Path:
    """Where prepared demo corpora and base models lie, for all clones: TTS_KERNEL_CACHE, else the user's cache."""
    named = os.environ.get("TTS_KERNEL_CACHE")
    if named:
        return project_path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tts_kernel"


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write text, or its lines one after the other, beside `path`, then rename: a reader sees the old file or the new
    one, never half of it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


@dataclass(frozen=True)
class Run:
    """One run folder. `resumed` says whether it existed before this session opened it."""

    folder: Path
    resumed: bool = False
    inside: Run | None = None  # the run that this one is a part of

    @property
    def name(self) -> str:
        """By which the run is started again."""
        return self.inside.name if self.inside else self.folder.name

    @property
    def stop_file(self) -> Path:
        """Whoever makes it asks the run to save and stop."""
        return self.inside.stop_file if self.inside else self.folder / "stop"

    def part(self, name: str) -> Run:
        """The folder of one of several models that the run trains, a run folder of its own. Made if it is new."""
        part = Run(self.folder / name, self.resumed, inside=self)
        part.checkpoints.mkdir(parents=True, exist_ok=True)
        return part

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    def settings(self) -> dict[str, Any]:
        return json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))

    def save_settings(self, settings: Any) -> None:
        """settings.json; what a resumed run had before is kept beside it under the time of the change."""
        path, values = self.folder / "settings.json", asdict(settings)
        if path.exists() and (before := self.settings()) != values:
            until = time.strftime("settings-until-%Y%m%d-%H%M%S.json", time.gmtime())
            write_atomically(self.folder / until, json.dumps(before, indent=1, ensure_ascii=False) + "\n")
        write_atomically(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")

    def records(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl as they count: a resume takes back what was logged after its checkpoint, and a
        line torn by a killed process is passed over with a warning."""
        kept: list[dict[str, Any]] = []
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                record = json.loads(line)
            except ValueError:
                log.warning("%s:%d: torn line passed over: %.60s", path, number, line)
                continue
            if "resumed_at" in record:
                kept = [earlier for earlier in kept if earlier["step"] <= record["resumed_at"]]
            else:
                kept.append(record)
        yield from kept

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric, oldest first; NaN where the log has null, a value that was not finite."""
        points = [(record["step"], record[metric]) for record in self.records() if metric in record]
        return [step for step, _ in points], [math.nan if value is None else value for _, value in points]

    def first(self, metric: str) -> float:
        return self._values(metric)[0]

    def last(self, metric: str) -> float:
        return self._values(metric)[-1]

    def best(self, metric: str) -> float:
        """The smallest finite value. Raises RunError if there is none."""
        finite = [value for value in self._values(metric) if math.isfinite(value)]
        if not finite:
            raise RunError(f"{self.folder}: no value of {metric!r} is finite")
        return min(finite)

    def _values(self, metric: str) -> list[float]:
        values = self.series(metric)[1]
        if not values:
            raise RunError(f"{self.folder}: no {metric!r} was logged; see metrics.jsonl for what was")
        return values

    def write_result(self, **values: Any) -> Path:
        """result.json: what a reader, a test and the next notebook need."""
        path = self.folder / "result.json"
        write_atomically(path, json.dumps({"run": self.name, **values}, indent=1, ensure_ascii=False) + "\n")
        return path

    def result(self) -> dict[str, Any]:
        """What `write_result` wrote."""
        return json.loads((self.folder / "result.json").read_text(encoding="utf-8"))

    def start_logging(self, rank: int = 0) -> None:
        """One line per event to the notebook's or terminal's output, and with its time to the run's run.log."""
        start_logging(rank, self.folder / "run.log")

    def note_notebook(self, where: str) -> None:
        """notebook.txt: where the executed notebook is. A kernel does not know its own file, its caller does."""
        write_atomically(self.folder / "notebook.txt", where + "\n")


def start_logging(rank: int = 0, file: Path | None = None) -> None:
    """Of the package, to the terminal and to a file; replaces what was begun before. The first of several processes
    says what happens, the others only what is wrong."""
    package = logging.getLogger("tts_kernel")
    package.setLevel(logging.WARNING if rank else logging.INFO)
    package.propagate = False
    for handler in list(package.handlers):
        package.removeHandler(handler)
        handler.close()
    who = f"process {rank}: " if rank else ""
    shown = logging.StreamHandler(sys.stdout)
    shown.setFormatter(logging.Formatter(f"{who}%(message)s"))
    package.addHandler(shown)
    if file is not None:
        kept = logging.FileHandler(file, encoding="utf-8")
        kept.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {who}%(message)s"))
        package.addHandler(kept)


def check_run_name(name: str) -> None:
    """Raise RunError unless `name` can be a folder's name everywhere, and only that."""
    if not _NAME.fullmatch(name):
        raise RunError(
            f"run_name {name!r}: expected letters, digits, '.', '_' and '-' only, starting with a letter or digit"
        )


def open_run(settings: Any, name: str, prefix: str) -> Run:
    """The folder `runs/<name>`; an empty name makes `<prefix>-<UTC time>`. A new run gets its settings.json, one that
    exists is to be resumed and keeps its own until the recipe has checked what may differ (`Run.save_settings`).
    Raises RunError for a name that is no plain folder name, and where the folder cannot be written."""
    root = runs_folder()
    if name:
        check_run_name(name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = root / name if name else _new_folder(root, prefix)
        run = Run(folder, resumed=(folder / "settings.json").exists())
        for needed in (run.checkpoints, run.figures):
            needed.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not run.resumed:
            run.save_settings(settings)
    except OSError as error:  # no permission, a file in the way, a full disk
        raise RunError(
            f"{root / name}: cannot be written ({error.strerror}); make it writable or name another place in "
            "TTS_KERNEL_RUNS"
        ) from error
    return run


def _new_folder(root: Path, prefix: str) -> Path:
    """Made here and now, so that two runs that start within one second get two folders."""
    while True:
        folder = root / time.strftime(f"{prefix}-%Y%m%d-%H%M%S", time.gmtime())
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            time.sleep(0.2)


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    write_atomically(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
