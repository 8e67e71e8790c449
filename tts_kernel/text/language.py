"""Which language a sentence is written in, told by its script: Korean, English, Chinese or Japanese.

Every code point belongs to one class. A sentence is in the language whose letters say most of it, where a Latin letter
counts for a third: three of them say about what one syllable or character of the other scripts does. Kana make the
characters beside them Japanese; without kana a text of Chinese characters is called Chinese, although it may be
Japanese (`fits` allows for it). `spans` splits a sentence that mixes languages.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LANGUAGES = ("ko", "en", "zh", "ja")
OTHER = "other"  # letters of another script; no letters at all is ""
CLASSES = ("rest", "space", "digit", "latin", "hangul", "kana", "han", "other", "control")
REST, SPACE, DIGIT, LATIN, HANGUL, KANA, HAN, OTHER_LETTER, CONTROL = range(len(CLASSES))
LATIN_PER_SYLLABLE = 3.0
KANA_SHARE = 0.1  # of kana and Chinese characters, from which the characters count as Japanese
HAN_LETTER = "han"  # not yet known whether Chinese or Japanese
_NAMED = {LATIN: "en", DIGIT: "en", HANGUL: "ko", KANA: "ja", HAN: HAN_LETTER}
_CHARACTERS = re.compile(
    "[\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_AT_ONCE = 100_000  # texts per step: bounds memory to a few hundred MB

_NAMES = {
    "ko": ("ko", "kr", "kor", "korean"),
    "en": ("en", "eng", "english"),
    "zh": ("zh", "cn", "cmn", "zho", "chi", "chinese", "mandarin"),
    "ja": ("ja", "jp", "jpn", "japanese"),
}
_RANGES = {  # code points, hexadecimal, both ends belong
    LATIN: "41-5A 61-7A AA-AA BA-BA C0-D6 D8-F6 F8-24F 1E00-1EFF FF21-FF3A FF41-FF5A",
    HANGUL: "1100-11FF 3131-318E A960-A97C AC00-D7A3 D7B0-D7FB FFA1-FFDC",
    KANA: "3041-3096 309D-309F 30A1-30FA 30FC-30FF 31F0-31FF FF66-FF9D",
    HAN: "3005-3007 3105-312F 3400-4DBF 4E00-9FFF F900-FAFF 20000-3FFFF",
    # controls, zero-width and direction marks, private use, and U+FFFD, which stands for bytes that were lost
    CONTROL: "0-1F 7F-9F 200B-200F 2028-202E 2060-2069 D800-F8FF FEFF-FEFF FFF0-FFFB FFFD-FFFF E0000-10FFFF",
}


def canonical(name: str) -> str:
    """A corpus's name of a language ("KR", "zh-CN", "jpn") -> ko, en, zh or ja; a name of another one, in lower
    case, as it is."""
    plain = name.strip().lower().replace("_", "-")
    base = plain.split("-")[0]
    return next((language for language, names in _NAMES.items() if base in names), plain)


def detect(sentence: str) -> str:
    """ko, en, zh, ja, "other" for letters of another script, "" without letters."""
    return str(languages_of(count_classes(pa.array([sentence])))[0])


@dataclass(frozen=True)
class Span:
    """A part of a sentence that is read in one language."""

    language: str
    start: int
    end: int


def spans(sentence: str, main: str, whole: Sequence[tuple[int, int]] = ()) -> list[Span]:
    """Split a sentence whose language is `main` where its script changes; the spans cover it.

    Hangul is Korean and kana are Japanese. Latin letters, and digits glued to them ("MP3"), are English. Chinese
    characters belong to a Chinese or Japanese sentence; in another one they are Japanese where kana touch them, else
    Chinese. The (start, end) in `whole`, such as a number and its unit, stay in one piece: in the language that
    stands on both sides, or else in `main`. Spaces and punctuation follow what precedes them.
    """
    letters: list[str] = [_NAMED.get(kind, "") for kind in _table()[[ord(letter) for letter in sentence]].tolist()]
    for run in _CHARACTERS.finditer(sentence):
        japanese = main == "ja" or (main != "zh" and any(letters[place] == "ja" for place in range(*run.span())))
        for place in range(*run.span()):
            if letters[place] == HAN_LETTER:
                letters[place] = "ja" if japanese else "zh"
    for start, end in whole:
        letters[start:end] = [""] * (end - start)
    following = [*letters, main]  # the language of the next letter
    for place in range(len(letters) - 1, -1, -1):
        following[place] = following[place] or following[place + 1]
    for start, end in whole:
        before = next((letters[place] for place in range(start - 1, -1, -1) if letters[place]), main)
        letters[start:end] = [before if before == following[end] else main] * (end - start)
    said = next((name for name in letters if name), main)
    for place, name in enumerate(letters):
        said = letters[place] = name or said
    groups = [
        (name, [place for place, _ in items]) for name, items in groupby(enumerate(letters), lambda item: item[1])
    ]
    return [Span(name, places[0], places[-1] + 1) for name, places in groups]


def count_classes(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(texts,) -> (texts, len(CLASSES)) int32: how many code points of each class a text has; nulls have none."""
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    counts = [_count(chunk.slice(start, _AT_ONCE)) for chunk in chunks for start in range(0, len(chunk), _AT_ONCE)]
    return np.concatenate(counts) if counts else np.zeros((0, len(CLASSES)), np.int32)


def _count(texts: pa.Array) -> np.ndarray:
    texts = pc.fill_null(texts.cast(pa.large_string()), "")
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False)
    begin, *_, end = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    written = texts.buffers()[2]
    whole = memoryview(written)[begin:end].tobytes() if written is not None else b""
    # Half of a surrogate pair can come out of a JSON escape: it stays one code point, of the class of controls.
    points = np.frombuffer(whole.decode("utf-8", "surrogatepass").encode("utf-32-le", "surrogatepass"), np.uint32)
    place = np.repeat(np.arange(len(texts)) * len(CLASSES), lengths)
    place += _table()[points]
    return np.bincount(place, minlength=len(texts) * len(CLASSES)).reshape(-1, len(CLASSES)).astype(np.int32)


def letters(counts: np.ndarray) -> np.ndarray:
    """(texts, classes) -> (texts,): what is spoken, letters and digits without spaces and punctuation."""
    return counts[:, [DIGIT, LATIN, HANGUL, KANA, HAN, OTHER_LETTER]].sum(axis=1)


def languages_of(counts: np.ndarray) -> np.ndarray:
    """(texts, classes) of `count_classes` -> (texts,) names as `detect` gives them."""
    kana, han = counts[:, KANA], counts[:, HAN]
    japanese = (kana > 0) & (kana >= KANA_SHARE * (kana + han))
    scores = np.column_stack(
        [
            counts[:, HANGUL],
            counts[:, LATIN] / LATIN_PER_SYLLABLE,
            np.where(japanese, 0, han + kana),
            np.where(japanese, kana + han, 0),
            counts[:, OTHER_LETTER] / LATIN_PER_SYLLABLE,
        ]
    )
    names = np.array([*LANGUAGES, OTHER])[scores.argmax(axis=1)]
    return np.where(scores.max(axis=1) > 0, names, "")


def fits(claimed: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(texts,) canonical languages, (texts, classes) -> (texts,) bool: the script does not speak against the claim.
    True where nothing can be said: a language that is not one of the four, no letters, Chinese characters alone for
    Japanese."""
    found = languages_of(counts)
    unknown = ~np.isin(claimed, LANGUAGES) | (found == "")
    characters_only = (claimed == "ja") & (found == "zh") & (counts[:, KANA] == 0)
    return unknown | characters_only | (found == claimed)


@functools.cache
def _table() -> np.ndarray:
    """(0x110000,) uint8: the class of every code point."""
    table = np.zeros(0x110000, np.uint8)
    for point in range(0x2FFFF):
        category = unicodedata.category(chr(point))
        if category[0] == "L":
            table[point] = OTHER_LETTER
        elif category == "Nd":
            table[point] = DIGIT
        elif category == "Zs":
            table[point] = SPACE
    for kind, ranges in _RANGES.items():
        for span in ranges.split():
            first, last = (int(end, 16) for end in span.split("-"))
            table[first : last + 1] = kind
    return table
