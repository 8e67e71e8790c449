"""Mandarin: numbers in characters, characters in pinyin, pinyin in MeloTTS's initials and finals.

Words are cut by rjieba, read by pypinyin with its dictionary of phrases, numbers written by cn2an; what changes the
tones between syllables is in chinese_tones.py. Traditional characters are read as they are.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from typing import Any

from tts_kernel.text.chinese_tones import NEUTRAL, Syllable, change_tones
from tts_kernel.text.expressions import Expression, rewrite
from tts_kernel.text.pieces import Piece, mark_or_unknown
from tts_kernel.text.words import MAGNITUDES, MONEY, UNITS, say_signs

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

_COUNTED = re.compile(
    r"\s?(?:[个只条把本张次天位台件块岁斤米点家间杯碗瓶双对名种份座辆匹头群周句段层封首幅颗粒枚包盒箱遍趟顿场]|"
    r"分钟|小时|公里|公斤)"
)
_GAINED = frozenset(["获得", "取得", "心得", "所得", "难得", "赢得", "求得", "博得", "夺得", "只得", "不得"])  # 得 dé
_SPOKEN_VERBS = frozenset("说看走跑笑问想写听唱叫哭喊做学讲坐站")  # rjieba takes 地说 for a word
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
    _make_particles(syllables)
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
    return f"{said}点{digits(rest)}" if rest else said


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
    return initial, _FINALS.get((initial, final), final)


def _said(phrase: Iterable[Syllable | None]) -> list[Syllable]:
    return [syllable for syllable in phrase if syllable is not None]


def _read(word: str) -> list[Syllable | None]:
    """The syllables of a word, None for what is no Chinese character or has no reading."""
    from pypinyin import Style, lazy_pinyin

    if not _CHARACTER.match(word):
        return [None] * len(word)
    # pypinyin finds the phrases inside a word that it does not know as a whole: 银行|行长
    readings = lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True, errors=_without_reading)
    return [
        Syllable(letter, reading[:-1].replace("ü", "v"), int(reading[-1]), place, len(word)) if reading else None
        for place, (letter, reading) in enumerate(zip(word, readings, strict=True))
    ]


def _without_reading(letters: str) -> Any:
    """One empty reading per character; pypinyin's annotation has forgotten that a list may be returned."""
    return [""] * len(letters)


def _make_particles(syllables: list[Syllable | None]) -> None:
    """地 after an adverb (高兴地说) and 得 after a verb (长得很好) are de, without a tone."""
    for place, (before, own, after) in enumerate(zip(syllables, syllables[1:], syllables[2:], strict=False), start=1):
        if own is None or before is None or after is None:
            continue
        if own.character == "地":
            alone = own.length == 1 or (own.place == 0 and own.length == 2 and after.character in _SPOKEN_VERBS)
            repeated = own.length == own.place + 1 == 3 and before.character == _at(syllables, place - 2)
            particle = (alone and before.length > 1) or repeated
        else:
            particle = (
                own.character == "得" and own.place == own.length - 1 < 2 and f"{before.character}得" not in _GAINED
            )
        if particle:
            syllables[place] = replace(own, pinyin="de", tone=NEUTRAL)


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
            said = f"{'两' if hour == 2 else number(str(hour))}点" + (
                f"{'零' * (minute < 10)}{number(str(minute))}分" if minute else "整"
            )
            return said + (f"{number(str(second[0]))}秒" if second else "")
        case "telephone" | "digits":
            return "，".join(digits(value) for value in values)
        case "version":
            return "点".join(number(value) for value in values)
        case "money":
            return number(values[0]) + MAGNITUDES["zh"].get(found.magnitude, "") + MONEY["zh"][found.unit]
        case "range":
            return f"{_counted(values[0], after)}到{_counted(values[1], after)}"
        case "percent":
            minus, value = ("负", values[0][1:]) if values[0].startswith("-") else ("", values[0])
            return f"{minus}百分之{number(value)}"
        case "measure":
            unit = UNITS["zh"][found.unit]
            said = number(values[0])
            if unit == "摄氏度":
                said = said.replace("负", "零下")
            return unit.format(said) if "{}" in unit else said + unit
        case "fraction":
            return f"{number(values[1])}分之{number(values[0])}"
        case "ordinal":
            return f"第{number(values[0])}"
        case _:
            if re.fullmatch(r"[12]\d{3}" if after.startswith("年") else r"1[3-9]\d{9}", values[0]):
                return digits(values[0])  # a year, a mobile telephone
            return _counted(values[0], after)


def _counted(value: str, after: str) -> str:
    return "两" if value == "2" and _COUNTED.match(after) else number(value)
