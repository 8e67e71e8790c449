from __future__ import annotations

import pytest

from tts_kernel.text.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("안녕하세요. 반갑습니다!", ["안녕하세요.", "반갑습니다!"]),
        ("今天很好。明天呢?", ["今天很好。", "明天呢?"]),
        ("「はい。」そうです。", ["「はい。」", "そうです。"]),
        ("Dr. Smith paid $3.14. Really?! Yes.", ["Dr. Smith paid $3.14.", "Really?!", "Yes."]),
        ("J. R. Smith came at 5 p.m. today.", ["J. R. Smith came at 5 p.m. today."]),
        ("2026. 11. 21. 토요일입니다. 3월.", ["2026. 11. 21.", "토요일입니다.", "3월."]),
        ("No. 5 is here. No. It left.", ["No. 5 is here.", "No.", "It left."]),
        ("at 5 p.m.\nIn 1984.\n3 more", ["at 5 p.m.", "In 1984.", "3 more"]),
        ("one line\nanother\n\nthird", ["one line", "another", "third"]),
        ("no end", ["no end"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_where_sentences_end(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@pytest.mark.parametrize("text", ["a bc, " * 200, "가" * 450, "很好," * 100, "word " * 100, "x" * 201])
def test_long_sentences_are_cut_and_nothing_is_lost(text: str) -> None:
    parts = split_sentences(text, longest=50)
    assert all(0 < len(part) <= 50 for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_cut_prefers_a_pause() -> None:
    assert split_sentences("one two, three four, five", longest=15) == ["one two,", "three four,", "five"]
