"""One measured line of the report, and how it stands to its target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.data.generate import PAIRS_PER_TARGET, ROWS

MELS = 226_890  # the guide's clips with a mel
CLIPS = 15_000  # in the feature store that is read at random


@dataclass(frozen=True)
class Sizes:
    """What is measured, and where. A target of the guide's size is only judged at that size."""

    folder: Path  # scratch
    rows: int = ROWS
    mels: int = MELS
    clips: int = CLIPS
    sample: int = 200_000  # rows for the plain ways that would take too long; scaled up to `rows`
    repeats: int = 3  # runs whose median counts
    drop_caches: bool = False  # cold reads empty the whole system's caches; needs root

    @property
    def full(self) -> bool:
        return self.rows >= ROWS and self.mels >= MELS

    @property
    def sampled(self) -> int:
        return min(self.sample, self.rows) // PAIRS_PER_TARGET * PAIRS_PER_TARGET

    def words(self) -> dict[str, int]:
        """What a subject's METHOD may name."""
        counts = {"rows": self.rows, "utterances": self.rows // PAIRS_PER_TARGET, "sampled": self.sampled}
        return counts | {"mels": self.mels, "clips": self.clips}

    @property
    def manifest(self) -> Path:
        return self.folder / "full" / "gpt_pairs_train.jsonl"

    @property
    def sample_manifest(self) -> Path:
        return self.folder / "sample" / "gpt_pairs_train.jsonl"


@dataclass(frozen=True)
class Result:
    """A line of a table. `met` is None where there is no target, or none at this size."""

    what: str
    plain: str = ""
    ours: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None
    why: str = ""  # why it was not judged

    @property
    def verdict(self) -> str:
        if self.met is None:
            return self.why
        return "met" if self.met else "**short**"


def faster(
    what: str, plain: float, ours: float, at_least: float | None = None, unit: str = "s", judged: bool = True
) -> Result:
    """Times: how many times less ours takes."""
    return _ratio(what, plain, ours, plain / ours, at_least, unit, judged)


def more(
    what: str, plain: float, ours: float, at_least: float | None = None, unit: str = "/s", judged: bool = True
) -> Result:
    """Rates: how many times more ours does."""
    return _ratio(what, plain, ours, ours / plain, at_least, unit, judged)


def _ratio(
    what: str, plain: float, ours: float, ratio: float, at_least: float | None, unit: str, judged: bool
) -> Result:
    return Result(
        what,
        plain=amount(plain, unit),
        ours=amount(ours, unit),
        ratio=f"{ratio:.1f}x" if ratio >= 1 else f"{ratio:.2f}x",
        target=f">= {at_least:g}x" if at_least else "",
        met=ratio >= at_least if at_least and judged else None,
        why=NOT_FULL if at_least and not judged else "",
    )


def below(
    what: str,
    ours: float,
    limit: float | None = None,
    unit: str = "s",
    plain: float | None = None,
    judged: bool = True,
) -> Result:
    """An amount that must stay under `limit`; with a plain way beside it where there is one."""
    return Result(
        what,
        plain="" if plain is None else amount(plain, unit),
        ours=amount(ours, unit),
        ratio=f"{plain / ours:,.1f}x" if plain is not None and ours else "",
        target=f"< {amount(limit, unit)}" if limit is not None else "",
        met=ours < limit if limit is not None and judged else None,
        why=NOT_FULL if limit is not None and not judged else "",
    )


NOT_FULL = "smaller size"
FAILED = "**failed**"


def amount(value: float, unit: str) -> str:
    """A number with three significant digits and its unit."""
    if unit == "s" and value < 0.1:
        value, unit = value * 1000, "ms"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text}{unit}" if unit.startswith(("/", "%")) else f"{text} {unit}".strip()
