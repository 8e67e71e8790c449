"""What is spoken in one go: as many sentences as a model takes tokens."""

from __future__ import annotations

from collections.abc import Callable

from tts_kernel.text.sentences import split_sentences


def spoken_parts(text: str, longest: int, length: Callable[[str], int] = len) -> list[str]:
    """Parts of `text` in order, each filled up with sentences to at most `longest` by `length`. A sentence that is too
    long alone is cut at commas, then at spaces, then anywhere. Runs of white space become one space, and a part of
    marks alone is left out, for there is nothing to say; else nothing is lost.
    Raises ValueError for a text without a letter or digit, and if `longest` is below 1."""
    if longest < 1:
        raise ValueError(f"longest is {longest}, expected at least 1")
    if not _says_something(text):
        raise ValueError(f"text {text!r:.60} has no letter or digit; there is nothing to say")
    places: list[tuple[int, int]] = []
    end = 0
    for sentence in split_sentences(text, len(text)):
        for piece in _fitting(sentence, longest, length):
            start = text.index(piece, end)
            end = start + len(piece)
            if places and length(_plain(text[places[-1][0] : end])) <= longest:
                start = places.pop()[0]
            places.append((start, end))
    parts = (_plain(text[start:end]) for start, end in places)
    return [part for part in parts if _says_something(part)]


def _fitting(sentence: str, longest: int, length: Callable[[str], int]) -> list[str]:
    """A sentence whole, or cut into pieces that are short enough, unless a single character is too long."""
    characters = len(sentence)
    while True:
        pieces = split_sentences(sentence, characters)
        most = max(length(piece) for piece in pieces)
        if most <= longest or characters == 1:
            return pieces
        characters = max(1, characters * longest // most)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _says_something(text: str) -> bool:
    return any(letter.isalnum() for letter in text)
