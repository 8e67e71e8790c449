from __future__ import annotations

import pytest

from tts_kernel.text.english_tags import roles


@pytest.mark.parametrize(
    ("text", "word", "role"),
    [
        ("I will record a song .", "record", "VB"),
        ("This is a new record .", "record", "NN"),
        ("She has read it .", "read", "VBD"),
        ("It is close to me .", "close", "JJ"),
        ("Their lives on Mars ended .", "lives", "NN"),
        ("He lives alone .", "lives", "VB"),
    ],
)
def test_a_word_has_the_role_that_its_sentence_gives_it(text: str, word: str, role: str) -> None:
    words = text.split()
    ((best, *_),) = roles(words, [words.index(word)])
    assert best == role


def test_a_role_that_is_not_sure_is_none() -> None:
    words = ["NASA", "and", "the", "FBI", "use", "HTML", "."]
    assert roles(words, [words.index("use")]) == [()]


def test_only_the_places_that_are_asked_for_are_told() -> None:
    assert roles(["I", "live", "."], []) == []
    assert len(roles(["I", "live", "here", "."], [0, 1])) == 2
