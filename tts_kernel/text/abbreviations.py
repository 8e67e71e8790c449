"""Abbreviations in Latin capitals, where Korean and Japanese name the letters their own way."""

from __future__ import annotations

import re

from tts_kernel.text.english_words import is_word
from tts_kernel.text.words import LETTERS

# Not a unit behind its number, and not one letter that begins English words
_CAPITALS = re.compile(r"(?<![\dA-Za-z°])(?<!\d )(?:[A-Z]{2,5}|[A-Z](?! [A-Za-z]{2}|'))(?![\dA-Za-z])")


def spell_abbreviations(text: str, language: str) -> str:
    """Two to five capitals that are no English word, and single ones, by the names of the letters in "ko" or "ja":
    KBS 케이비에스, NHK エヌエイチケー, but NASA as it is."""
    return _CAPITALS.sub(lambda found: _spelled(found.group(), language), text)


def _spelled(capitals: str, language: str) -> str:
    if len(capitals) > 1 and is_word(capitals):
        return capitals
    return "".join(LETTERS[language][letter] for letter in capitals)
