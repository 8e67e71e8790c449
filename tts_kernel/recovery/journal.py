"""decision.json: what was known, what was chosen, by whom, what was done and what came of it.

Written before and after each step, atomically, so that a decision that was killed goes on where it stood.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from tts_kernel.runs import Run, write_atomically

FILE = "decision.json"
By = Literal["parameters", "panel", "recommendation"]


class JournalError(ValueError):
    """A journal that cannot be read, or that says otherwise."""


class Journal:
    """The content of one decision.json. Every change is on the disk when the call returns."""

    def __init__(self, run: Run) -> None:
        """Opens the run's journal or begins it. Raises JournalError for one that is damaged."""
        self.path = run.folder / FILE
        self.content: dict[str, Any] = {"format": 1, "run": run.name, "steps": {}, "events": []}
        if self.path.exists():
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
                if content["format"] != 1 or not isinstance(content["steps"], dict):
                    raise ValueError(f"format {content['format']}, expected 1")
            except (ValueError, KeyError, TypeError) as error:
                raise JournalError(f"{self.path}: cannot be read ({error}); move it away to decide anew") from error
            self.content = content

    @property
    def decided(self) -> str:
        """The chosen option's name, empty before."""
        return str(self.content.get("chosen", ""))

    def know(self, **facts: Any) -> None:
        """What is known before the choice; as long as nothing was chosen, the newer replaces the older."""
        self.content |= plain(facts)
        self._write()

    def choose(self, name: str, by: By, plan: dict[str, Any]) -> None:
        """Once, with the plan that is carried out from now on. Raises JournalError as `check`."""
        self.check(name)
        if not self.decided:
            self.content |= {"chosen": name, "by": by, "plan": plain(plan)}
            self.note(f"{name} chosen by {by}")

    def check(self, name: str) -> None:
        """Raise JournalError where another choice was made before: carrying out both would mix them."""
        if self.decided and self.decided != name:
            raise JournalError(
                f"{self.path}: {self.decided!r} was chosen by {self.content['by']} and begun, now {name!r} is asked; "
                "leave run_name empty for another decision"
            )

    def state(self, step: str) -> dict[str, Any]:
        """Of one step: {} before it, with `state` begun or done, and what was kept with it."""
        return dict(self.content["steps"].get(step, {}))

    def begin(self, step: str, **facts: Any) -> None:
        self.content["steps"][step] = self.state(step) | {"state": "begun"} | plain(facts)
        self.note(f"{step} begun")

    def done(self, step: str, **facts: Any) -> None:
        self.content["steps"][step] = self.state(step) | {"state": "done"} | plain(facts)
        self.note(f"{step} done")

    def note(self, what: str) -> None:
        self.content["events"].append({"time": time.time(), "what": what})
        self._write()

    def _write(self) -> None:
        write_atomically(self.path, json.dumps(self.content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Dataclasses, paths and numbers that are not finite as JSON has them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
