from __future__ import annotations

import pytest

from tts_kernel.text.pieces import MARKS, Piece, clean, mark_or_unknown
from tts_kernel.text.symbols import PUNCTUATION


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("ＡＢＣ　１２３", "ABC 123"),
        ("  a\t b\r\nc  ", "a b c"),
        ("wait....... no", "wait…. no"),
        ("……", "…"),
        ("。。。", "…"),
        ("a\u200bb\ufeffc\u00ad", "abc"),
        ("2½ 5㎏ ①", "2 1/2 5kg 1"),
        ("❤\ufe0f", "❤"),
        ("한국어", "한국어"),
        ("Don´t", "Don't"),
        ("", ""),
    ],
)
def test_one_way_of_writing_each_character(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    assert clean(cleaned) == cleaned


def test_marks_become_the_seven_that_models_know() -> None:
    assert set(MARKS.values()) == set(PUNCTUATION)
    assert mark_or_unknown("。") == Piece("。", (".",), (0,))
    assert mark_or_unknown(" ") == Piece(" ")
    assert mark_or_unknown("☃") == Piece("☃", unknown=True)
