"""Japanese: kanji and numbers to kana by OpenJTalk, kana to MeloTTS's phones.

The package pyopenjtalk-plus ships its dictionary. It reads numbers with their counters (三本 サンボン) and writes them in
kanji, so the text it has read is the normalised one.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable
from typing import Any

from tts_kernel.text.english_words import is_word
from tts_kernel.text.expressions import Expression, find
from tts_kernel.text.pieces import MARKS, Piece, mark_or_unknown

_MONEY = {"USD": "ドル", "EUR": "ユーロ", "GBP": "ポンド", "YEN": "円", "JPY": "円", "KRW": "ウォン", "CNY": "元"}
_UNITS = {
    "km/h": "時速{}キロメートル", "m/s": "秒速{}メートル", "km2": "平方キロメートル", "m2": "平方メートル",
    "cm2": "平方センチメートル", "m3": "立方メートル", "km": "キロメートル", "cm": "センチメートル", "mm": "ミリメートル",
    "nm": "ナノメートル", "m": "メートル", "kg": "キログラム", "mg": "ミリグラム", "g": "グラム", "t": "トン",
    "ml": "ミリリットル", "l": "リットル", "dl": "デシリットル", "ha": "ヘクタール", "kb": "キロバイト", "mb": "メガバイト",
    "gb": "ギガバイト", "tb": "テラバイト", "ghz": "ギガヘルツ", "mhz": "メガヘルツ", "khz": "キロヘルツ", "hz": "ヘルツ",
    "kw": "キロワット", "w": "ワット", "kwh": "キロワットアワー", "mah": "ミリアンペアアワー", "v": "ボルト", "db": "デシベル",
    "kcal": "キロカロリー", "cal": "カロリー", "°c": "度", "°f": "華氏{}度", "°": "度", "fps": "フレーム毎秒",
    "ppm": "ピーピーエム", "min": "分", "sec": "秒", "ms": "ミリ秒",
}  # fmt: skip
_MAGNITUDES = {"thousand": "千", "million": "百万", "billion": "十億", "trillion": "兆"}
_SIGNS = {"%": "パーセント", "&": "アンド", "@": "アットマーク", "+": "プラス", "=": "イコール", "#": "シャープ", "°": "度", "×": "かける", "÷": "わる"}
_DIGITS = ("ゼロ", "イチ", "ニ", "サン", "ヨン", "ゴ", "ロク", "ナナ", "ハチ", "キュウ")
_LETTERS = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "エー ビー シー ディー イー エフ ジー エイチ アイ ジェー ケー エル エム エヌ オー ピー キュー アール エス ティー ユー ブイ "
        "ダブリュー エックス ワイ ゼット".split(),
        strict=True,
    )
)
_CAPITALS = re.compile(r"(?<![\dA-Za-z])(?<!\d )[A-Z]{1,5}(?![\dA-Za-z])")

_VOWELS = "aiueo"
_ROWS = {
    "": "アイウエオ", "k": "カキクケコ", "s": "サ シスセソ".replace(" ", ""), "t": "タ  テト", "n": "ナニヌネノ", "h": "ハヒ ヘホ",
    "m": "マミムメモ", "y": "ヤ ユ ヨ", "r": "ラリルレロ", "w": "ワ   ヲ", "g": "ガギグゲゴ", "z": "ザ ズゼゾ", "d": "ダ  デド",
    "b": "バビブベボ", "p": "パピプペポ",
}  # fmt: skip
_SMALL = {"ァ": "a", "ィ": "i", "ゥ": "u", "ェ": "e", "ォ": "o", "ャ": "a", "ュ": "u", "ョ": "o", "ヮ": "a"}
# Kana whose consonant is not their row's, and the consonant of a kana before a small one
_IRREGULAR = {
    "シ": "sh i", "チ": "ch i", "ツ": "ts u", "フ": "f u", "ジ": "j i", "ヂ": "j i", "ヅ": "z u", "ヴ": "b u", "ヰ": "i", "ヱ": "e",
    "ヲ": "o", "ン": "N", "ッ": "q", "ヵ": "k a", "ヶ": "k e",
}  # fmt: skip
_BEFORE_SMALL = {
    "キ": "ky", "ギ": "gy", "シ": "sh", "ジ": "j", "チ": "ch", "ヂ": "j", "ニ": "ny", "ヒ": "hy", "ビ": "by", "ピ": "py",
    "ミ": "my", "リ": "ry", "フ": "f", "ツ": "ts", "ヴ": "b", "ウ": "w", "イ": "y", "テ": "t", "デ": "d", "ト": "t", "ド": "d",
    "ク": "k w", "グ": "g w", "ス": "s", "ズ": "z",
}  # fmt: skip
_Y_BEFORE_SMALL = {"テ": "ty", "デ": "dy", "フ": "hy", "ヴ": "by"}  # before ャ, ュ, ョ


def prepare(text: str) -> str:
    """Before a sentence is split into spans: capitals that are no English word by the names of their letters."""
    return _CAPITALS.sub(lambda match: match.group() if is_word(match.group()) and len(match.group()) > 1 else spell(match.group()), text)


def spell(letters: str) -> str:
    """Capital letters by their Japanese names."""
    return "".join(_LETTERS[letter] for letter in letters)


def normalise(text: str) -> str:
    """Dates, units, money and signs as OpenJTalk reads them; it reads the numbers."""
    said, last = "", 0
    for found in find(text):
        said += text[last : found.start] + _say(found)
        last = found.end
    said += text[last:]
    for sign, word in _SIGNS.items():
        said = said.replace(sign, word)
    return said


def pronounce(text: str) -> list[Piece]:
    """A normalised text -> its words, as OpenJTalk cuts and writes them, and marks."""
    pieces: list[Piece] = []
    for part in re.split(f"([{re.escape(''.join(MARKS))}\\s])", text):
        if part in MARKS or part.isspace():
            pieces.append(mark_or_unknown(part))
        elif part:
            pieces += _words(part)
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
            consonant = _Y_BEFORE_SMALL.get(letter, _BEFORE_SMALL[letter]) if small in "ャュョ" else _BEFORE_SMALL[letter]
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
    return regular | {letter: [vowel] for letter, vowel in _SMALL.items()} | {k: v.split() for k, v in _IRREGULAR.items()}


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


def _say(found: Expression) -> str:
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
            return first + _MAGNITUDES.get(found.magnitude, "") + _MONEY[found.unit]
        case "range":
            return f"{values[0]}から{values[1]}"
        case "percent":
            return f"{first}パーセント"
        case "measure":
            unit = _UNITS[found.unit]
            return unit.format(first) if "{}" in unit else first + unit
        case "fraction":
            return f"{values[1]}分の{values[0]}"
        case "ordinal":
            return f"第{values[0]}"
        case _:
            return first
