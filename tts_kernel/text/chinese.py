"""Mandarin: numbers in characters, characters in pinyin, pinyin in MeloTTS's initials and finals.

Words are cut by rjieba, read by pypinyin with its dictionary of phrases, numbers written by cn2an. What follows from
the characters around one is in chinese_readings.py, what changes the tones between syllables in chinese_tones.py.
Traditional characters are read as they are.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from tts_kernel.text.chinese_readings import OWN_READINGS, read_in_context
from tts_kernel.text.chinese_tones import Syllable, change_tones
from tts_kernel.text.expressions import Expression, rewrite
from tts_kernel.text.pieces import Piece, mark_or_unknown
from tts_kernel.text.words import MONEY, UNITS, say_signs

_INITIALS = ("zh", "ch", "sh", *"bpmfdtnlgkhjqxrzcsyw")
# Finals that are written otherwise than they are called in the table, by the initials they follow
_BY_INITIALS = {
    "j q x y": {"u": "v", "ue": "ve", "uan": "van", "un": "vn"},
    "n l": {"ue": "ve"},
    "zh ch sh r": {"i": "ir"},
    "z c s": {"i": "i0"},
    "y": {"an": "En", "e": "E"},
}
_FINALS = {
    (initial, final): name
    for initials, names in _BY_INITIALS.items()
    for initial in initials.split()
    for final, name in names.items()
}
_NO_INITIAL = {"a": "AA", "e": "EE", "o": "OO"}  # what stands for the initial of a syllable that begins with a vowel
_RARE = {"n": "en", "ng": "en", "m": "en", "hm": "hen", "hng": "heng", "ê": "ei", "lo": "luo", "yo": "yo"}

# What is counted with 两; 2年级 and 第2次 are not
_COUNTED = re.compile(
    r"\s?(?:[个只条把本张次天位台件块岁斤米点家间杯碗瓶双对名种份座辆匹头群周句段层封首幅颗粒枚包盒箱遍趟顿场"
    r"倍元人万千亿门项款部起道架艘批套排根支枝朵扇串滴堆所户]|年(?!级|代)|分钟|小时|公里|公斤|星期|英里|英尺)"
)
_CHARACTER = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def normalise(text: str) -> str:
    """Numbers, units, money and signs in characters."""
    said = re.sub(r"(每小时|每秒)\1", r"\1", rewrite(text, _say))  # 每小时100km/h
    return say_signs(said, "zh")


def pronounce(text: str) -> list[Piece]:
    """A normalised text -> its characters and marks."""
    import rjieba

    syllables: list[Syllable | None] = []
    for word in rjieba.cut(text):
        syllables += _read(word)
    syllables = read_in_context(syllables)
    phrases = groupby(syllables, lambda syllable: syllable is None)
    changed = iter([tone for silent, phrase in phrases if not silent for tone in change_tones(_said(phrase))])
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

    if value.startswith("-"):
        return f"负{number(value[1:])}"
    whole, _, rest = value.partition(".")
    said = digits(whole) if len(whole) > 16 else str(cn2an.an2cn(whole, "low"))
    said = re.sub("^二(?=[千万亿])", "两", said)
    return f"{said}点{digits(rest)}" if rest else said


def digits(value: str, one: str = "一") -> str:
    """Digit by digit, as in a year; in telephone numbers one is 幺."""
    return "".join("零一二三四五六七八九"[int(digit)] for digit in value).replace("一", one)


@functools.cache
def phones_of(pinyin: str) -> tuple[str, ...]:
    """A syllable without its tone, ü written v -> its initial and final: zhi zh ir, yan y En, an AA an.
    Source: the pinyin of the singing corpus Opencpop, as MeloTTS uses it."""
    pinyin = _RARE.get(pinyin, pinyin)
    initial = next((start for start in _INITIALS if pinyin.startswith(start)), "")
    final = pinyin[len(initial) :]
    if not initial:
        return _NO_INITIAL[pinyin[0]], pinyin
    return initial, _FINALS.get((initial, final), final)


def _said(phrase: Iterable[Syllable | None]) -> list[Syllable]:
    return [syllable for syllable in phrase if syllable is not None]


def _read(word: str) -> list[Syllable | None]:
    """The syllables of a word, None for what is no Chinese character or has no reading."""
    from pypinyin import Style, lazy_pinyin
    from pypinyin.seg import mmseg

    if not _CHARACTER.match(word):
        return [None] * len(word)
    # pypinyin finds the phrases inside a word that it does not know as a whole: 银行|行长, and 很|长
    alone = [len(phrase) == 1 for phrase in mmseg.seg.cut(word) for _ in phrase]
    readings = lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True, errors=_without_reading)
    for known, own in OWN_READINGS.items():
        if (start := word.find(known)) >= 0:
            readings[start : start + len(known)] = own.split()
    return [
        Syllable(letter, reading[:-1].replace("ü", "v"), int(reading[-1]), place, len(word), alone[place])
        if reading
        else None
        for place, (letter, reading) in enumerate(zip(word, readings, strict=True))
    ]


def _without_reading(letters: str) -> Any:
    """One empty reading per character; pypinyin's annotation has forgotten that a list may be returned."""
    return [""] * len(letters)


def _say(found: Expression, before: str, after: str) -> str:
    values = found.values
    counted = _COUNTED.match(after) is not None and not before.endswith("第")
    match found.kind:
        case "date":
            year, month, day = values
            return f"{digits(year)}年{number(month)}月{number(day)}日"
        case "time":
            hour, minute, *second = (int(value) for value in values)
            said = f"{'两' if hour == 2 else number(str(hour))}点" + (
                f"{'零' * (minute < 10)}{number(str(minute))}分" if minute else "整"
            )
            return said + (f"{number(str(second[0]))}秒" if second else "")
        case "telephone":
            return "，".join(digits(value, one="幺") for value in values)
        case "digits":
            return digits(values[0])
        case "version":
            return "点".join(number(value) for value in values)
        case "score":
            return "比".join(number(value) for value in values)
        case "money":
            return _range(found.amounts, counted=True) + MONEY["zh"][found.unit]
        case "range":
            years = after.startswith("年") and all(re.fullmatch(r"[12]\d{3}", value) for value in values)
            return "到".join(map(digits, values)) if years else _range(values, counted)
        case "percent":
            return "到".join(f"{'负' * value.startswith('-')}百分之{number(value.lstrip('-'))}" for value in values)
        case "measure":
            unit = UNITS["zh"][found.unit]
            said = _range(values, counted=not unit.endswith("度"))
            if unit == "摄氏度":
                said = said.replace("负", "零下")
            return unit.format(said) if "{}" in unit else said + unit
        case "fraction":
            return f"{number(values[1])}分之{number(values[0])}"
        case "ordinal":
            return f"第{number(values[0])}"
        case _:
            if not found.grouped and re.fullmatch(r"[12]\d{3}", values[0]) and after.startswith("年"):
                return digits(values[0])
            if re.fullmatch(r"1[3-9]\d{9}", values[0]):  # a mobile telephone
                return digits(values[0], one="幺")
            return _range(values, counted)


def _range(values: Sequence[str], counted: bool) -> str:
    """Numbers, before something that is counted with 两."""
    return "到".join("两" if counted and value == "2" else number(value) for value in values)
