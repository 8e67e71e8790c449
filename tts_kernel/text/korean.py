"""Korean: numbers in words, and syllables decomposed into jamo.

The jamo are those that are written, without the sound changes between syllables: the model learns them. Only where a
checkpoint's table lacks a final consonant (the published one has the seven spoken finals) is it replaced by the
spoken one.
"""

from __future__ import annotations

import re

from tts_kernel.text.abbreviations import spell_abbreviations
from tts_kernel.text.expressions import Expression, rewrite
from tts_kernel.text.pieces import Piece, mark_or_unknown
from tts_kernel.text.symbols import SPOKEN_FINAL
from tts_kernel.text.words import MAGNITUDES, MONEY, UNITS, say_signs

_DIGITS = "영일이삼사오육칠팔구"
_NATIVE = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
_NATIVE_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
# What is counted with native numerals: 시 is the hour, not the beginning of a word
_COUNTED = re.compile(
    r"\s?(?:개(?!월|년)|명|살|시간|시(?!\w)|시(?=[에가는를의쯤경])|마리|권|장|대(?!\d)|병|잔|가지|달|벌|켤레|채|그루|송이|곳|"
    r"사람|그릇|배|줄|군데)"
)
_MONTHS = {"6": "유", "10": "시"}
# The single Chinese characters of Korean headlines
_HANJA = dict(
    zip(
        "美中日北韓英佛獨露印伊南東西前現新舊故女男與野靑檢軍黨金李朴崔文尹車大小高低無反對親",
        "미중일북한영불독러인이남동서전현신구고여남여야청검군당김이박최문윤차대소고저무반대친",
        strict=True,
    )
)
_LONE_HANJA = re.compile(r"(?<![\u3400-\u9fff])[\u3400-\u9fff](?![\u3400-\u9fff])")


def prepare(text: str) -> str:
    """Before a sentence is split into spans: headline hanja in hangul, and abbreviations in capitals that are no
    English word by the names of their letters (KBS 케이비에스)."""
    text = _LONE_HANJA.sub(lambda match: _HANJA.get(match.group(), match.group()), text)
    return spell_abbreviations(text, "ko")


def normalise(text: str) -> str:
    """Numbers, units, money and signs in words."""
    said = re.sub(r"(시속|초속) ?\1", r"\1", rewrite(text, _say))  # 시속 100km/h
    return re.sub(" +", " ", say_signs(said, "ko"))


def pronounce(text: str, all_finals: bool = True) -> list[Piece]:
    """A normalised text in hangul -> its syllables; without `all_finals`, finals as they are spoken alone."""
    return [_syllable(letter, all_finals) for letter in text]


def number(value: str) -> str:
    """A number in Sino-Korean words: 10500 만 오백, 3.14 삼 점 일사, -2 마이너스 이."""
    if value.startswith("-"):
        return f"마이너스 {number(value[1:])}"
    whole, _, rest = value.partition(".")
    said = _whole(int(whole)) if len(whole) <= 16 else digits(whole)
    return f"{said} 점 {digits(rest)}" if rest else said


def digits(value: str, zero: str = "영") -> str:
    """Digit by digit; in telephone numbers zero is 공."""
    return "".join(_DIGITS[int(digit)] for digit in value).replace("영", zero)


def native(value: int) -> str:
    """1 to 99 as they stand before what is counted: 한, 두, 스무, 스물한."""
    return "스무" if value == 20 else _NATIVE_TENS[value // 10] + _NATIVE[value % 10]


def _whole(value: int) -> str:
    if value == 0:
        return "영"
    parts: list[str] = []
    for large in ("", "만", "억", "조"):
        value, four = divmod(value, 10_000)
        if four:
            said = "".join(
                _place(four // 10**power % 10, unit) for power, unit in ((3, "천"), (2, "백"), (1, "십"), (0, ""))
            )
            parts.append("만" if said == "일" and large == "만" and not value else said + large)
    return " ".join(reversed(parts))


def _place(digit: int, unit: str) -> str:
    return "" if not digit else unit if digit == 1 and unit else _DIGITS[digit] + unit


def _say(found: Expression, after: str) -> str:
    values = found.values
    counted = _COUNTED.match(after)
    match found.kind:
        case "date":
            year, month, day = (str(int(value)) for value in values)
            return f"{number(year)}년 {_MONTHS.get(month, number(month))}월 {number(day)}일"
        case "time":
            hour, *rest = (int(value) for value in values)
            clock = [f"{number(str(part))}{unit}" for part, unit in zip(rest, "분초", strict=False) if part]
            return " ".join([f"{_counted_number(str(hour), most=12)}시", *clock])
        case "telephone" | "digits":
            return " ".join(digits(value, zero="공") for value in values)
        case "version":
            return " 점 ".join(number(value) for value in values)
        case "money":
            magnitude = MAGNITUDES["ko"].get(found.magnitude, "")
            return " ".join(filter(None, (number(values[0]), magnitude, MONEY["ko"][found.unit])))
        case "range":
            return "에서 ".join(_counted_number(value, _most(counted)) for value in values)
        case "percent":
            return f"{number(values[0])} 퍼센트"
        case "measure":
            unit = UNITS["ko"][found.unit]
            return unit.format(number(values[0])) if "{}" in unit else f"{number(values[0])} {unit}"
        case "fraction":
            return f"{number(values[1])}분의 {number(values[0])}"
        case _:
            if after.startswith("월") and values[0] in _MONTHS:
                return _MONTHS[values[0]]
            return _counted_number(values[0], _most(counted))


def _most(counted: re.Match[str] | None) -> int:
    """Up to where numbers are native: 99 before what is counted, twelve for hours (24시간 이십사시간)."""
    return 0 if counted is None else 12 if counted.group().strip() in ("시", "시간") else 99


def _counted_number(value: str, most: int) -> str:
    return native(int(value)) if value.isdigit() and 1 <= int(value) <= most else number(value)


def _syllable(letter: str, all_finals: bool) -> Piece:
    place = ord(letter) - 0xAC00
    if 0 <= place < 11172:
        first, rest = divmod(place, 21 * 28)
        vowel, final = divmod(rest, 28)
        jamo = [chr(0x1100 + first), chr(0x1161 + vowel), *([chr(0x11A7 + final)] if final else [])]
    elif "\u1100" <= letter <= "\u1112" or "\u1161" <= letter <= "\u1175" or "\u11a8" <= letter <= "\u11c2":
        jamo = [letter]
    else:
        return mark_or_unknown(letter)
    if not all_finals:
        jamo[-1] = SPOKEN_FINAL.get(jamo[-1], jamo[-1])
    return Piece(letter, tuple(jamo), (0,) * len(jamo))
