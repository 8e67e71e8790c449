"""What checkpoints a folder holds: told by the files themselves, and by index.json for readers in a hurry.

The index is written after the files and may be lost or behind them; a run never relies on it.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tts_kernel.models.weights import CheckpointError, read_checkpoint
from tts_kernel.runs import write_atomically

log = logging.getLogger(__name__)

Kind = Literal["latest_full", "latest", "step", "best", "top"]
INDEX = "index.json"
_KINDS: dict[Kind, re.Pattern[str]] = {
    "latest_full": re.compile(r"latest_full\.pth"),
    "latest": re.compile(r"latest\.pth"),
    "step": re.compile(r"step_\d+\.pth"),
    "best": re.compile(r"best(_text|_mel)?_model\.pth"),
    "top": re.compile(r"top_\d+\.pth"),
}
_LEFT_OVER = re.compile(r"\.(?P<name>.+)\.part|\.index\.json\.\d+")


@dataclass(frozen=True)
class Record:
    """One checkpoint file of a run. Several may be names of the same bytes: their `number` is the same."""

    file: str
    kind: Kind
    step: int
    number: int  # counts a run's saves; what is higher was written later, whatever the clock or the step says
    healthy: bool = True  # False: written while the loss was spiking
    time: float = 0.0  # seconds since the epoch
    metrics: dict[str, float] = field(default_factory=dict)
    bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether a run can be resumed from it."""
        return self.kind in ("latest_full", "step")


def stamp(number: int, healthy: bool) -> dict[str, Any]:
    """What a file says about its own writing, under the key `written`."""
    return {"number": number, "healthy": healthy, "time": round(time.time(), 3)}


def kind_of(name: str) -> Kind | None:
    """By a file's name; None for what is no checkpoint of a run."""
    return next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(name)), None)


def left_over(name: str) -> bool:
    """Whether `name` is what a save that was killed leaves behind."""
    found = _LEFT_OVER.fullmatch(name)
    if found is None:
        return False
    return found["name"] in (None, "link", "linked", "averaged.pth") or kind_of(found["name"]) is not None


def describe(path: Path, content: Mapping[str, Any]) -> Record:
    """The record of a file with this content. Files from before the key `written` count as the oldest."""
    kind, written = kind_of(path.name), content.get("written", {})
    assert kind is not None, f"{path} is no checkpoint's name"
    return Record(
        file=path.name,
        kind=kind,
        step=int(content.get("step", 0)),
        number=int(written.get("number", 0)),
        healthy=bool(written.get("healthy", True)),
        time=float(written.get("time", 0.0)),
        metrics={name: float(value) for name, value in content.get("metrics", {}).items()},
        bytes=path.stat().st_size,
    )


def scan(folder: Path) -> dict[str, Record]:
    """Every checkpoint of `folder` by name, from the files themselves (tensors stay on the disk). One that cannot be
    read is passed over with a warning."""
    found: dict[str, Record] = {}
    for path in sorted(folder.glob("*.pth")):
        if kind_of(path.name) is None:
            continue
        try:
            found[path.name] = describe(path, read_checkpoint(path))
        except CheckpointError as error:
            log.warning("%s; it counts as missing", error)
        except FileNotFoundError:
            continue  # the run went on meanwhile
        except (TypeError, ValueError, AttributeError) as error:
            log.warning("%s: its own description cannot be understood (%s); it counts as missing", path, error)
    return found


def write_index(folder: Path, records: Mapping[str, Record]) -> None:
    """Newest first."""
    newest = sorted(records.values(), key=_newest_first)
    write_atomically(folder / INDEX, json.dumps([asdict(record) for record in newest], indent=1) + "\n")


def read_index(folder: Path) -> list[Record]:
    """The checkpoints of a run, newest first: cheap enough to be asked every second while the run goes on. Files that
    are gone are left out; those that the index does not know are asked, all where it is lost or torn."""
    there = {path.name for path in folder.glob("*.pth") if kind_of(path.name) is not None}
    listed = {record.file: record for record in _listed(folder) if record.file in there}
    if listed.keys() != there:
        listed = {**scan(folder), **listed}
    return sorted(listed.values(), key=_newest_first)


def _listed(folder: Path) -> list[Record]:
    try:
        entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return [Record(**entry) for entry in entries] if isinstance(entries, list) else []
    except (OSError, ValueError, TypeError):  # lost or torn
        return []


def _newest_first(record: Record) -> tuple[int, str]:
    return -record.number, record.file
