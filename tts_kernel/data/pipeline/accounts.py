"""What went into every processor, what came out, and why anything did not; refused where too little is left."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

EXAMPLES = 5  # utterances named per reason
MOST_NAMED = 20  # lost speakers of whom the reasons are given


@dataclass(frozen=True)
class Drop:
    """Utterances that one processor dropped for one reason."""

    reason: str
    count: int
    utterances: tuple[str, ...]  # the first of them
    setting: str = ""  # that decided it, with its value; empty where none did
    keeps: str = ""  # what would keep them

    def __str__(self) -> str:
        named = f"{', '.join(self.utterances)}{', ...' if self.count > len(self.utterances) else ''}"
        because = f" ({self.setting})" if self.setting else ""
        return f"{self.count:,} {self.reason}{because}: {named}"


@dataclass(frozen=True)
class Account:
    """One processor's. What it says adds up: entered = left + dropped."""

    processor: str
    entered: int
    left: int
    drops: tuple[Drop, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        assert self.entered == self.left + self.dropped, f"{self.processor}: {self.entered} in, {self.left} out"

    @property
    def dropped(self) -> int:
        return sum(drop.count for drop in self.drops)

    def __str__(self) -> str:
        note = f"  {self.note}" if self.note else ""
        return f"{self.processor:<16}{self.entered:>9,} -> {self.left:>9,}{note}"


@dataclass(frozen=True)
class Accounts:
    """All processors' in order: what one hands on, the next one takes. Utterances throughout, batches are a note."""

    each: tuple[Account, ...]
    lost_speakers: tuple[str, ...]  # of whom nothing is left, each with the reasons

    def __post_init__(self) -> None:
        for before, after in pairwise(self.each):
            assert before.left == after.entered, f"{before.processor} hands on what {after.processor} does not take"

    @property
    def entered(self) -> int:
        return self.each[0].entered

    @property
    def kept(self) -> int:
        return self.each[-1].left

    def drops(self) -> list[tuple[str, Drop]]:
        """Every reason with its processor, most utterances first."""
        found = [(account.processor, drop) for account in self.each for drop in account.drops]
        return sorted(found, key=lambda item: -item[1].count)

    def too_few(self, min_kept: float) -> bool:
        """Whether less than this share is left, or nothing."""
        return self.kept == 0 or self.kept < min_kept * self.entered

    def problems(self, min_kept: float = 0.1, allow_lost_speakers: bool = False) -> list[str]:
        """Why training should not start: less than the share `min_kept` is left, or nothing of a speaker."""
        problems = []
        if self.entered == 0:
            problems.append("no utterance came in; is data.list the right one?")
        elif self.too_few(min_kept):
            problems.append(f"{self.kept:,} of {self.entered:,} utterances are left, expected {min_kept:.0%} at least")
            problems += [f"{processor} drops {drop}{_advice(drop)}" for processor, drop in self.drops()]
        if self.kept and self.lost_speakers and not allow_lost_speakers:
            problems += [f"nothing is left of speaker {said}" for said in self.lost_speakers[:MOST_NAMED]]
            if len(self.lost_speakers) > MOST_NAMED:
                problems.append(f"and of {len(self.lost_speakers) - MOST_NAMED} more speakers")
            problems.append("keep them with other settings, or go on without them with allow_lost_speakers")
        return problems

    def __str__(self) -> str:
        lines = []
        for account in self.each:
            lines += [str(account), *(f"{'':<18}{drop}" for drop in account.drops)]
        return "\n".join(lines)


def first_names(names: np.ndarray) -> tuple[str, ...]:
    """(n,) -> the few that are shown."""
    return tuple(str(name) for name in names[:EXAMPLES])


def _advice(drop: Drop) -> str:
    return f"; {drop.keeps}" if drop.keeps else ""
