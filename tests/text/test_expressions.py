from __future__ import annotations

import pytest

from tts_kernel.text import chinese, english, japanese, korean
from tts_kernel.text.expressions import Expression, find, rewrite
from tts_kernel.text.words import UNITS


@pytest.mark.parametrize(
    ("text", "kind", "values", "unit"),
    [
        ("2026-11-21", "date", ("2026", "11", "21"), ""),
        ("2025/1/3", "date", ("2025", "1", "3"), ""),
        ("10:30", "time", ("10", "30"), ""),
        ("23:59:01", "time", ("23", "59", "01"), ""),
        ("010-1234-5678", "telephone", ("010", "1234", "5678"), ""),
        ("02-1234567", "telephone", ("02", "1234567"), ""),
        ("010-12345678", "telephone", ("010", "12345678"), ""),
        ("1588-1234", "telephone", ("1588", "1234"), ""),
        ("555-0199", "telephone", ("555", "0199"), ""),
        ("(555) 234-0199", "telephone", ("555", "234", "0199"), ""),
        ("+82 10-1234-5678", "telephone", ("82", "10", "1234", "5678"), ""),
        ("1592-1598", "range", ("1592", "1598"), ""),
        ("500-1000", "range", ("500", "1000"), ""),
        ("2026. 11. 21", "date", ("2026", "11", "21"), ""),
        ("11/21/2026", "date", ("2026", "11", "21"), ""),
        ("21/11/2026", "date", ("2026", "11", "21"), ""),
        ("3:2", "score", ("3", "2"), ""),
        ("16:9", "score", ("16", "9"), ""),
        ("3.11.2", "version", ("3", "11", "2"), ""),
        ("$1,234.50", "money", ("1234.50",), "USD"),
        ("-$5", "money", ("-5",), "USD"),
        ("100 USD", "money", ("100",), "USD"),
        ("5€", "money", ("5",), "EUR"),
        ("$5-10", "money", ("5", "10"), "USD"),
        ("5~10€", "money", ("5", "10"), "EUR"),
        ("$3.5 million", "money", ("3.5",), "USD"),
        ("$10k", "money", ("10",), "USD"),
        ("3-5", "range", ("3", "5"), ""),
        ("3—5", "range", ("3", "5"), ""),
        ("10-20%", "percent", ("10", "20"), ""),
        ("10%~20%", "percent", ("10", "20"), ""),
        ("5-10kg", "measure", ("5", "10"), "kg"),
        ("5km2-10km2", "measure", ("5", "10"), "km2"),
        ("10~20°C", "measure", ("10", "20"), "°c"),
        ("5m", "measure", ("5",), "m"),
        ("5 L", "measure", ("5",), "l"),
        ("220V", "measure", ("220",), "v"),
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


@pytest.mark.parametrize("text", ["MP3", "4K", "5G", "3M", "2v", "B2B", "x2y", "no numbers", ""])
def test_digits_glued_to_latin_letters_are_no_numbers(text: str) -> None:
    assert find(text) == []


@pytest.mark.parametrize("unit", UNITS["en"])
def test_every_language_has_a_word_for_every_unit(unit: str) -> None:
    for language in (korean, english, chinese, japanese):
        said = language.normalise(f"12{unit.upper() if unit in ('v', 'w') else unit}")
        assert unit not in said.lower().split(), language.__name__
        assert "{" not in said


@pytest.mark.parametrize("sign", ["$", "€", "£", "¥", "₩", "CNY ", "JPY "])
def test_every_language_has_a_word_for_every_currency(sign: str) -> None:
    for language in (korean, english, chinese, japanese):
        text = f"{sign}5" if not sign.strip().isalpha() else f"5 {sign.strip()}"
        assert sign.strip() not in language.normalise(text)


def test_a_dash_between_words_is_no_minus() -> None:
    for text in ("COVID-19", "코로나-19", "コロナ-19"):
        assert [item.values for item in find(text)] == [("19",)]
    for text in ("기온 -19", "气温-19", "気温は-19", "(-19)"):
        assert [item.values for item in find(text)] == [("-19",)]


def test_amounts_of_money_are_in_ones() -> None:
    written = "$3.5 million, $2bn, $1.25k, 7€"
    assert [item.amounts for item in find(written)] == [("3500000",), ("2000000000",), ("1250",), ("7",)]


def test_commas_between_thousands_are_remembered() -> None:
    assert [item.grouped for item in find("1,984 and 1984, 1,000-2,000 or 1,5")] == [True, False, True, False, False]


def test_what_stands_around_a_number_is_told() -> None:
    told: list[tuple[str, str]] = []

    def say(found: Expression, before: str, after: str) -> str:
        told.append((before, after))
        return "x"

    assert rewrite("ab 1 cd 2", say) == "ab x cd x"
    assert told == [("ab ", " cd 2"), ("ab 1 cd ", "")]
