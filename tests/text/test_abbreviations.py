from __future__ import annotations

import pytest

from tts_kernel.text.abbreviations import spell_abbreviations


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("KBS와 B", "케이비에스와 비"),
        ("NASA", "NASA"),  # a word of the dictionary
        ("5 KB, 5KB", "5 KB, 5KB"),  # a unit
        ("I love you, I'm", "I love you, I'm"),
        ("iPhone ABCDEF", "iPhone ABCDEF"),
    ],
)
def test_capitals_that_are_no_words_are_spelled(text: str, spelled: str) -> None:
    assert spell_abbreviations(text, "ko") == spelled


def test_letters_have_japanese_names() -> None:
    assert spell_abbreviations("NHKとA", "ja") == "エヌエイチケーとエー"
