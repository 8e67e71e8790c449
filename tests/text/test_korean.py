from __future__ import annotations

import unicodedata

import pytest

from tts_kernel.text.korean import native, normalise, number, prepare, pronounce
from tts_kernel.text.symbols import MELOTTS, SYMBOLS


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0", "영"),
        ("10", "십"),
        ("11", "십일"),
        ("110", "백십"),
        ("1000", "천"),
        ("10000", "만"),
        ("11000", "만 천"),
        ("100000000", "일억"),
        ("110010000", "일억 천일만"),
        ("2026", "이천이십육"),
        ("3.05", "삼 점 영오"),
        ("-7", "마이너스 칠"),
    ],
)
def test_numbers(value: str, said: str) -> None:
    assert number(value) == said


def test_native_numerals_change_before_what_is_counted() -> None:
    assert [native(value) for value in (1, 2, 3, 4, 11, 20, 21, 99)] == [
        "한", "두", "세", "네", "열한", "스무", "스물한", "아흔아홉",
    ]  # fmt: skip
    assert (
        normalise("3개, 3개월, 100개, 5시, 13시, 3시간, 20살") == "세개, 삼개월, 백개, 다섯시, 십삼시, 세시간, 스무살"
    )


def test_every_syllable_is_its_canonical_decomposition() -> None:
    """Unicode's own, over all 11,172 of them, and each jamo has a symbol."""
    every = "".join(chr(point) for point in range(0xAC00, 0xD7A4))
    pieces = pronounce(every)
    assert "".join("".join(piece.phones) for piece in pieces) == unicodedata.normalize("NFD", every)
    assert {phone for piece in pieces for phone in piece.phones} <= set(SYMBOLS.names)
    spoken = {phone for piece in pronounce(every, all_finals=False) for phone in piece.phones}
    assert spoken <= set(MELOTTS)


def test_abbreviations_in_capitals_and_headline_hanja_are_read_in_korean() -> None:
    assert prepare("KBS와 NASA, 美 대통령") == "케이비에스와 NASA, 미 대통령"
    assert prepare("B를, I love you, 5 KB, 漢字") == "비를, I love you, 5 KB, 漢字"
