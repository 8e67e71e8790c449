"""Japanese: kanji and numbers to kana by OpenJTalk, kana to MeloTTS's phones.

The package pyopenjtalk-plus ships its dictionary. It reads numbers with their counters (三本 サンボン) and writes
them in kanji, so the text that it has read is the normalised one.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable
from typing import Any

from tts_kernel.text.abbreviations import spell_abbreviations
from tts_kernel.text.expressions import Expression, rewrite
from tts_kernel.text.pieces import MARKS, Piece, mark_or_unknown
from tts_kernel.text.words import MAGNITUDES, MONEY, UNITS, say_signs

_DIGITS = ("ゼロ", "イチ", "ニ", "サン", "ヨン", "ゴ", "ロク", "ナナ", "ハチ", "キュウ")
_BETWEEN = re.compile(rf"((?!(?<=\d)\.(?=\d))[{re.escape(''.join(MARKS))}\s])")  # marks; a decimal point is none
_AT_ONCE = 500  # characters without a mark between them; OpenJTalk refuses more than 8 kB, numbers written out

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
    said = re.sub(r"(時速|秒速)\1", r"\1", rewrite(text, _say))  # 時速100km/h
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
    for word in _frontend()(text, predict_nani=False):  # a guess that onnxruntime, if installed, would change
        written, kana = word["string"], word["pron"].replace("’", "")  # ’ marks a vowel without voice
        phones = phones_of(kana)
        if phones:
            pieces.append(Piece(written, phones, (0,) * len(phones)))
        else:
            pieces += [mark_or_unknown(letter) for letter in written]
    return pieces


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


def _say(found: Expression, _: str) -> str:
    values = found.values
    first = f"マイナス{values[0][1:]}" if values[0].startswith("-") else values[0]
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
        case "money":
            return first + MAGNITUDES["ja"].get(found.magnitude, "") + MONEY["ja"][found.unit]
        case "range":
            return f"{values[0]}から{values[1]}"
        case "percent":
            return f"{first}パーセント"
        case "measure":
            unit = UNITS["ja"][found.unit]
            return unit.format(first) if "{}" in unit else first + unit
        case "fraction":
            return f"{values[1]}分の{values[0]}"
        case "ordinal":
            return f"第{values[0]}"
        case _:
            return first
