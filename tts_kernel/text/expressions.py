"""Numbers in a sentence, told apart by what they stand for: a date, a time, money, a measure, a telephone number.

One parser for every language; each language's file says how it reads what was found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tts_kernel.text.words import MAGNITUDES, UNITS

CURRENCIES = {"$": "USD", "US$": "USD", "€": "EUR", "£": "GBP", "¥": "YEN", "₩": "KRW"}
CURRENCIES |= {code: code for code in ("USD", "EUR", "GBP", "JPY", "KRW", "CNY")}
_AFTER = 8  # characters behind a number that can change how it is read
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SIGNS = "|".join(re.escape(sign) for sign in sorted(CURRENCIES, key=len, reverse=True) if not sign.isalpha())
_CODES = "|".join(sign for sign in CURRENCIES if sign.isalpha())
_UNITS = "|".join(re.escape(unit) for unit in sorted(UNITS["en"], key=len, reverse=True))
_MINUS = r"(?:(?<![\dA-Za-z)\]])[-−])?"
_END = r"(?![\dA-Za-z])"
_PATTERN = re.compile(
    rf"""(?<![\dA-Za-z.])(?:
      (?P<date>(?:1\d|2\d)\d\d([-/.])\d{{1,2}}\2\d{{1,2}}){_END}
    | (?P<time>(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-5]\d)?){_END}
    | (?P<telephone>\+?\d{{1,4}}-\d{{2,4}}-\d{{3,4}}(?:-\d{{3,4}})?){_END}
    | (?P<version>\d+(?:\.\d+){{2,}}){_END}
    | (?P<money>{_MINUS}(?:{_SIGNS})\s?(?:{_NUMBER})(?:\s(?:{"|".join(MAGNITUDES["en"])}))?){_END}
    | (?P<paid>{_MINUS}(?:{_NUMBER})(?:\s?(?:{_CODES}){_END}|(?:{_SIGNS})(?!\d)))
    | (?P<range>(?:{_NUMBER})(?:-|\s-\s|\s?[~〜–]\s?)(?:{_NUMBER})){_END}
    | (?P<percent>{_MINUS}(?:{_NUMBER})\s?%)
    | (?P<ordinal>\d+(?:st|nd|rd|th)){_END}
    | (?P<measure>{_MINUS}(?:{_NUMBER})\s?(?i:{_UNITS})){_END}
    | (?P<fraction>\d+/\d+){_END}
    | (?P<digits>0\d+|\d{{13,}}){_END}
    | (?P<number>{_MINUS}(?:{_NUMBER})){_END}
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Expression:
    """What stands at `start` to `end` of a text."""

    start: int
    end: int
    kind: str  # date time telephone version money range percent ordinal measure fraction digits number
    values: tuple[str, ...]  # its numbers, without the commas between thousands; a minus sign before the first
    unit: str = ""  # of money: the ISO code, or YEN for the sign that yen and yuan share; of a measure: as in UNITS
    magnitude: str = ""  # of money: one of MAGNITUDES


def find(text: str) -> list[Expression]:
    """The expressions in a text that is NFKC, in order. Digits glued to a Latin letter ("MP3", "4K") are none."""
    return [_expression(match) for match in _PATTERN.finditer(text)]


def rewrite(text: str, say: Callable[[Expression, str], str]) -> str:
    """The text with what `say` makes of each expression; it is given the text behind the expression, too."""
    said, last = "", 0
    for found in find(text):
        said += text[last : found.start] + say(found, text[found.end : found.end + _AFTER])
        last = found.end
    return said + text[last:]


def _expression(match: re.Match[str]) -> Expression:
    kind, written = str(match.lastgroup), match.group().replace("−", "-")
    unit = magnitude = ""
    if kind == "measure":
        unit = re.sub(rf"^-?(?:{_NUMBER})\s?", "", written).lower()
        written = written[: len(written) - len(unit)]
    elif kind in ("money", "paid"):
        kind = "money"
        sign = re.search(rf"{_SIGNS}|{_CODES}", written)
        unit = CURRENCIES[sign.group()] if sign else ""
        magnitude = next((word for word in MAGNITUDES["en"] if written.endswith(word)), "")
    values = tuple(value.replace(",", "") for value in _numbers(kind, written))
    if written.startswith("-"):
        values = (f"-{values[0]}", *values[1:])
    return Expression(match.start(), match.end(), kind, values, unit, magnitude)


def _numbers(kind: str, written: str) -> list[str]:
    return re.findall(r"\d+" if kind in ("date", "time", "telephone", "version") else _NUMBER, written)
