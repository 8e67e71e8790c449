"""One finding: a kind that occurred, how often among how many, and its first cases with their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from tts_kernel.data.audit.kinds import KINDS, SEVERITIES, Kind, Severity
from tts_kernel.data.audit.rows import Rows

LISTED = 1000  # cases of one finding kept one by one; all are counted

Details = Callable[[np.ndarray], Iterable[str]]  # (listed members,) -> what was found at each


@dataclass(frozen=True)
class Case:
    """One place where it is so."""

    id: str  # of the pair, clip, speaker or recording; empty for a line that cannot be read
    clip: str = ""  # whose sound shows it
    where: str = ""  # `file:line`
    detail: str = ""  # what was found


@dataclass(frozen=True)
class Finding:
    """A kind that occurred."""

    kind: str
    count: int
    total: int  # units that were looked at; 0 where that says nothing
    cases: tuple[Case, ...]  # the first `LISTED`
    sampled: bool = False  # whether `total` is a sample
    members: np.ndarray | None = field(default=None, repr=False, compare=False)  # all of them, where they are rows

    @property
    def about(self) -> Kind:
        return KINDS[self.kind]

    @property
    def severity(self) -> Severity:
        return self.about.severity

    @property
    def unit(self) -> str:
        """What is counted, one or several."""
        return self.about.unit if self.total or self.count > 1 else self.about.unit.removesuffix("s")

    def __str__(self) -> str:
        of = f" of {self.total:,}" if self.total else ""
        sample = " in the sample" if self.sampled else ""
        return f"{self.severity:<8} {self.kind:<21} {self.count:,}{of} {self.unit}{sample}: {self.about.title}"


def in_pairs(
    kind: str, rows: Rows, members: np.ndarray, total: int, details: Details | None = None, *, sampled: bool = False
) -> list[Finding]:
    """The finding that these rows make; none if there are none."""
    listed = members[:LISTED]
    ids, targets = (rows.values(name, listed).to_pylist() for name in ("id", "target_id"))
    found = _finding(kind, members, total, ids, targets, rows.places(listed), details, sampled)
    return [replace(finding, members=members) for finding in found]


def in_clips(
    kind: str, rows: Rows, members: np.ndarray, total: int, details: Details | None = None, *, sampled: bool = False
) -> list[Finding]:
    """The finding that these clips (their numbers, ascending) make; none if there are none."""
    listed = members[:LISTED]
    ids = rows.clips.take(pa.array(listed)).to_pylist()
    return _finding(kind, members, total, ids, ids, rows.places(rows.first[listed]), details, sampled)


def _finding(
    kind: str,
    members: np.ndarray,
    total: int,
    ids: Sequence[str],
    clips: Sequence[str],
    places: Sequence[str],
    details: Details | None,
    sampled: bool,
) -> list[Finding]:
    if kind not in KINDS:
        raise KeyError(f"{kind!r} is no kind of finding; add it to data/audit/kinds.py")
    if not len(members):
        return []
    texts = [""] * len(ids) if details is None else list(details(members[:LISTED]))
    cases = tuple(Case(*values) for values in zip(ids, clips, places, texts, strict=True))
    return [Finding(kind, len(members), total, cases, sampled)]


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; within a severity in the order of the areas, as the data flow. Findings of the same kind, by two
    ways of looking at the same rows, become one."""
    of_kind: dict[str, Finding] = {}
    for finding in findings:
        of_kind[finding.kind] = _both(of_kind[finding.kind], finding) if finding.kind in of_kind else finding
    kinds = list(KINDS)
    return sorted(of_kind.values(), key=lambda item: (SEVERITIES.index(item.severity), kinds.index(item.kind)))


def _both(one: Finding, other: Finding) -> Finding:
    cases = {(case.id, case.where): case for case in (*other.cases, *one.cases)}
    total, sampled = max(one.total, other.total), one.sampled or other.sampled
    if one.members is None or other.members is None:  # lines of two manifests
        return replace(one, count=one.count + other.count, total=one.total + other.total, cases=tuple(cases.values()))
    members = np.union1d(one.members, other.members)
    return Finding(one.kind, len(members), total, tuple(cases.values())[:LISTED], sampled, members)
