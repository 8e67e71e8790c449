"""Sentences with what they should come to, from tests/fixtures/text; checked by eye when they were written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FIXTURES = Path(__file__).parents[1] / "fixtures" / "text"
CODES = {"korean": "KR", "english": "EN", "chinese": "ZH", "japanese": "JP"}


@dataclass(frozen=True)
class Row:
    code: str
    written: str
    normalised: str
    phones: str  # with a tone behind each in English and Chinese


def read_table(name: str) -> list[Row]:
    lines = (FIXTURES / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return [Row(CODES[name], *line.split("\t")) for line in lines if not line.startswith("#")]


def all_rows() -> list[Row]:
    return [row for name in CODES for row in read_table(name)]
