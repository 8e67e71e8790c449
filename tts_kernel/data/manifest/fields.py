"""The fields of a prompt/target pair in the guide's JSON-lines schema, and what can be wrong with a line of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa

REQUIRED = {
    "id": pa.string(),
    "target_id": pa.string(),
    "prompt_id": pa.string(),
    "speaker": pa.string(),
    "target_text_ids_path": pa.string(),
    "target_text_len": pa.int64(),
    "target_codes_path": pa.string(),
    "target_code_len": pa.int64(),
}
OPTIONAL = {
    "language": pa.string(),
    "style": pa.string(),
    "recording": pa.string(),
    "prompt_recording": pa.string(),
    "prompt_condition_path": pa.string(),
    "prompt_condition_len": pa.int64(),
    "prompt_emo_vec_path": pa.string(),
    "target_audio_path": pa.string(),
    "prompt_audio_path": pa.string(),
    "target_mel_path": pa.string(),
    "target_mel_len": pa.int64(),
    "target_semantic_path": pa.string(),
    "target_semantic_len": pa.int64(),
    "prompt_semantic_path": pa.string(),
    "prompt_semantic_len": pa.int64(),
}
SPELLINGS = {"prompt_mel_path": "target_mel_path", "prompt_mel_len": "target_mel_len"}  # the guide has both
FEW_VALUES = ("speaker", "language", "style")  # stored once each, rows refer to them

Reason = Literal[
    "not json", "encoding", "too long", "missing field", "wrong type", "length", "outside", "duplicate id", "no rows"
]
_LISTED = 1000  # problems of one reason kept one by one; the rest is counted


class Problem(NamedTuple):
    """What is wrong with one line, counted from 1; line 0 is the file as a whole."""

    line: int
    reason: Reason
    message: str


@dataclass
class Problems:
    """Every problem counted by its reason, the first thousand of each reason kept."""

    counts: Counter[Reason] = field(default_factory=Counter)
    listed: list[Problem] = field(default_factory=list)

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.counts[problem.reason] += 1
            if self.counts[problem.reason] <= _LISTED:
                self.listed.append(problem)

    def without(self, reason: Reason) -> Problems:
        kept = Counter({name: count for name, count in self.counts.items() if name != reason})
        return Problems(kept, [problem for problem in self.listed if problem.reason != reason])

    def __iter__(self) -> Iterator[Problem]:
        return iter(sorted(self.listed))

    def __len__(self) -> int:
        return self.counts.total()


class ManifestError(ValueError):
    """Lines of a manifest that cannot be used, as `file:line: reason`; `problems` holds up to a thousand of each
    reason."""

    SHOWN = 20  # by name in the message; the rest is counted

    def __init__(self, problems: list[str], total: int | None = None) -> None:
        left = (total or len(problems)) - self.SHOWN
        super().__init__("\n".join(problems[: self.SHOWN]) + (f"\n... and {left} more" if left > 0 else ""))
        self.problems = problems

    @classmethod
    def of(cls, path: Path, problems: Problems) -> ManifestError:
        where = [f"{path}:{problem.line}" if problem.line else str(path) for problem in problems]
        texts = [f"{place}: {problem.message}" for place, problem in zip(where, problems, strict=True)]
        return cls(texts, len(problems))


class PathRule(NamedTuple):
    """A path column that follows from another one: prefix + key + suffix where the column `where` is filled, in every
    row if `where` is empty. Six of the guide's seven path columns do, and need no storage."""

    prefix: str
    key: str
    suffix: str
    where: str = ""
