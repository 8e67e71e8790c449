"""Japanese: kanji and numbers to kana by OpenJTalk, kana to MeloTTS's phones.

The package pyopenjtalk-plus ships its dictionary. It reads numbers with their counters (三本 サンボン) and writes
them in kanji, so the text that it has read is the normalised one.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from tts_kernel.text.abbreviations import spell_abbreviations
from tts_kernel.text.expressions import Expression, rewrite
from tts_kernel.text.pieces import MARKS, Piece, mark_or_unknown
from tts_kernel.text.words import MONEY, UNITS, say_signs

_DIGITS = ("ゼロ", "イチ", "ニ", "サン", "ヨン", "ゴ", "ロク", "ナナ", "ハチ", "キュー")
_BETWEEN = re.compile(rf"((?!(?<=\d)\.(?=\d))[{re.escape(''.join(MARKS))}\s])")  # marks; a decimal point is none
_AT_ONCE = 500  # characters without a mark between them; OpenJTalk refuses more than 8 kB, numbers written out

_READINGS = {"明後日": "アサッテ", "八百": "ハッピャク"}  # of words alone, where OpenJTalk has a rarer one
_NAN = tuple("デダナノトッ")  # before them 何 is ナン: 何ですか, 何って
_TEN_MINUTES = ("かか", "前", "後", "間", "ほど", "以内", "おき", "遅")  # behind 十分, which else is ジューブン, enough
_EIGHT = {"分": "プン", "個": "コ"}  # after ハッ
_AS_A_WORD = {"20歳": "二十歳", "100均": "百均"}  # with digits they would be counted
_VOWELS = "aiueo"
_ROWS = {  # a, i, u, e, o; kana with another consonant than their row's are below
    "": "アイウエオ", "k": "カキクケコ", "s": "サ スセソ", "t": "タ  テト", "n": "ナニヌネノ", "h": "ハヒ ヘホ",
    "m": "マミムメモ", "y": "ヤ ユ ヨ", "r": "ラリルレロ", "w": "ワ    ", "g": "ガギグゲゴ", "z": "ザ ズゼゾ",
    "d": "ダ  デド", "b": "バビブベボ", "p": "パピプペポ",
}  # fmt: skip
_SMALL = {"ァ": "a", "ィ": "i", "ゥ": "u", "ェ": "e", "ォ": "o", "ャ": "a", "ュ": "u", "ョ": "o", "ヮ": "a"}
_IRREGULAR = {
    "シ": "sh i", "チ": "ch i", "ツ": "ts u", "フ": "f u", "ジ": "j i", "ヂ": "j i", "ヅ": "z u", "ヴ": "b u",
    "ヰ": "i", "ヱ": "e", "ヲ": "o", "ン": "N", "ッ": "q", "ヵ": "k a", "ヶ": "k e",
}  # fmt: skip
_BEFORE_SMALL = {  # the consonant of a kana before a small vowel
    "キ": "ky", "ギ": "gy", "シ": "sh", "ジ": "j", "チ": "ch", "ヂ": "j", "ニ": "ny", "ヒ": "hy", "ビ": "by",
    "ピ": "py", "ミ": "my", "リ": "ry", "フ": "f", "ツ": "ts", "ヴ": "b", "ウ": "w", "イ": "y", "テ": "t", "デ": "d",
    "ト": "t", "ド": "d", "ク": "k w", "グ": "g w", "ス": "s", "ズ": "z",
}  # fmt: skip
_Y_BEFORE_SMALL = {"テ": "ty", "デ": "dy", "フ": "hy", "ヴ": "by"}  # before ャ, ュ, ョ


def prepare(text: str) -> str:
    """Before a sentence is split into spans: capitals that are no English word by the names of their letters."""
    return spell_abbreviations(text, "ja")


def normalise(text: str) -> str:
    """Dates, units, money and signs as OpenJTalk reads them; it reads the numbers."""
    text = re.sub(rf"(?<![\d.,])(?:{'|'.join(_AS_A_WORD)})", lambda word: _AS_A_WORD[word.group()], text)
    said = re.sub(r"(時速|秒速)\1", r"\1", rewrite(text, _say))  # 時速100km/h
    said = re.sub(r"(?<=[ぁ-ゖァ-ヺー])[〜~]+(?![\u3400-\u9fff])", "ー", said)  # お〜い, but not タワー〜駅
    return say_signs(said, "ja")


def pronounce(text: str) -> list[Piece]:
    """A normalised text -> its words, as OpenJTalk cuts and writes them, and marks."""
    pieces: list[Piece] = []
    for part in _BETWEEN.split(text):
        if part in MARKS or part.isspace():
            pieces.append(mark_or_unknown(part))
        else:
            for start in range(0, len(part), _AT_ONCE):
                pieces += _words(part[start : start + _AT_ONCE])
    return _lengthened(pieces)


def phones_of(kana: str) -> tuple[str, ...] | None:
    """Katakana as it is spoken -> phones: トーキョー t o: ky o:, ハッピ h a q p i. None if it is not katakana.

    A long vowel is one phone; ー at the beginning, which lengthens what came before, is ":".
    """
    phones: list[str] = []
    place = 0
    while place < len(kana):
        letter, small = kana[place], kana[place + 1 : place + 2]
        if letter == "ー":
            lengthened = phones.pop() if phones else ""
            phones += [lengthened] if lengthened in ("N", "q") else [f"{lengthened.rstrip(':')}:"]
        elif small in _SMALL and letter in _BEFORE_SMALL:
            consonant = (
                _Y_BEFORE_SMALL.get(letter, _BEFORE_SMALL[letter]) if small in "ャュョ" else _BEFORE_SMALL[letter]
            )
            phones += [*consonant.split(), _SMALL[small]]
            place += 1
        elif letter in _table():
            phones += _table()[letter]
        else:
            return None
        place += 1
    return tuple(phones)


@functools.cache
def _table() -> dict[str, list[str]]:
    regular = {
        letter: f"{consonant} {vowel}".split()
        for consonant, row in _ROWS.items()
        for letter, vowel in zip(row, _VOWELS, strict=True)
        if letter != " "
    }
    small = {letter: [vowel] for letter, vowel in _SMALL.items()}
    return regular | small | {letter: phones.split() for letter, phones in _IRREGULAR.items()}


def _words(text: str) -> list[Piece]:
    pieces = []
    words = _frontend()(text, predict_nani=False)  # a guess that onnxruntime, if installed, would change
    spoken = [word["pron"].replace("’", "") for word in words]  # ’ marks a vowel without voice
    _correct([word["string"] for word in words], spoken)
    for word, kana in zip(words, spoken, strict=True):
        written, phones = word["string"], phones_of(kana)
        if phones:
            pieces.append(Piece(written, phones, (0,) * len(phones)))
        else:
            pieces += [mark_or_unknown(letter) for letter in written]
    return pieces


def _correct(written: list[str], spoken: list[str]) -> None:
    """Readings that follow from the next word, and those of single words."""
    for place, word in enumerate(written):
        following = place + 1 < len(written)
        if word == "何" and spoken[place] == "ナニ" and following and spoken[place + 1].startswith(_NAN):
            spoken[place] = "ナン"
        elif word == "十分" and following and written[place + 1].startswith(_TEN_MINUTES):
            spoken[place] = "ジュップン"
        elif word == "何" and following and written[place + 1] == "色":
            spoken[place : place + 2] = ["ナニ", "イロ"]
        elif word == "八" and following and written[place + 1] in _EIGHT:
            spoken[place : place + 2] = ["ハッ", _EIGHT[written[place + 1]]]
        elif word in _READINGS:
            spoken[place] = _READINGS[word]


def _lengthened(pieces: list[Piece]) -> list[Piece]:
    """A word that begins with ー lengthens the vowel before it, or is not said."""
    done: list[Piece] = []
    for piece in pieces:
        if piece.phones[:1] == (":",):
            last = done[-1] if done else Piece("")
            if last.phones and last.phones[-1] in tuple(_VOWELS):
                done[-1] = Piece(last.text, (*last.phones[:-1], f"{last.phones[-1]}:"), last.tones)
            piece = Piece(piece.text, piece.phones[1:], piece.tones[1:], unknown=not last.phones)
        done.append(piece)
    return done


@functools.cache
def _frontend() -> Callable[..., list[Any]]:
    """`pyopenjtalk.run_frontend`, imported when first needed: it takes a second."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that onnxruntime is missing
        import pyopenjtalk
    return pyopenjtalk.run_frontend


def _say(found: Expression, before: str, after: str) -> str:
    values = found.values
    match found.kind:
        case "date":
            return "{}年{}月{}日".format(*(int(value) for value in values))
        case "time":
            clock = [f"{int(value)}{unit}" for value, unit in zip(values, "時分秒", strict=False)]
            return "".join(part for place, part in enumerate(clock) if not place or int(values[place]))
        case "telephone" | "digits":
            return "、".join("".join(_DIGITS[int(digit)] for digit in value) for value in values)
        case "version":
            return "テン".join(values)
        case "score":
            return "対".join(values)
        case "money":
            return _range(found.amounts) + MONEY["ja"][found.unit]
        case "percent":
            return f"{_range(values)}パーセント"
        case "measure":
            unit, said = UNITS["ja"][found.unit], _range(values)
            return unit.format(said) if "{}" in unit else said + unit
        case "fraction":
            return f"{values[1]}分の{values[0]}"
        case "ordinal":
            return f"第{values[0]}"
        case _:
            return _range(values)


def _range(values: Sequence[str]) -> str:
    return "から".join(value.replace("-", "マイナス") for value in values)
