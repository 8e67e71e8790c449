"""Numbers in a sentence, told apart by what they stand for: a date, a time, money, a measure, a telephone number.

One parser for every language; each language's file says how it reads what was found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from tts_kernel.text.words import UNITS

CURRENCIES = {"$": "USD", "US$": "USD", "€": "EUR", "£": "GBP", "¥": "YEN", "₩": "KRW"}
CURRENCIES |= {code: code for code in ("USD", "EUR", "GBP", "JPY", "KRW", "CNY")}
MAGNITUDES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}  # zeros
_SHORT = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "t": "trillion"}
_AROUND = 8  # characters before and behind a number that can change how it is read
_LAST_YEAR = 2100
_WITHOUT_COMMAS = ("date", "time", "telephone", "version", "score", "fraction")

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
_TO = r"(?:-|\s-\s|\s?[~〜–—]\s?)"
_SIGNS = "|".join(re.escape(sign) for sign in sorted(CURRENCIES, key=len, reverse=True) if not sign.isalpha())
_CODES = "|".join(sign for sign in CURRENCIES if sign.isalpha())
# A letter alone is a unit only as it is written: 5G and 3M are none.
_LONG_UNITS = "|".join(re.escape(unit) for unit in sorted(UNITS["en"], key=len, reverse=True) if len(unit) > 1)
_UNITS = rf"(?:(?i:{_LONG_UNITS})|[mgtlLVW°])"
_MAGNITUDE = rf"(?:\s(?:{'|'.join(MAGNITUDES)})|(?i:{'|'.join(sorted(_SHORT, key=len, reverse=True))}))"
_MINUS = r"(?:(?<![\dA-Za-z가-힣ァ-ヺー)\]%°])[-−])?"  # between words it is a hyphen: COVID-19, 코로나-19
_END = r"(?![\dA-Za-z])"
_PATTERN = re.compile(
    rf"""(?<![\dA-Za-z.])(?:
      (?P<date>(?:1\d|2\d)\d\d([-/.]|\.\s)\d{{1,2}}\2\d{{1,2}}){_END}
    | (?P<date_american>\d{{1,2}}/\d{{1,2}}/(?:19|20)\d\d){_END}
    | (?P<time>(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-5]\d)?){_END}
    | (?P<telephone>
        \+\d{{1,3}}[ -]\d{{1,4}}(?:[ -]\d{{3,4}}){{1,3}} | \d{{1,4}}-\d{{2,4}}-\d{{3,4}}(?:-\d{{3,4}})?
        | 0\d{{1,3}}-\d{{7,8}} | (?:\(\d{{3}}\)\s?)?[2-9]\d\d-\d{{4}}(?<!00) | 1[568]\d\d-\d{{4}}){_END}
    | (?P<version>\d+(?:\.\d+){{2,}}){_END}
    | (?P<score>\d{{1,3}}:\d{{1,3}})(?!:){_END}
    | (?P<money>{_MINUS}(?:{_SIGNS})\s?{_NUMBER}(?:{_TO}(?:{_SIGNS})?{_NUMBER})?{_MAGNITUDE}?){_END}
    | (?P<money_behind>{_MINUS}{_NUMBER}(?:{_TO}{_NUMBER})?(?:\s?(?:{_CODES}){_END}|(?:{_SIGNS})(?!\d)))
    | (?P<percent>{_MINUS}{_NUMBER}(?:\s?%?{_TO}{_NUMBER})?\s?%)
    | (?P<measure>{_MINUS}{_NUMBER}(?:(?:\s?{_UNITS})?{_TO}{_NUMBER})?\s?{_UNITS}){_END}
    | (?P<range>{_NUMBER}{_TO}{_NUMBER})(?!-\d){_END}
    | (?P<ordinal>\d+(?:st|nd|rd|th)){_END}
    | (?P<fraction>\d+/\d+)(?!/){_END}
    | (?P<digits>0\d+|\d{{13,}}){_END}
    | (?P<number>{_MINUS}{_NUMBER}){_END}
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Expression:
    """What stands at `start` to `end` of a text."""

    start: int
    end: int
    kind: str  # date time telephone version score money percent measure range ordinal fraction digits number
    values: tuple[str, ...]  # its numbers, without the commas between thousands; a minus sign before the first
    unit: str = ""  # of money: the ISO code, or YEN for the sign that yen and yuan share; of a measure: as in UNITS
    magnitude: str = ""  # of money: one of MAGNITUDES
    grouped: bool = False  # commas stand between thousands: 1,984 is no year

    @property
    def amounts(self) -> tuple[str, ...]:
        """Of money: its numbers in ones, 3.5 million as 3500000."""
        zeros = MAGNITUDES.get(self.magnitude, 0)
        return tuple(f"{Decimal(value).scaleb(zeros):f}" for value in self.values)


Say = Callable[[Expression, str, str], str]


def find(text: str) -> list[Expression]:
    """The expressions in a text that is NFKC, in order. Digits glued to a Latin letter ("MP3", "4K") are none."""
    return [_expression(match) for match in _PATTERN.finditer(text)]


def rewrite(text: str, say: Say) -> str:
    """The text with what `say` makes of each expression; it is given the text before and behind it, too."""
    said, last = "", 0
    for found in find(text):
        before, after = text[max(found.start - _AROUND, 0) : found.start], text[found.end : found.end + _AROUND]
        said += text[last : found.start] + say(found, before, after)
        last = found.end
    return said + text[last:]


def _expression(match: re.Match[str]) -> Expression:
    kind, written = str(match.lastgroup).split("_")[0], match.group().replace("−", "-")
    unit = magnitude = ""
    numbers = written
    if kind == "measure":
        unit = re.findall(rf"(?<=[\d ])(?:{_UNITS})$", written)[-1].lower()
        numbers = re.sub(rf"(?<=\d)\s?{_UNITS}", "", written)
    elif kind == "money":
        sign = re.search(rf"{_SIGNS}|{_CODES}", written)
        unit = CURRENCIES[sign.group()] if sign else ""
        word = re.search(r"[A-Za-z]+$", written.removesuffix(sign.group() if sign else ""))
        magnitude = _SHORT.get(word.group().lower(), word.group()) if word else ""
    values = re.findall(r"\d+" if kind in _WITHOUT_COMMAS else _NUMBER, numbers)
    if match.lastgroup == "date_american":
        month, day, year = values
        values = [year, day, month] if int(month) > 12 else [year, month, day]
    elif kind == "telephone" and len(values) == 2 and values[0] < values[1] <= str(_LAST_YEAR) and len(values[0]) == 4:
        kind = "range"  # 1592-1598
    elif written.startswith("-"):
        values[0] = f"-{values[0]}"
    plain = tuple(value.replace(",", "") for value in values)
    return Expression(match.start(), match.end(), kind, plain, unit, magnitude, plain != tuple(values))
