"""English numbers in words: cardinals, ordinals, years, money, the clock.

Of the packages that do it, num2words is under the LGPL and inflect takes two seconds to import.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tts_kernel.text.expressions import Expression
from tts_kernel.text.words import MONEY, UNITS

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_LARGE = ("", "thousand", "million", "billion", "trillion", "quadrillion")
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_IRREGULAR = {"pence": "penny", "feet": "foot", "hertz": "hertz"}
_CENTS = {"USD": "cents", "EUR": "cents", "GBP": "pence"}


def say(found: Expression, before: str, _: str) -> str:
    """An expression in words."""
    values = found.values
    match found.kind:
        case "date":
            year, month, day = values
            if not 1 <= int(month) <= 12:
                return " ".join(number(value) for value in values)
            return f"{MONTHS[int(month) - 1]} {ordinal(day)}, {number(year)}"
        case "time":
            return _clock(*(int(value) for value in values))
        case "telephone":
            return ", ".join(digits(value) for value in values)
        case "digits":
            return digits(values[0])
        case "version":
            return " point ".join(cardinal(value) for value in values)
        case "money":
            return _money(found)
        case "range" | "score":
            return " to ".join(quantity(value) if found.grouped else number(value) for value in values)
        case "percent":
            return f"{_range(values)} percent"
        case "ordinal":
            return ordinal(values[0])
        case "measure":
            unit = UNITS["en"][found.unit]
            single = values == ("1",) or re.search(r"\b[Aa]n? $", before)  # a 5 km run
            return f"{_range(values)} {_one(unit) if single else unit}"
        case "fraction":
            return _fraction(*values)
        case _:
            return quantity(values[0]) if found.grouped else number(values[0])


def quantity(value: str) -> str:
    """A number of something, which is never said as a year: 1984 one thousand nine hundred eighty-four."""
    if value.startswith("-"):
        return f"minus {quantity(value[1:])}"
    whole, _, rest = value.partition(".")
    return f"{cardinal(whole)} point {digits(rest)}" if rest else cardinal(whole)


def number(value: str) -> str:
    """A number in words; 1100 to 1999 and 2010 to 2099 as years are said: 1984 nineteen eighty-four."""
    if len(value) == 4 and value.isdigit() and (1100 <= int(value) <= 1999 or 2010 <= int(value) <= 2099):
        century, year = divmod(int(value), 100)
        last = "hundred" if not year else f"oh {_ONES[year]}" if year < 10 else cardinal(str(year))
        return f"{cardinal(str(century))} {last}"
    return quantity(value)


def plural(value: str) -> str:
    """1980 nineteen eighties, 90 nineties, 6 sixes."""
    said = number(value)
    return f"{said[:-1]}ies" if said.endswith("y") else f"{said}es" if said.endswith("x") else f"{said}s"


def cardinal(value: str) -> str:
    """Digits in words: 1234 one thousand two hundred thirty-four. Digit by digit beyond quadrillions."""
    if len(value) > 18:
        return digits(value)
    if not int(value):
        return "zero"
    groups = [int(value[max(end - 3, 0) : end]) for end in range(len(value), 0, -3)]
    said = [f"{_below_thousand(group)} {large}".strip() for group, large in zip(groups, _LARGE, strict=False) if group]
    return " ".join(reversed(said))


def ordinal(value: str) -> str:
    """21 twenty-first."""
    head, dash, last = re.fullmatch(r"(.*?)([- ]?)(\w+)", cardinal(value)).groups()  # type: ignore[union-attr]
    ending = _ORDINALS.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")
    return f"{head}{dash}{ending}"


def digits(value: str) -> str:
    """Digit by digit."""
    return " ".join(_ONES[int(digit)] for digit in value)


def _below_thousand(value: int) -> str:
    hundreds, rest = divmod(value, 100)
    tens, ones = divmod(rest, 10)
    small = _ONES[rest] if rest < 20 else _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
    return " ".join([*([f"{_ONES[hundreds]} hundred"] if hundreds else []), *([small] if rest or not hundreds else [])])


def _clock(hour: int, minute: int, second: int = 0) -> str:
    if not hour + minute + second:
        return "midnight"
    if minute:
        after = f"{'oh ' if minute < 10 else ''}{cardinal(str(minute))}"
    else:
        after = "o'clock" if hour <= 12 else "hundred"
    said = f"{cardinal(str(hour))} {after}"
    return f"{said} and {cardinal(str(second))} seconds" if second else said


def _money(found: Expression) -> str:
    value, many = found.values[-1], MONEY["en"][found.unit]
    if found.magnitude:
        return f"{_range(found.values)} {found.magnitude} {many}"
    whole, _, rest = value.partition(".")
    if found.unit not in _CENTS or len(rest) > 2 or len(found.values) > 1:
        return f"{_range(found.values)} {many}"
    said = f"{quantity(whole)} {_one(many) if whole == '1' else many}"
    small, cents = int(rest.ljust(2, "0")), _CENTS[found.unit]
    less = f"{cardinal(str(small))} {_one(cents) if small == 1 else cents}"
    return said if not small else less if whole == "0" else f"{said} and {less}"


def _range(values: Sequence[str]) -> str:
    return " to ".join(quantity(value) for value in values)


def _one(many: str) -> str:
    """kilometers per hour -> kilometer per hour."""
    first, *rest = many.split(" ")
    return " ".join([_IRREGULAR.get(first, first.removesuffix("s")), *rest])


def _fraction(upper: str, lower: str) -> str:
    if upper == lower or (upper, lower) == ("24", "7"):
        return f"{cardinal(upper)} {cardinal(lower)}"
    if lower == "1":
        return f"{cardinal(upper)} over one"
    if lower == "2":
        return f"{cardinal(upper)} {'half' if upper == '1' else 'halves'}"
    return f"{cardinal(upper)} {'quarter' if lower == '4' else ordinal(lower)}{'' if upper == '1' else 's'}"
