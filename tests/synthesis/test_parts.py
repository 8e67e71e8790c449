from __future__ import annotations

import pytest

from tts_kernel.synthesis.parts import spoken_parts

KOREAN = "안녕하세요. 오늘은 날씨가 좋네요! 내일도 그럴까요?"


def test_a_text_that_fits_stays_one() -> None:
    assert spoken_parts(KOREAN, 100) == [KOREAN]
    assert spoken_parts("今天很好。明天呢？", 100) == ["今天很好。明天呢？"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (KOREAN, ["안녕하세요.", "오늘은 날씨가 좋네요!", "내일도 그럴까요?"]),
        ("It is 3.14 today. Dr. Kim agrees.", ["It is 3.14 today.", "Dr. Kim agrees."]),
        ("今天很好。明天呢？“不知道。”他说。", ["今天很好。", "明天呢？", "“不知道。”", "他说。"]),
        ("first line\nsecond line", ["first line", "second line"]),
    ],
)
def test_sentences_end_where_they_are_heard_to(text: str, sentences: list[str]) -> None:
    assert spoken_parts(text, max(map(len, sentences))) == sentences


def test_short_sentences_share_a_part_while_they_fit() -> None:
    assert spoken_parts("One. Two. Three. Four.", 10) == ["One. Two.", "Three.", "Four."]


def test_a_sentence_too_long_alone_is_cut_at_commas_then_spaces_then_anywhere() -> None:
    assert spoken_parts("one two, three four, five", 15) == ["one two,", "three four,", "five"]
    assert spoken_parts("one two three", 8) == ["one two", "three"]
    assert spoken_parts("abcdefgh", 3) == ["abc", "def", "gh"]


@pytest.mark.parametrize("longest", [1, 2, 5, 9, 30])
def test_no_part_is_longer_than_allowed_and_no_letter_is_lost(longest: int) -> None:
    text = f"  {KOREAN}\n\nIt cost $3.50, he said; ok?!  {'무궁화' * 20} end "
    parts = spoken_parts(text, longest)
    assert max(map(len, parts)) <= longest
    assert [letter for part in parts for letter in part if letter.isalnum()] == [
        letter for letter in text if letter.isalnum()
    ]


def test_length_is_counted_as_the_caller_does() -> None:
    assert spoken_parts("ab cd. ef gh.", 2, lambda text: len(text.split())) == ["ab cd.", "ef gh."]


@pytest.mark.parametrize("text", ["", "  \n", "…!?", "-- --"])
def test_a_text_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="nothing to say"):
        spoken_parts(text, 10)


def test_marks_alone_are_no_part() -> None:
    assert spoken_parts("One. !!! Two.", 4) == ["One.", "Two."]


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="longest is 0"):
        spoken_parts("One.", 0)
