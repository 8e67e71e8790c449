"""From a sentence to what MeloTTS reads: phones, tones and languages, and which text token each phone belongs to.

    sentence -> clean -> spans, one language each -> normalised -> pieces -> Phones -> PhoneIds

Mixed sentences are split where their script changes (`language.spans`); a language that is given says how Chinese
characters, numbers and signs are read. What cannot be said (emoji, other scripts) is reported with the sentence.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from tts_kernel.text import chinese, english, japanese, korean
from tts_kernel.text.expressions import find
from tts_kernel.text.language import LANGUAGES, canonical, detect, spans
from tts_kernel.text.pieces import MARKS, Piece, clean
from tts_kernel.text.symbols import PAD, SYMBOLS, Symbols, UnknownSymbolError, language_ids, tone_ids
from tts_kernel.text.words import say_half_days

Unknown = Literal["refuse", "leave out"]


class TextError(ValueError):
    """A sentence that cannot be spoken; the message quotes it."""


@dataclass(frozen=True)
class Phones:
    """A sentence in phones. The sequences are of one length; the first and the last phone are the symbol for none."""

    text: str  # normalised: what the text encoder reads
    language: str  # of the sentence
    phones: tuple[str, ...]
    tones: tuple[int, ...]  # counted within the language
    languages: tuple[str, ...]
    places: tuple[float, ...]  # where in `text` each is said, in characters: 2.5 is the middle of the third
    left_out: tuple[str, ...] = ()  # characters that nobody knows how to say

    def __len__(self) -> int:
        return len(self.phones)


@dataclass(frozen=True)
class PhoneIds:
    """The rows of a model's embeddings, (phones,) int64 each."""

    phones: np.ndarray
    tones: np.ndarray
    languages: np.ndarray


def to_phones(
    text: str, language: str | None = None, *, symbols: Symbols = SYMBOLS, unknown: Unknown = "refuse"
) -> Phones:
    """The phones of a sentence in `language` (any name of Korean, English, Chinese or Japanese: ko, KR, korean), or in
    the language that its script shows.

    Raises TextError for a text without anything to say, or whose language is not one of the four or cannot be told;
    UnknownSymbolError naming every character that cannot be said, unless those are to be left out.
    """
    cleaned = clean(text)
    main = _language(cleaned, language)
    pieces = _pieces(cleaned, main, symbols)
    left_out = tuple(piece.text for _, piece in pieces if piece.unknown)
    if left_out and unknown == "refuse":
        raise UnknownSymbolError(
            f"{_quoted(text)}: cannot say {', '.join(_named(piece) for piece in dict.fromkeys(left_out))}; expected "
            "Korean, English, Chinese or Japanese text; take them out, or pass unknown='leave out'"
        )
    if not any(set(piece.phones) - set(MARKS.values()) for _, piece in pieces):
        raise TextError(f"{_quoted(text)}: nothing to say in it; expected at least one letter or digit")

    phones, tones, languages, places = [PAD], [0], [pieces[0][0]], [-1.0]
    start = 0
    for name, piece in pieces:
        count = len(piece.phones)
        phones += piece.phones
        tones += piece.tones
        languages += [name] * count
        places += [start + len(piece.text) * (index + 0.5) / count for index in range(count)]
        start += len(piece.text)
    normalised = "".join(piece.text for _, piece in pieces)
    return Phones(
        normalised,
        main,
        (*phones, PAD),
        (*tones, 0),
        (*languages, pieces[-1][0]),
        (*places, float(len(normalised))),
        left_out,
    )


def to_ids(said: Phones, symbols: Symbols = SYMBOLS, *, blanks: bool = True) -> PhoneIds:
    """Rows of the embeddings; with `blanks`, one between any two phones and at both ends, n -> 2 n + 1.
    Raises UnknownSymbolError for a phone that the table does not have."""
    rows = (symbols.ids(said.phones, said.text), tone_ids(said.tones, said.languages), language_ids(said.languages))
    return PhoneIds(*(with_blanks(row) if blanks else row for row in rows))


def with_blanks(row: np.ndarray) -> np.ndarray:
    """(phones,) -> (2 phones + 1,), with 0 before, between and after."""
    wide = np.zeros(2 * len(row) + 1, dtype=row.dtype)
    wide[1::2] = row
    return wide


def word2ph(said: Phones, tokens: Sequence[tuple[int, int]], *, blanks: bool = True) -> np.ndarray:
    """How many phones belong to each token of a tokenizer that has read `said.text`, given the (start, end) of its
    tokens, those before and after the text (<s>, </s>) included -> (tokens,) int64; the sum is the number of phones.

    A word that is cut gives each token the phones that lie nearest to it, a token over several words gets those of
    all; so tokens may be without phones, phones are never without a token. Blanks belong to the phone that they follow,
    the first one to the first phone.
    Raises TextError unless there are at least the two tokens at the ends.
    """
    if len(tokens) < 2:
        raise TextError(f"{_quoted(said.text)}: {len(tokens)} tokens, expected at least <s> and </s>")
    counts = np.zeros(len(tokens), dtype=np.int64)
    counts[0] = counts[-1] = 1
    if len(tokens) == 2:
        counts[0] += len(said) - 2
    else:
        # A place in a gap, such as a space, belongs to the token before it.
        starts = np.array([start for start, _ in tokens[1:-1]])
        inner = np.searchsorted(starts, np.array(said.places[1:-1]), side="right") - 1
        np.add.at(counts, 1 + np.clip(inner, 0, len(starts) - 1), 1)
    if blanks:
        counts *= 2
        counts[0] += 1
    return counts


def spread(hidden: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(tokens, width) features and (tokens,) phones of each -> (width, phones): what the text encoder takes."""
    return np.repeat(hidden, counts, axis=0).T


def _language(text: str, language: str | None) -> str:
    if language is not None and language.strip():
        main = canonical(language)
        if main not in LANGUAGES:
            raise TextError(
                f"language {language!r} of {_quoted(text)}: expected KR, EN, ZH or JP, or none to detect it"
            )
        return main
    if not text.strip():
        raise TextError(f"{_quoted(text)}: nothing to say in it; expected at least one letter or digit")
    main = detect(text)
    if not main and any(letter.isdigit() for letter in text):
        raise TextError(f"{_quoted(text)}: no letter shows its language; pass KR, EN, ZH or JP")
    return main if main in LANGUAGES else "en"  # what it holds instead is reported as unknown


def _pieces(text: str, main: str, symbols: Symbols) -> list[tuple[str, Piece]]:
    """(language, piece) of a clean text; their texts make up the normalised one."""
    if main != "en":
        text = say_half_days(text, main)
    if main == "ko":
        text = korean.prepare(text)
    elif main == "ja":
        text = japanese.prepare(text)
    whole = [(found.start, found.end) for found in find(text)]
    readers: dict[str, tuple[Callable[[str], str], Callable[[str], list[Piece]]]] = {
        "ko": (korean.normalise, partial(korean.pronounce, all_finals=symbols.has_all_finals)),
        "en": (english.normalise, english.pronounce),
        "zh": (chinese.normalise, chinese.pronounce),
        "ja": (japanese.normalise, japanese.pronounce),
    }
    pieces: list[tuple[str, Piece]] = []
    for span in spans(text, main, whole):
        normalise, pronounce = readers[span.language]
        normalised = normalise(text[span.start : span.end])
        pieces += [(span.language, piece) for piece in pronounce(normalised if pieces else normalised.lstrip())]
    return pieces


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


def _named(character: str) -> str:
    names = ", ".join(f"U+{ord(letter):04X} {unicodedata.name(letter, 'without a name')}" for letter in character)
    return f"{character!r} ({names})"
