"""Mandarin: numbers in characters, characters in pinyin, pinyin in MeloTTS's initials and finals.

Words are cut by rjieba, read by pypinyin with its dictionary of phrases, numbers written by cn2an; what changes the
tones between syllables is in chinese_tones.py. Traditional characters are read as they are.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from itertools import groupby

from tts_kernel.text.chinese_tones import NEUTRAL, Syllable, change_tones
from tts_kernel.text.expressions import Expression, find
from tts_kernel.text.pieces import Piece, mark_or_unknown

_INITIALS = "zh ch sh b p m f d t n l g k h j q x r z c s y w".split()
# Finals that are written otherwise than they are called in the table, by the initials they follow
_FINALS = {
    "jqx": {"u": "v", "ue": "ve", "uan": "van", "un": "vn"},
    "y": {"u": "v", "ue": "ve", "uan": "van", "un": "vn", "an": "En", "e": "E"},
    "nl": {"ue": "ve"},
    "zh ch sh r": {"i": "ir"},
    "z c s": {"i": "i0"},
}
_NO_INITIAL = {"a": "AA", "e": "EE", "o": "OO"}  # what stands for the initial of a syllable that begins with a vowel
_RARE = {"n": "en", "ng": "en", "m": "en", "hm": "hen", "hng": "heng", "ê": "ei", "lo": "luo", "yo": "yo"}

_MONEY = {"USD": "美元", "EUR": "欧元", "GBP": "英镑", "YEN": "元", "JPY": "日元", "KRW": "韩元", "CNY": "元"}
_UNITS = {
    "km/h": "每小时{}公里", "m/s": "每秒{}米", "km2": "平方公里", "m2": "平方米", "cm2": "平方厘米", "m3": "立方米",
    "km": "公里", "cm": "厘米", "mm": "毫米", "nm": "纳米", "m": "米", "kg": "公斤", "mg": "毫克", "g": "克", "t": "吨",
    "ml": "毫升", "l": "升", "dl": "分升", "ha": "公顷", "kb": "千字节", "mb": "兆字节", "gb": "吉字节", "tb": "太字节",
    "ghz": "吉赫兹", "mhz": "兆赫兹", "khz": "千赫兹", "hz": "赫兹", "kw": "千瓦", "w": "瓦", "kwh": "千瓦时",
    "mah": "毫安时", "v": "伏", "db": "分贝", "kcal": "千卡", "cal": "卡", "°c": "摄氏度", "°f": "华氏度", "°": "度",
    "fps": "帧每秒", "ppm": "百万分之{}", "min": "分钟", "sec": "秒", "ms": "毫秒",
}  # fmt: skip
_MAGNITUDES = {"thousand": "千", "million": "百万", "billion": "十亿", "trillion": "万亿"}
_SIGNS = {"%": "百分号", "&": "和", "@": "艾特", "+": "加", "=": "等于", "#": "井号", "°": "度", "×": "乘", "÷": "除以"}
_COUNTED = re.compile(r"\s?[个只条把本张次天位台件块岁斤米点家间杯碗瓶双对名种份座辆匹头群周句段层封首幅颗粒枚包盒箱遍趟顿场]|\s?(?:分钟|小时|公里|公斤)")
_GAINED = frozenset("获得 取得 心得 所得 难得 赢得 求得 博得 夺得 只得 不得".split())  # 得 dé
_CHARACTER = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def normalise(text: str) -> str:
    """Numbers, units, money and signs in characters."""
    said, last = "", 0
    for found in find(text):
        said += text[last : found.start] + _say(found, text[found.end :])
        last = found.end
    said += text[last:]
    for sign, word in _SIGNS.items():
        said = said.replace(sign, word)
    return re.sub(r"\d+", lambda match: number(match.group()), said)


def pronounce(text: str) -> list[Piece]:
    """A normalised text -> its characters and marks."""
    import rjieba

    syllables: list[Syllable | None] = []
    for word in rjieba.cut(text):
        syllables += _read(word)
    _make_particles(syllables)
    phrases = (list(group) for said, group in groupby(syllables, lambda item: item is not None) if said)
    changed = iter([tone for phrase in phrases for tone in change_tones(phrase)])
    pieces = []
    for letter, syllable in zip(text, syllables, strict=True):
        if syllable is None:
            pieces.append(Piece(letter, unknown=True) if _CHARACTER.match(letter) else mark_or_unknown(letter))
        else:
            phones = phones_of(syllable.pinyin)
            pieces.append(Piece(letter, phones, (next(changed),) * len(phones)))
    return pieces


def number(value: str) -> str:
    """A number in characters: 10500 一万零五百, -3.14 负三点一四."""
    import cn2an

    if len(value) > 16:
        return digits(value)
    return str(cn2an.an2cn(value, "low"))


def digits(value: str) -> str:
    """Digit by digit, as in a year or a telephone number."""
    return "".join("零一二三四五六七八九"[int(digit)] for digit in value)


@functools.cache
def phones_of(pinyin: str) -> tuple[str, ...]:
    """A syllable without its tone, ü written v -> its initial and final: zhi zh ir, yan y En, an AA an.
    Source: the pinyin of the singing corpus Opencpop, as MeloTTS uses it."""
    pinyin = _RARE.get(pinyin, pinyin)
    initial = next((start for start in _INITIALS if pinyin.startswith(start)), "")
    final = pinyin[len(initial) :]
    if not initial:
        return _NO_INITIAL[pinyin[0]], pinyin
    table = next((table for starts, table in _FINALS.items() if initial in (starts.split() if " " in starts else starts)), {})
    return initial, table.get(final, final)


def _read(word: str) -> list[Syllable | None]:
    """The syllables of a word, None for what is no Chinese character or has no reading."""
    from pypinyin import Style, lazy_pinyin

    if not _CHARACTER.match(word):
        return [None] * len(word)
    # pypinyin finds the phrases inside a word that it does not know as a whole: 银行|行长
    readings = lazy_pinyin(
        word, style=Style.TONE3, neutral_tone_with_five=True, errors=lambda letters: ["" for _ in letters]
    )
    return [
        Syllable(letter, reading[:-1].replace("ü", "v"), int(reading[-1]), place, len(word)) if reading else None
        for place, (letter, reading) in enumerate(zip(word, readings, strict=True))
    ]


def _make_particles(syllables: list[Syllable | None]) -> None:
    """地 after an adverb (高兴地说) and 得 after a verb (长得很好) are de, without a tone."""
    for place, syllable in enumerate(syllables):
        before, after = syllables[place - 1] if place else None, syllables[place + 1] if place + 1 < len(syllables) else None
        if syllable is None or before is None or after is None:
            continue
        last = syllable.place == syllable.length - 1
        adverb = syllable.length == 1 and before.length > 1 or (syllable.length == 3 and before.character == _at(syllables, place - 2))
        verb = syllable.length < 3 and before.character + "得" not in _GAINED
        if last and (syllable.character == "地" and adverb or syllable.character == "得" and verb):
            syllables[place] = replace(syllable, pinyin="de", tone=NEUTRAL)


def _at(syllables: list[Syllable | None], place: int) -> str:
    syllable = syllables[place] if place >= 0 else None
    return syllable.character if syllable is not None else ""


def _say(found: Expression, after: str) -> str:
    values = found.values
    match found.kind:
        case "date":
            year, month, day = values
            return f"{digits(year)}年{number(month)}月{number(day)}日"
        case "time":
            hour, minute, *second = (int(value) for value in values)
            said = f"{_two(str(hour))}点" + (f"{'零' * (minute < 10)}{number(str(minute))}分" if minute else "整")
            return said + (f"{number(str(second[0]))}秒" if second else "")
        case "telephone" | "digits":
            return "，".join(digits(value) for value in values)
        case "version":
            return "点".join(number(value) for value in values)
        case "money":
            return number(values[0]) + _MAGNITUDES.get(found.magnitude, "") + _MONEY[found.unit]
        case "range":
            return f"{_counted(values[0], after)}到{_counted(values[1], after)}"
        case "percent":
            minus, value = ("负", values[0][1:]) if values[0].startswith("-") else ("", values[0])
            return f"{minus}百分之{number(value)}"
        case "measure":
            unit = _UNITS[found.unit]
            said = number(values[0])
            return unit.format(said) if "{}" in unit else said.replace("负", "零下") + unit if unit == "摄氏度" else said + unit
        case "fraction":
            return f"{number(values[1])}分之{number(values[0])}"
        case "ordinal":
            return f"第{number(values[0])}"
        case _:
            year = after.startswith("年") and re.fullmatch(r"[12]\d{3}", values[0])
            mobile = re.fullmatch(r"1[3-9]\d{9}", values[0])
            return digits(values[0]) if year or mobile else _counted(values[0], after)


def _counted(value: str, after: str) -> str:
    return "两" if value == "2" and _COUNTED.match(after) else number(value)


def _two(value: str) -> str:
    return "两" if value == "2" else number(value)
