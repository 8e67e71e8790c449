"""A text cut into sentences, each short enough to be spoken in one go."""

from __future__ import annotations

import re

from tts_kernel.text.english import ABBREVIATIONS

LONGEST = 200  # characters of a sentence; longer ones are cut at a pause

_END = re.compile(r"(?:[.!?…]+[\"”’'」』)\]]*(?=\s|$)|[。！？｡]+[”’」』）)]*|\n+)")
_PAUSES = (re.compile(r"[,;:、，；：](?!\d)\s*"), re.compile(r"\s+"))


def split_sentences(text: str, longest: int = LONGEST) -> list[str]:
    """The sentences of a text, in order. Nothing is lost but the white space between them.
    A full stop ends one only before a space, not after an abbreviation or an initial (Dr. Smith, J. Smith), and not
    between numbers (2026. 11. 21)."""
    sentences: list[str] = []
    start = 0
    for end in _END.finditer(text):
        if end.group()[0] == "\n" or not _is_abbreviated(text[start : end.end()], text[end.end() :][:2]):
            sentences.append(text[start : end.end()])
            start = end.end()
    sentences.append(text[start:])
    return [part for sentence in sentences for part in _shortened(sentence.strip(), longest) if part]


def _is_abbreviated(sentence: str, after: str) -> bool:
    words = sentence.split()
    word = words[-1].lower().lstrip("(\"'“‘") if words else ""
    if after.strip().isdigit() and re.fullmatch(r"\d+\.|no\.", word):
        return True
    return word in ABBREVIATIONS or re.fullmatch(r"(?:[a-z]\.)+", word) is not None


def _shortened(sentence: str, longest: int) -> list[str]:
    """Cut at the last comma that fits, else at the last space, else where it becomes too long."""
    parts: list[str] = []
    while len(sentence) > longest:
        ends = next((found for pause in _PAUSES if (found := _ends(pause, sentence, longest))), [longest])
        parts.append(sentence[: ends[-1]].strip())
        sentence = sentence[ends[-1] :].strip()
    return [*parts, sentence]


def _ends(pause: re.Pattern[str], sentence: str, longest: int) -> list[int]:
    return [found.end() for found in pause.finditer(sentence) if 0 < found.end() <= longest]
