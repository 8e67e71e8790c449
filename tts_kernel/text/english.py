"""English: numbers, abbreviations and signs in words, words in phones.

Numbers are said here: of the packages that do it, num2words is under the LGPL and inflect takes two seconds to import.
"""

from __future__ import annotations

import re
import unicodedata

from tts_kernel.text.english_words import say_word
from tts_kernel.text.expressions import Expression, find
from tts_kernel.text.pieces import Piece, mark_or_unknown

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
_LARGE = ("", "thousand", "million", "billion", "trillion", "quadrillion")
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_MONTHS = (
    "January February March April May June July August September October November December"
).split()
_MONEY = {
    "USD": ("dollar", "dollars", "cent", "cents"), "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"), "YEN": ("yen", "yen", "sen", "sen"), "JPY": ("yen", "yen", "sen", "sen"),
    "KRW": ("won", "won", "jeon", "jeon"), "CNY": ("yuan", "yuan", "fen", "fen"),
}  # fmt: skip
_UNITS = {
    "km/h": "kilometers per hour", "m/s": "meters per second", "km2": "square kilometers", "m2": "square meters",
    "cm2": "square centimeters", "m3": "cubic meters", "km": "kilometers", "cm": "centimeters", "mm": "millimeters",
    "nm": "nanometers", "m": "meters", "kg": "kilograms", "mg": "milligrams", "g": "grams", "t": "tons",
    "ml": "milliliters", "l": "liters", "dl": "deciliters", "ha": "hectares", "kb": "kilobytes", "mb": "megabytes",
    "gb": "gigabytes", "tb": "terabytes", "ghz": "gigahertz", "mhz": "megahertz", "khz": "kilohertz", "hz": "hertz",
    "kw": "kilowatts", "w": "watts", "kwh": "kilowatt hours", "mah": "milliamp hours", "v": "volts", "db": "decibels",
    "kcal": "kilocalories", "cal": "calories", "°c": "degrees Celsius", "°f": "degrees Fahrenheit", "°": "degrees",
    "fps": "frames per second", "ppm": "parts per million", "min": "minutes", "sec": "seconds", "ms": "milliseconds",
}  # fmt: skip
_ABBREVIATIONS = {
    "mr.": "mister", "mrs.": "missus", "ms.": "miz", "dr.": "doctor", "prof.": "professor", "st.": "saint",
    "jr.": "junior", "sr.": "senior", "vs.": "versus", "etc.": "et cetera", "e.g.": "for example", "i.e.": "that is",
    "approx.": "approximately", "dept.": "department", "inc.": "incorporated", "ltd.": "limited", "co.": "company",
    "corp.": "corporation", "mt.": "mount", "ave.": "avenue", "blvd.": "boulevard", "gen.": "general",
    "capt.": "captain", "sgt.": "sergeant", "lt.": "lieutenant", "rev.": "reverend", "hon.": "honorable",
    "jan.": "January", "feb.": "February", "aug.": "August", "sept.": "September", "oct.": "October",
    "nov.": "November", "dec.": "December",
}  # fmt: skip
_ABBREVIATED = re.compile(
    rf"(?<![\w.])(?:{'|'.join(re.escape(short) for short in sorted(_ABBREVIATIONS, key=len, reverse=True))})(?!\w)", re.I
)
_DOTTED = re.compile(r"(?<![\w.])(?:[A-Za-z]\.){2,}")  # U.S., p.m.
_SIGNS = {"%": "percent", "&": "and", "@": "at", "+": "plus", "=": "equals", "#": "number", "°": "degrees", "×": "times", "÷": "divided by"}
_WORDS = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*'?|.", re.DOTALL)
_UNACCENTED = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "Oe", "đ": "d", "ł": "l", "Ł": "L", "ð": "th", "þ": "th", "ı": "i"})


def normalise(text: str) -> str:
    """Abbreviations, numbers, units, money and signs in words; letters without their accents."""
    text = "".join(
        letter for letter in unicodedata.normalize("NFD", text.translate(_UNACCENTED)) if not unicodedata.combining(letter)
    )
    text = text.replace("’", "'").replace("‘", "'")
    text = _ABBREVIATED.sub(lambda match: _ABBREVIATIONS[match.group().lower()], text)
    text = re.sub(r"\b[Nn]o\.(?=\s?\d)", "number", text)
    text = _DOTTED.sub(lambda match: " ".join(match.group().upper().replace(".", "")), text)
    said, last = "", 0
    for found in find(text):
        said += text[last : found.start] + _say(found)
        last = found.end
    said += text[last:]
    for sign, word in _SIGNS.items():
        said = said.replace(sign, f" {word} ")
    said = re.sub(r"\d+", lambda match: f" {number(match.group())} ", said)
    return re.sub(r" +([,.!?])", r"\1", re.sub(" +", " ", said))


def pronounce(text: str) -> list[Piece]:
    """A normalised text -> its words and marks. A hyphen or an apostrophe inside a word is not said."""
    pieces = []
    for match in _WORDS.finditer(text):
        word = match.group()
        if word[0].isascii() and word[0].isalpha():
            quoted = word.endswith("'") and not word.lower().endswith("s'")
            phones, tones = say_word(word[:-1] if quoted else word)
            pieces.append(Piece(word[:-1] if quoted else word, phones, tones))
            pieces += [mark_or_unknown("'")] if quoted else []
        elif word == "-" and text[match.start() - 1 : match.start()].isalpha() and text[match.end() : match.end() + 1].isalpha():
            pieces.append(Piece(word))
        else:
            pieces.append(mark_or_unknown(word))
    return pieces


def number(value: str) -> str:
    """A number in words; 1100 to 1999 and 2010 to 2099 as years are said: 1984 nineteen eighty-four."""
    if value.startswith("-"):
        return f"minus {number(value[1:])}"
    whole, _, rest = value.partition(".")
    if rest:
        return f"{cardinal(whole)} point {digits(rest)}"
    if len(value) == 4 and (1100 <= int(value) <= 1999 or 2010 <= int(value) <= 2099):
        century, year = divmod(int(value), 100)
        last = "hundred" if not year else f"oh {_ONES[year]}" if year < 10 else cardinal(str(year))
        return f"{cardinal(str(century))} {last}"
    return cardinal(whole)


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


def _say(found: Expression) -> str:
    values = found.values
    match found.kind:
        case "date":
            year, month, day = values
            if not 1 <= int(month) <= 12:
                return " ".join(number(value) for value in values)
            return f"{_MONTHS[int(month) - 1]} {ordinal(day)}, {number(year)}"
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
        case "range":
            return f"{number(values[0])} to {number(values[1])}"
        case "percent":
            return f"{number(values[0])} percent"
        case "ordinal":
            return ordinal(values[0])
        case "measure":
            unit = _UNITS[found.unit]
            return f"{number(values[0])} {re.sub('s(?= |$)', '', unit, count=1) if values[0] == '1' else unit}"
        case "fraction":
            return _fraction(*values)
        case _:
            return number(values[0])


def _clock(hour: int, minute: int, second: int = 0) -> str:
    said = cardinal(str(hour))
    said += " o'clock" if not minute and hour <= 12 else " hundred" if not minute else f" {'oh ' * (minute < 10)}{cardinal(str(minute))}"
    return f"{said} and {cardinal(str(second))} seconds" if second else said


def _money(found: Expression) -> str:
    one, many, cent, cents = _MONEY[found.unit]
    value = found.values[0]
    if found.magnitude:
        return f"{number(value)} {found.magnitude} {many}"
    minus, value = ("minus ", value[1:]) if value.startswith("-") else ("", value)
    whole, _, rest = value.partition(".")
    said = f"{minus}{cardinal(whole)} {one if whole == '1' else many}"
    small = int(rest[:2].ljust(2, "0")) if rest else 0
    return f"{said} and {cardinal(str(small))} {cent if small == 1 else cents}" if small else said


def _fraction(upper: str, lower: str) -> str:
    if (upper, lower) == ("1", "2"):
        return "one half"
    below = "quarter" if lower == "4" else "half" if lower == "2" else ordinal(lower) if lower != "1" else "over one"
    plural = "" if upper == "1" else "s"
    return f"{cardinal(upper)} {'halves' if below == 'half' else below + plural}"
