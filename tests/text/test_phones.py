from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest

from tests.text.tables import CODES, all_rows, read_table
from tts_kernel.data.demo.sentences import SENTENCES
from tts_kernel.text.phones import Phones, TextError, spread, to_ids, to_phones, with_blanks, word2ph
from tts_kernel.text.pieces import MARKS
from tts_kernel.text.symbols import MELOTTS, PAD, SYMBOLS, TONES, Symbols, UnknownSymbolError

# Written by a list's code, or by none; with the languages it should be split into
MIXED = (
    ("저는 iPhone을 샀어요.", None, "ko en ko"),
    ("저는 iPhone 15 Pro를 샀어요.", None, "ko en ko"),
    ("사과 3개랑 apple 5개", None, "ko en ko"),
    ("친구가 你好라고 했어요.", None, "ko zh ko"),
    ("친구가 ありがとう라고 했어요.", "KR", "ko ja ko"),
    ("日本語の이름", "KR", "ja ko"),
    ("I ate 김치 for the first time.", None, "en ko en"),
    ("Say 你好 and こんにちは!", "EN", "en zh en ja"),
    ("我喜欢用iPhone。", None, "zh en"),
    ("我说ありがとう。", "ZH", "zh ja"),
    ("我买了5kg苹果。", None, "zh"),
    ("今日はCoffeeを飲む。", None, "ja en ja"),
    ("今日は5kgの米を買う。", None, "ja"),
    ("私は김치が好きです。", None, "ja ko ja"),
    ("MP3 파일", "KR", "en ko"),
    ("KBS 뉴스", "KR", "ko"),
    ("NHKのニュース", "JP", "ja"),
)


def said_with_tones(said: Phones) -> str:
    toned = ("en", "zh")
    rows = list(zip(said.phones, said.tones, said.languages, strict=True))[1:-1]
    # a table's Korean and Japanese have no tone but the one, English words in them do
    return " ".join(
        f"{phone}{tone}" if said.language in toned or name in toned else phone for phone, tone, name in rows
    )


@pytest.mark.parametrize("name", CODES)
def test_every_sentence_of_the_tables_is_read_as_written_there(name: str) -> None:
    rows = read_table(name)
    found = [to_phones(row.written, row.code) for row in rows]
    assert [said.text for said in found] == [row.normalised for row in rows]
    assert [said_with_tones(said) for said in found] == [row.phones for row in rows]
    assert len(rows) >= 40


def test_every_sentence_has_tones_languages_and_places_and_no_unknown_symbol() -> None:
    rows: list[tuple[str, str | None]] = [(row.written, row.code) for row in all_rows()]
    rows += [(text, code) for text, code, _ in MIXED]
    rows += [(text, language) for language, texts in SENTENCES.items() for text in texts]
    for text, code in rows:
        said = to_phones(text, code)
        assert said == to_phones(text, code), text
        assert said.phones[0] == said.phones[-1] == PAD
        assert PAD not in said.phones[1:-1]
        assert len({len(said), len(said.tones), len(said.languages), len(said.places)}) == 1
        assert all(0 <= tone < TONES[name] for tone, name in zip(said.tones, said.languages, strict=True)), text
        assert all(tone == 0 for phone, tone in zip(said.phones, said.tones, strict=True) if phone in MARKS.values()), (
            text
        )
        assert list(said.places) == sorted(said.places)
        assert all(0 <= place < len(said.text) for place in said.places[1:-1])
        assert not said.left_out
        ids = to_ids(said)
        assert len(ids.phones) == len(ids.tones) == len(ids.languages) == 2 * len(said) + 1
        assert not any(digit in said.text for digit in "0123456789"), said.text  # OpenJTalk writes some as １


@pytest.mark.parametrize(("text", "code", "languages"), MIXED)
def test_a_mixed_sentence_is_read_in_the_language_of_each_part(text: str, code: str | None, languages: str) -> None:
    assert " ".join(name for name, _ in groupby(to_phones(text, code).languages)) == languages


@pytest.mark.parametrize("code", ["KR", "ko", "Korean", "ko-KR", " kr "])
def test_a_language_has_many_names(code: str) -> None:
    assert to_phones("15개", code).text == "열다섯개"


def test_the_code_says_how_characters_and_numbers_are_read() -> None:
    assert to_phones("東京 3", "JP").phones[1:3] == ("t", "o:")
    assert to_phones("東京 3", "ZH").phones[1:3] == ("d", "ong")
    assert to_phones("12", "EN").text == "twelve"
    assert to_phones("12", "ZH").text == "十二"


@pytest.mark.parametrize("code", [None, "", "KR", "EN", "ZH", "JP"])
@pytest.mark.parametrize("text", ["", "   ", "\n", "!?", "...", "“”", "-"])
def test_a_text_without_anything_to_say_is_refused(text: str, code: str | None) -> None:
    with pytest.raises(TextError, match="nothing to say"):
        to_phones(text, code)


@pytest.mark.parametrize("code", ["FR", "klingon", "ko,en"])
def test_a_language_that_is_none_of_the_four_is_refused(code: str) -> None:
    with pytest.raises(TextError, match="expected KR, EN, ZH or JP"):
        to_phones("bonjour", code)


def test_digits_alone_need_a_language() -> None:
    with pytest.raises(TextError, match="no letter shows its language"):
        to_phones("2026")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("안녕 😀", "😀.*GRINNING FACE"),
        ("Hello Привет", "CYRILLIC CAPITAL LETTER PE"),
        ("你好ก", "THAI CHARACTER KO KAI"),
        ("こんにちは ☃", "SNOWMAN"),
        ("안녕\ufffd", "REPLACEMENT CHARACTER"),
        ("あ\ud800", "REPLACEMENT CHARACTER"),
        ("안녕\ue000", "U\\+E000"),
        ("👨‍👩‍👧 가족", "MAN"),
    ],
)
def test_what_cannot_be_said_is_named_with_its_sentence(text: str, named: str) -> None:
    with pytest.raises(UnknownSymbolError, match=named) as error:
        to_phones(text)
    assert repr(text) in str(error.value)


def test_what_cannot_be_said_can_be_left_out_and_is_listed() -> None:
    said = to_phones("안녕 😀 하세요 ☃", unknown="leave out")
    assert said.left_out == ("😀", "☃")
    assert said.phones == to_phones("안녕 하세요").phones
    with pytest.raises(TextError, match="nothing to say"):
        to_phones("😀😀", "KR", unknown="leave out")


@pytest.mark.parametrize("mark", ["\u200b", "\ufeff", "\u200d", "\u2060", "\ufe0f", "\u00ad", "\U000e0100"])
def test_characters_without_width_change_nothing(mark: str) -> None:
    assert to_phones(f"안{mark}녕{mark}") == to_phones("안녕")


def test_compatible_ways_of_writing_sound_the_same() -> None:
    assert to_phones("한국어") == to_phones("한국어")
    assert to_phones("Ｈｅｌｌｏ！", "EN") == to_phones("Hello!", "EN")
    assert to_phones("ｶﾀｶﾅ") == to_phones("カタカナ")
    assert to_phones("５㎏", "KR") == to_phones("5kg", "KR")
    assert to_phones("안녕......") == to_phones("안녕…")
    assert to_phones("か゛き") == to_phones("がき")
    assert to_phones("東京・大阪", "JP").phones == to_phones("東京、大阪", "JP").phones


@pytest.mark.parametrize(
    ("text", "code", "times"),
    [
        ("가나 다라 12 ", "KR", 1000),
        ("hello world 12 ", "EN", 1000),
        ("今天天气很好", "ZH", 500),
        ("東京都", "JP", 1000),
    ],
)
def test_a_very_long_sentence_keeps_all_its_phones(text: str, code: str, times: int) -> None:
    said = to_phones(text * times, code)
    assert len(said) >= times * 4
    assert max(said.places[1:-1]) > len(said.text) - 8


def test_the_ends_of_a_sentence_are_silent_in_its_first_and_last_language() -> None:
    said = to_phones("안녕 hello")
    assert (said.phones[0], said.languages[0], said.places[0]) == (PAD, "ko", -1)
    assert (said.phones[-1], said.languages[-1], said.places[-1]) == (PAD, "en", len(said.text))


def test_ids_are_those_of_the_published_table() -> None:
    """Recorded from the reference: training_facts, config.blanks and out_blank_*."""
    korean = to_ids(to_phones("안녕.", "KR"))
    assert korean.phones.tolist() == [0, 0, 0, 171, 0, 179, 0, 201, 0, 162, 0, 185, 0, 206, 0, 212, 0, 0, 0]
    assert korean.tones.tolist() == [0, *[11, 0] * 9]
    assert korean.languages.tolist() == [0, *[4, 0] * 9]
    english = to_ids(to_phones("world", "EN"))
    assert english.phones[1::2].tolist() == [0, 108, 43, 70, 34, 0]
    assert english.tones[1::2].tolist() == [7, 7, 9, 7, 7, 7]
    assert set(english.languages[1::2].tolist()) == {2}
    chinese = to_ids(to_phones("你好!", "ZH"))
    assert chinese.phones.tolist() == [0, 0, 0, 73, 0, 51, 0, 48, 0, 27, 0, 208, 0, 0, 0]
    assert chinese.tones.tolist() == [0, 0, 0, 2, 0, 2, 0, 3, 0, 3, 0, 0, 0, 0, 0]
    assert not chinese.languages.any()
    japanese = to_ids(to_phones("こんにちは", "JP"))
    assert japanese.phones[1::2].tolist() == [0, 68, 76, 11, 73, 51, 33, 51, 108, 19, 0]
    assert japanese.tones.tolist() == [0, *[6, 0] * 11]
    assert japanese.languages.tolist() == [0, *[1, 0] * 11]


def test_blanks_can_be_left_away() -> None:
    said = to_phones("안녕.")
    np.testing.assert_array_equal(to_ids(said, blanks=False).phones, to_ids(said).phones[1::2])
    np.testing.assert_array_equal(with_blanks(np.array([5, 6])), [0, 5, 0, 6, 0])


def test_a_table_without_all_finals_gets_the_spoken_ones() -> None:
    published = Symbols(MELOTTS)
    assert to_phones("값이", "KR").phones[1:4] == ("ᄀ", "ᅡ", "ᆹ")
    assert to_phones("값이", "KR", symbols=published).phones[1:4] == ("ᄀ", "ᅡ", "ᆸ")
    for row in read_table("korean"):
        to_ids(to_phones(row.written, row.code, symbols=published), published)
    with pytest.raises(UnknownSymbolError, match="ᆹ"):
        to_ids(to_phones("값이", "KR", symbols=SYMBOLS), published)


def cut(text: str, size: int) -> list[tuple[int, int]]:
    """Tokens of `size` characters, between <s> and </s>."""
    return [(0, 0), *((start, min(start + size, len(text))) for start in range(0, len(text), size)), (0, 0)]


@pytest.mark.parametrize("blanks", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_phones_are_divided_among_the_tokens_without_rest(size: int, blanks: bool) -> None:
    for text, code, _ in MIXED:
        said = to_phones(text, code)
        counts = word2ph(said, cut(said.text, size), blanks=blanks)
        assert counts.sum() == len(to_ids(said, blanks=blanks).phones)
        assert (counts >= 0).all()
        assert (counts[0], counts[-1]) == ((3, 2) if blanks else (1, 1))


def test_each_phone_goes_to_the_token_that_its_letters_are_in() -> None:
    said = to_phones("안녕.", "KR")
    assert word2ph(said, [(0, 0), (0, 2), (2, 3), (0, 0)]).tolist() == [3, 12, 2, 2]  # training_facts: kr
    assert word2ph(said, [(0, 0), (0, 1), (1, 2), (2, 3), (0, 0)], blanks=False).tolist() == [1, 3, 3, 1, 1]
    assert word2ph(said, [(0, 0), (0, 3), (0, 0)], blanks=False).tolist() == [1, 7, 1]
    whole = to_phones("hello world", "EN")
    assert word2ph(whole, [(0, 0), (0, 5), (5, 11), (0, 0)]).tolist() == [3, 8, 8, 2]  # training_facts: en
    # a word that is cut: its four phones lie over five letters
    assert word2ph(whole, [(0, 0), (0, 3), (3, 5), (5, 11), (0, 0)], blanks=False).tolist() == [1, 2, 2, 4, 1]


def test_a_token_without_letters_and_a_gap_between_tokens_lose_no_phone() -> None:
    said = to_phones("안녕하세요", "KR")
    counts = word2ph(said, [(0, 0), (0, 0), (0, 1), (3, 5), (0, 0)], blanks=False)
    assert counts.tolist() == [1, 0, 8, 4, 1]  # 녕하 lie in the gap
    assert word2ph(said, [(0, 0), (0, 0)], blanks=False).sum() == len(said)
    with pytest.raises(TextError, match="0 tokens"):
        word2ph(said, [])


def test_features_are_spread_over_phones_as_the_reference_does() -> None:
    hidden = np.arange(8.0).reshape(4, 2)
    features = spread(hidden, np.array([3, 8, 8, 2]))
    assert features.shape == (2, 21)
    np.testing.assert_array_equal(features[:, [0, 2, 3, 10, 11, 18, 19, 20]].T, hidden[[0, 0, 1, 1, 2, 2, 3, 3]])


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("5:30pm에 5 a.m.", "KR", "오후 다섯시 삼십분에 오전 다섯시"),
        ("我5:30pm到。", "ZH", "我下午五点三十分到。"),
        ("5PMに会う", "JP", "午後五時に会う"),
        ("15pt는 3 amps", "KR", "fifteen pt는 삼 amps"),
    ],
)
def test_halves_of_the_day_are_said_in_the_language_of_the_sentence(text: str, code: str, said: str) -> None:
    assert to_phones(text, code).text == said


def test_a_text_begins_with_its_first_word() -> None:
    assert to_phones("#1", "EN").text == "number one"
