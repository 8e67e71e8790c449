"""A sentence cut into pieces that have a pronunciation each, and what punctuation becomes."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from tts_kernel.text.symbols import PUNCTUATION

# Marks of every language -> the seven that models know. Quotation marks and brackets are "'", as in MeloTTS's corpora.
MARKS = {
    **{mark: mark for mark in PUNCTUATION},
    **dict.fromkeys("、，;:·・•/|\\", ","),
    **dict.fromkeys("。．\u0964", "."),
    **dict.fromkeys("⋯‥", "…"),
    **dict.fromkeys("–—―−~〜_〰‐‑", "-"),
    **dict.fromkeys('"“”„‘’‚‛«»‹›「」『』《》〈〉【】〔〕〖〗()[]{}`´′″', "'"),
    **dict.fromkeys("¡", "!"),
    **dict.fromkeys("¿", "?"),
}
_SPACED = str.maketrans({"´": "'", "゛": "\u3099", "゜": "\u309a"})  # NFKC would put a space before them
_FRACTION = re.compile("([0-9])([½⅓⅔¼¾⅛])")  # NFKC would make 21/2 of 2½


@dataclass(frozen=True)
class Piece:
    """A part of a normalised text and how it is said; the texts of a sentence's pieces make up the sentence."""

    text: str
    phones: tuple[str, ...] = ()  # none for a space
    tones: tuple[int, ...] = ()  # one each, counted within the language
    unknown: bool = False  # nobody knows how to say it


def mark_or_unknown(character: str) -> Piece:
    """A character that is no letter of the language: a space, a mark, or what cannot be said."""
    if character.isspace():
        return Piece(character)
    mark = MARKS.get(character)
    return Piece(character, unknown=True) if mark is None else Piece(character, (mark,), (0,))


def clean(text: str) -> str:
    """One way of writing each character: NFKC, one space for any white space, an ellipsis for several dots, and none
    of the characters that have neither width nor sound (joiners, direction marks, variation selectors)."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # half a pair is no character
    text = text.translate(_SPACED)
    text = _FRACTION.sub(r"\1 \2", text)
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/")
    text = "".join(letter for letter in text if letter.isspace() or not _invisible(letter))
    for dots in ("...", "。。。", "・・・"):
        text = text.replace(dots, "…")
    return " ".join(re.sub("…+", "…", text).split())


def _invisible(letter: str) -> bool:
    return (
        unicodedata.category(letter) == "Cf" or "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"
    )
