from __future__ import annotations

import pytest

from tts_kernel.text.english_numbers import cardinal, number, ordinal


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0", "zero"),
        ("13", "thirteen"),
        ("21", "twenty-one"),
        ("100", "one hundred"),
        ("1066", "one thousand sixty-six"),
        ("1000000", "one million"),
        ("1001001", "one million one thousand one"),
        ("12" * 10, "one two " * 10),
    ],
)
def test_cardinals(value: str, said: str) -> None:
    assert cardinal(value) == said.strip()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1984", "nineteen eighty-four"),
        ("1900", "nineteen hundred"),
        ("1905", "nineteen oh five"),
        ("2005", "two thousand five"),
        ("2026", "twenty twenty-six"),
        ("3.14", "three point one four"),
        ("-5", "minus five"),
    ],
)
def test_numbers(value: str, said: str) -> None:
    assert number(value) == said


def test_ordinals() -> None:
    assert [ordinal(str(value)) for value in (1, 2, 3, 4, 5, 8, 9, 12, 20, 21, 100, 110)] == [
        "first", "second", "third", "fourth", "fifth", "eighth", "ninth", "twelfth", "twentieth", "twenty-first",
        "one hundredth", "one hundred tenth",
    ]  # fmt: skip
