"""What a diagnosis looks at, and one thing that it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tts_kernel.recovery.course import Course
from tts_kernel.recovery.facts import RunFacts
from tts_kernel.recovery.history import History
from tts_kernel.recovery.survivors import Survivor

Severity = Literal["good", "note", "warning", "bad"]
Facts = dict[str, float | int | str]


@dataclass(frozen=True)
class Finding:
    """One thing that is the case."""

    name: str
    says: str  # one sentence, with its numbers
    confidence: float  # a rule of thumb, between a coin's 0.5 and 0.99; no measured frequency
    evidence: Mapping[str, float | int | str]
    severity: Severity


@dataclass(frozen=True)
class Evidence:
    """What findings are made from."""

    history: History
    metric: str  # the loss that the run is judged by; empty where none was logged
    course: Course  # of it
    held: str  # the loss of the validation; empty where none was logged
    validation: Course | None  # of that
    facts: RunFacts
    survivors: Sequence[Survivor]
    alive: bool

    @property
    def epochs(self) -> float | None:
        """How often the data have been seen; None where their number is not known."""
        return self.facts.epochs(max(self.history.step, 0))
