"""English: numbers, abbreviations and signs in words, words in phones."""

from __future__ import annotations

import re
import unicodedata

from tts_kernel.text.english_numbers import number, say
from tts_kernel.text.english_words import say_word
from tts_kernel.text.expressions import rewrite
from tts_kernel.text.pieces import Piece, mark_or_unknown
from tts_kernel.text.words import say_signs

ABBREVIATIONS = {
    "mr.": "mister", "mrs.": "missus", "ms.": "miz", "dr.": "doctor", "prof.": "professor", "st.": "saint",
    "jr.": "junior", "sr.": "senior", "vs.": "versus", "etc.": "et cetera", "e.g.": "for example", "i.e.": "that is",
    "approx.": "approximately", "dept.": "department", "inc.": "incorporated", "ltd.": "limited", "co.": "company",
    "corp.": "corporation", "mt.": "mount", "ave.": "avenue", "blvd.": "boulevard", "gen.": "general",
    "capt.": "captain", "sgt.": "sergeant", "lt.": "lieutenant", "rev.": "reverend", "hon.": "honorable",
    "jan.": "January", "feb.": "February", "aug.": "August", "sept.": "September", "oct.": "October",
    "nov.": "November", "dec.": "December",
}  # fmt: skip
_ABBREVIATED = re.compile(
    rf"(?<![\w.])(?:{'|'.join(re.escape(short) for short in sorted(ABBREVIATIONS, key=len, reverse=True))})(?!\w)", re.I
)
_DOTTED = re.compile(r"(?<![\w.])(?:[A-Za-z]\.){2,}")  # U.S., p.m.
_WORDS = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*'?|.", re.DOTALL)
_UNACCENTED = {"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "Oe", "đ": "d", "ł": "l", "Ł": "L"}
_UNACCENTED |= {"ð": "th", "þ": "th", "ı": "i"}
_PLAIN = str.maketrans(_UNACCENTED)


def normalise(text: str) -> str:
    """Abbreviations, numbers, units, money and signs in words; letters without their accents."""
    letters = unicodedata.normalize("NFD", text.translate(_PLAIN))
    text = "".join(letter for letter in letters if not unicodedata.combining(letter))
    text = text.replace("’", "'").replace("‘", "'")
    text = _ABBREVIATED.sub(lambda match: ABBREVIATIONS[match.group().lower()], text)
    text = re.sub(r"\b[Nn]o\.(?=\s?\d)", "number", text)
    text = _DOTTED.sub(lambda match: " ".join(match.group().upper().replace(".", "")), text)
    text = re.sub(r"(?<=\d) (?=\d/\d)", " and ", text)  # 2 1/2
    said = say_signs(rewrite(text, say), "en")
    said = re.sub(r"\d+", lambda match: f" {number(match.group())} ", said)  # glued to letters: MP3
    return re.sub(r" +([,.!?])", r"\1", re.sub(" +", " ", said))


def pronounce(text: str) -> list[Piece]:
    """A normalised text -> its words and marks. A hyphen or an apostrophe inside a word is not said."""
    pieces = []
    for match in _WORDS.finditer(text):
        word = match.group()
        if word[0].isascii() and word[0].isalpha():
            quoted = word.endswith("'") and not word.lower().endswith("s'")
            phones, tones = say_word(word[:-1] if quoted else word)
            pieces.append(Piece(word[:-1] if quoted else word, phones, tones))
            pieces += [mark_or_unknown("'")] if quoted else []
        elif (
            word == "-" and text[max(match.start() - 1, 0)].isalpha() and text[match.end() : match.end() + 1].isalpha()
        ):
            pieces.append(Piece(word))
        else:
            pieces.append(mark_or_unknown(word))
    return pieces
