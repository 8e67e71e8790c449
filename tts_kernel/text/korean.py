"""Korean: numbers in words, and syllables decomposed into jamo.

The jamo are those that are written, without the sound changes between syllables: the model learns them. Only where a
checkpoint's table lacks a final consonant (the published one has the seven spoken finals) is it replaced by the
spoken one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tts_kernel.text.abbreviations import spell_abbreviations
from tts_kernel.text.expressions import Expression, rewrite
from tts_kernel.text.pieces import Piece, mark_or_unknown
from tts_kernel.text.symbols import SPOKEN_FINAL
from tts_kernel.text.words import MONEY, UNITS, say_signs

_DIGITS = "영일이삼사오육칠팔구"
_NATIVE = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
_NATIVE_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
# What is counted with native numerals, unless a longer word begins there: 3개 but 3개월, 3달 but 3달러
_COUNTERS = r"""
개(?!월|년|국|사|소) 명(?!령) 살 시간 시(?!즌|리즈|군|도지사|스템|상|민|장|집|범) 마리 권(?!역) 장(?!관|군|르)
대(?!\s?\d|양|학) 병(?!원|사) 잔 컵 가지 달(?!러) 벌(?!점) 켤레 채(?!널) 그루 송이 곳 사람 그릇 배(?!럴) 줄 군데 끼
통(?!신|화) 척 쌍 박스 상자 봉지 자루 팀 건(?!물) 곡 알 포기 다발 조각 바퀴 걸음 방울 모금 숟가락 차례 식구 나라
자리 종류 번째 번(?=\s?(?:이나|씩|더|만에|정도|이상|넘게|연속))
"""
_COUNTED = re.compile(rf"\s?(?:{'|'.join(_COUNTERS.split())})")
_MOST = {"시": 12, "시간": 20}  # up to where their numerals are native: 24시간 이십사시간
_NUMBERED = re.compile(r"(?<![가-힣])제\s?$")  # 제3장: not three of them but the third
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
    return spell_abbreviations(re.sub(r"%[pP](?![A-Za-z])", "% 포인트", text), "ko")


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


def _say(found: Expression, before: str, after: str) -> str:
    values = found.values
    counted = None if _NUMBERED.search(before) else _COUNTED.match(after)
    match found.kind:
        case "date":
            year, month, day = (str(int(value)) for value in values)
            return f"{number(year)}년 {_MONTHS.get(month, number(month))}월 {number(day)}일"
        case "time":
            hour, *rest = (int(value) for value in values)
            clock = [f"{number(str(part))}{unit}" for part, unit in zip(rest, "분초", strict=False) if part]
            return " ".join([f"{native(hour) if 1 <= hour <= 12 else number(str(hour))}시", *clock])
        case "telephone" | "digits":
            return " ".join(digits(value, zero="공") for value in values)
        case "version":
            return " 점 ".join(number(value) for value in values)
        case "score":
            return " 대 ".join(number(value) for value in values)
        case "money":
            return f"{_range(found.amounts)} {MONEY['ko'][found.unit]}"
        case "range":
            if counted is None:
                return _range(values)
            first, second = (_counted_number(value, counted) for value in values)
            native_first = first != number(values[0])
            return f"{first}{counted.group() if native_first else ''}에서 {second}"
        case "percent":
            return f"{_range(values)} 퍼센트"
        case "measure":
            unit, said = UNITS["ko"][found.unit], _range(values)
            return unit.format(said) if "{}" in unit else f"{said} {unit}"
        case "fraction" if re.match(r"\s?분기", after):
            return f"{number(values[0])}{number(values[1])} "  # 3/4분기
        case "fraction":
            return f"{number(values[1])}분의 {number(values[0])}"
        case _:
            if after.startswith("월") and values[0] in _MONTHS:
                return _MONTHS[values[0]]
            if values[0] == "1" and re.match("[만천백]", after):
                return ""  # 1만 is 만
            return number(values[0]) if counted is None else _counted_number(values[0], counted)


def _range(values: Sequence[str]) -> str:
    return "에서 ".join(number(value) for value in values)


def _counted_number(value: str, counted: re.Match[str]) -> str:
    counter = counted.group().strip()
    decade = counter == "대" and value.endswith("0")  # 30대 are people of that age
    if not value.isdigit() or decade or not 1 <= int(value) <= _MOST.get(counter, 99):
        return number(value)
    return "첫" if value == "1" and counter == "번째" else native(int(value))


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
