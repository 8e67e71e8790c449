"""Korean: numbers in words, and syllables decomposed into jamo.

The jamo are those that are written, without the sound changes between syllables: the model learns them. Only where a
checkpoint's table lacks a final consonant (the published one has the seven spoken finals) is it replaced by the
spoken one.
"""

from __future__ import annotations

import re

from tts_kernel.text.english_words import is_word
from tts_kernel.text.expressions import Expression, find
from tts_kernel.text.pieces import Piece, mark_or_unknown

SPOKEN_FINAL = {
    **dict.fromkeys("ᆩᆪᆰᆿ", "ᆨ"),
    **dict.fromkeys("ᆬᆭ", "ᆫ"),
    **dict.fromkeys("ᆺᆻᆽᆾᇀᇂ", "ᆮ"),
    **dict.fromkeys("ᆲᆳᆴᆶ", "ᆯ"),
    **dict.fromkeys("ᆱ", "ᆷ"),
    **dict.fromkeys("ᆵᆹᇁ", "ᆸ"),
}

_DIGITS = "영일이삼사오육칠팔구"
_NATIVE = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
_NATIVE_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
# What is counted with native numerals; "시" is the hour, not "시간"
_COUNTED = re.compile(
    r"\s?(?:개(?!월|년)|명|살|시간|시(?!\w)|시(?=[에가는를의쯤경])|마리|권|장|대(?!\d)|병|잔|가지|달|벌|켤레|채|그루|송이|곳|사람|그릇|배|줄|군데)"
)
_MONTHS = {"6": "유", "10": "시"}
_MONEY = {"USD": "달러", "EUR": "유로", "GBP": "파운드", "YEN": "엔", "JPY": "엔", "KRW": "원", "CNY": "위안"}
_UNITS = {
    "km/h": "시속 {} 킬로미터", "m/s": "초속 {} 미터", "km2": "제곱킬로미터", "m2": "제곱미터", "cm2": "제곱센티미터",
    "m3": "세제곱미터", "km": "킬로미터", "cm": "센티미터", "mm": "밀리미터", "nm": "나노미터", "m": "미터", "kg": "킬로그램",
    "mg": "밀리그램", "g": "그램", "t": "톤", "ml": "밀리리터", "l": "리터", "dl": "데시리터", "ha": "헥타르",
    "kb": "킬로바이트", "mb": "메가바이트", "gb": "기가바이트", "tb": "테라바이트", "ghz": "기가헤르츠", "mhz": "메가헤르츠",
    "khz": "킬로헤르츠", "hz": "헤르츠", "kw": "킬로와트", "w": "와트", "kwh": "킬로와트시", "mah": "밀리암페어시", "v": "볼트",
    "db": "데시벨", "kcal": "킬로칼로리", "cal": "칼로리", "°c": "도", "°f": "화씨 {} 도", "°": "도", "fps": "프레임",
    "ppm": "피피엠", "min": "분", "sec": "초", "ms": "밀리초",
}  # fmt: skip
_LETTERS = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "에이 비 씨 디 이 에프 지 에이치 아이 제이 케이 엘 엠 엔 오 피 큐 알 에스 티 유 브이 더블유 엑스 와이 지".split(),
        strict=True,
    )
)
_SIGNS = {"%": "퍼센트", "&": "앤드", "@": "골뱅이", "+": "플러스", "=": "는", "#": "샵", "°": "도", "×": "곱하기", "÷": "나누기"}
# The single Chinese characters of Korean headlines
_HANJA = dict(
    zip(
        "美中日北韓英佛獨露印伊南東西前現新舊故女男與野靑檢軍黨金李朴崔文尹車大小高低無反對親",
        "미중일북한영불독러인이남동서전현신구고여남여야청검군당김이박최문윤차대소고저무반대친",
        strict=True,
    )
)
_LONE_HANJA = re.compile(r"(?<![\u3400-\u9fff])[\u3400-\u9fff](?![\u3400-\u9fff])")
_CAPITALS = re.compile(r"(?<![\dA-Za-z])(?<!\d )[A-Z]{2,5}(?![\dA-Za-z])")


def prepare(text: str) -> str:
    """Before a sentence is split into spans: headline hanja in hangul, and abbreviations in capitals that are no
    English word by the names of their letters (KBS 케이비에스)."""
    text = _LONE_HANJA.sub(lambda match: _HANJA.get(match.group(), match.group()), text)
    return _CAPITALS.sub(lambda match: match.group() if is_word(match.group()) else spell(match.group()), text)


def spell(letters: str) -> str:
    """Capital letters by their Korean names."""
    return "".join(_LETTERS[letter] for letter in letters)


def normalise(text: str) -> str:
    """Numbers, units, money and signs in words."""
    said, last = "", 0
    for found in find(text):
        said += text[last : found.start] + _say(found, text[found.end :])
        last = found.end
    said += text[last:]
    for sign, word in _SIGNS.items():
        said = said.replace(sign, f" {word} ")
    return re.sub(r"\d+", lambda match: number(match.group()), said)


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


def digits(value: str) -> str:
    """Digit by digit, as in a telephone number."""
    return "".join("공" if digit == "0" and value.startswith("0") else _DIGITS[int(digit)] for digit in value)


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
            said = "".join(_place(four // 10**power % 10, unit) for power, unit in ((3, "천"), (2, "백"), (1, "십"), (0, "")))
            parts.append("만" if said == "일" and large == "만" and not value else said + large)
    return " ".join(reversed(parts))


def _place(digit: int, unit: str) -> str:
    return "" if not digit else unit if digit == 1 and unit else _DIGITS[digit] + unit


def _say(found: Expression, after: str) -> str:
    values = found.values
    counted = _COUNTED.match(after)
    if found.kind == "date":
        year, month, day = (str(int(value)) for value in values)
        return f"{number(year)}년 {_MONTHS.get(month, number(month))}월 {number(day)}일"
    if found.kind == "time":
        hour, *rest = (int(value) for value in values)
        clock = [_hour(hour), *(f"{number(str(part))}{unit}" for part, unit in zip(rest, "분초", strict=False) if part)]
        return " ".join(clock)
    if found.kind in ("telephone", "digits"):
        return " ".join(digits(value) if value[0] == "0" else digits("0" + value)[1:] for value in values)
    if found.kind == "version":
        return " 점 ".join(number(value) for value in values)
    if found.kind == "money":
        amount = number(values[0]) + {"thousand": " 천", "million": " 백만", "billion": " 십억", "trillion": " 조"}.get(
            found.magnitude, ""
        )
        return f"{amount} {_MONEY[found.unit]}"
    if found.kind == "range":
        first, last = (_counted_number(value, bool(counted)) for value in values)
        return f"{first}에서 {last}"
    if found.kind == "percent":
        return f"{number(values[0])} 퍼센트"
    if found.kind == "measure":
        unit = _UNITS[found.unit]
        return unit.format(number(values[0])) if "{}" in unit else f"{number(values[0])} {unit}"
    if found.kind == "fraction":
        return f"{number(values[1])}분의 {number(values[0])}"
    if after.startswith("월") and values[0] in _MONTHS:
        return _MONTHS[values[0]]
    if counted and counted.group().strip() == "시":
        return _hour(int(values[0]), "") if values[0].isdigit() and len(values[0]) < 3 else number(values[0])
    return _counted_number(values[0], bool(counted))


def _hour(hour: int, unit: str = "시") -> str:
    return (native(hour) if 1 <= hour <= 12 else number(str(hour))) + unit


def _counted_number(value: str, counted: bool) -> str:
    return native(int(value)) if counted and value.isdigit() and 1 <= int(value) <= 99 else number(value)


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
