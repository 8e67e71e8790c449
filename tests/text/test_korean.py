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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3시까지, 5시였다, 3시리즈, 13시", "세시까지, 다섯시였다, 삼시리즈, 십삼시"),
        ("20시간, 24시간", "스무시간, 이십사시간"),
        ("30대 남성, 차 3대, 3대 1, 3대1", "삼십대 남성, 차 세대, 삼대 일, 삼대일"),
        ("제3장, 제 5권, 문제 3개", "제삼장, 제 오권, 문제 세개"),
        ("1번째, 2번째, 3번 더, 3번 출구", "첫번째, 두번째, 세번 더, 삼번 출구"),
        ("5달, 5달러, 15개국, 15개", "다섯달, 오달러, 십오개국, 열다섯개"),
        ("3~5명, 3~5일", "세명에서 다섯명, 삼에서 오일"),
        ("1만, 1천, 11만, 1억", "만, 천, 십일만, 일억"),
        ("3:2, 16:9", "삼 대 이, 십육 대 구"),
        ("3/4분기, 3/4", "삼사 분기, 사분의 삼"),
        ("1588-1234, 1592-1598", "일오팔팔 일이삼사, 천오백구십이에서 천오백구십팔"),
        ("$3.5 million, 5~10%", "삼백오십만 달러, 오에서 십 퍼센트"),
    ],
)
def test_which_numerals_are_read(text: str, said: str) -> None:
    assert normalise(text) == said
