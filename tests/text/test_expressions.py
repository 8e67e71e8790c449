from __future__ import annotations

import pytest

from tts_kernel.text import chinese, english, japanese, korean
from tts_kernel.text.expressions import find
from tts_kernel.text.words import UNITS


@pytest.mark.parametrize(
    ("text", "kind", "values", "unit"),
    [
        ("2026-11-21", "date", ("2026", "11", "21"), ""),
        ("2025/1/3", "date", ("2025", "1", "3"), ""),
        ("10:30", "time", ("10", "30"), ""),
        ("23:59:01", "time", ("23", "59", "01"), ""),
        ("010-1234-5678", "telephone", ("010", "1234", "5678"), ""),
        ("3.11.2", "version", ("3", "11", "2"), ""),
        ("$1,234.50", "money", ("1234.50",), "USD"),
        ("-$5", "money", ("-5",), "USD"),
        ("100 USD", "money", ("100",), "USD"),
        ("5€", "money", ("5",), "EUR"),
        ("3-5", "range", ("3", "5"), ""),
        ("3 ~ 5", "range", ("3", "5"), ""),
        ("50 %", "percent", ("50",), ""),
        ("22nd", "ordinal", ("22",), ""),
        ("5 km/h", "measure", ("5",), "km/h"),
        ("-3.5°C", "measure", ("-3.5",), "°c"),
        ("1/3", "fraction", ("1", "3"), ""),
        ("007", "digits", ("007",), ""),
        ("1,000,000", "number", ("1000000",), ""),
        ("-2", "number", ("-2",), ""),
    ],
)
def test_what_a_number_stands_for(text: str, kind: str, values: tuple[str, ...], unit: str) -> None:
    for around in ("{}", "가 {}가", "在{}。", "at {}, or"):
        whole = around.format(text)
        (found,) = find(whole)
        assert (found.kind, found.values, found.unit) == (kind, values, unit), whole
        assert whole[found.start : found.end] == text


def test_several_are_found_in_order() -> None:
    assert [item.kind for item in find("0.5 -3°C, $5.50 ₩12,000 3개")] == [
        "number",
        "measure",
        "money",
        "money",
        "number",
    ]


@pytest.mark.parametrize("text", ["MP3", "4K", "B2B", "x2y", "no numbers", ""])
def test_digits_glued_to_latin_letters_are_no_numbers(text: str) -> None:
    assert find(text) == []


@pytest.mark.parametrize("unit", UNITS["en"])
def test_every_language_has_a_word_for_every_unit(unit: str) -> None:
    for language in (korean, english, chinese, japanese):
        said = language.normalise(f"12{unit}")
        assert unit not in said.lower().split(), language.__name__
        assert "{" not in said


@pytest.mark.parametrize("sign", ["$", "€", "£", "¥", "₩", "CNY ", "JPY "])
def test_every_language_has_a_word_for_every_currency(sign: str) -> None:
    for language in (korean, english, chinese, japanese):
        text = f"{sign}5" if not sign.strip().isalpha() else f"5 {sign.strip()}"
        assert sign.strip() not in language.normalise(text)
