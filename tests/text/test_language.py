from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tts_kernel.data.demo.sentences import SENTENCES
from tts_kernel.text.language import (
    CLASSES,
    CONTROL,
    DIGIT,
    HAN,
    HANGUL,
    KANA,
    LATIN,
    SPACE,
    canonical,
    count_classes,
    detect,
    fits,
    letters,
    spans,
)


@pytest.mark.parametrize(
    ("sentence", "language"),
    [(sentence, language) for language, sentences in SENTENCES.items() for sentence in sentences],
)
def test_sentences_of_the_demo_are_told_apart(sentence: str, language: str) -> None:
    assert detect(sentence) == language


@pytest.mark.parametrize(
    ("sentence", "language"),
    [
        ("iPhone을 샀어요.", "ko"),  # a brand in Latin letters
        ("내일 BTS 콘서트에 가요!", "ko"),
        ("대한民國 만세", "ko"),  # hanja between hangul
        ("ㅋㅋㅋ", "ko"),  # jamo alone
        ("한국어", "ko"),  # decomposed, as macOS writes file names
        ("I ate 김치 for the first time.", "en"),
        ("Café au lait, s'il vous plaît", "en"),  # Latin letters, so no better guess
        ("ＦＵＬＬ width", "en"),
        ("我喜欢用iPhone。", "zh"),
        ("鲜の每日牛奶真的很好喝。", "zh"),  # one kana in a brand does not make it Japanese
        ("東京は日本の首都です。", "ja"),
        ("ｶﾀｶﾅ", "ja"),
        ("人々", "zh"),  # characters alone are ambiguous
        ("𠮷野家", "zh"),  # outside the basic plane
        ("Привет, как дела?", "other"),
        ("สวัสดี", "other"),
        ("", ""),
        ("  ... 123 !?", ""),
    ],
)
def test_mixed_and_odd_sentences(sentence: str, language: str) -> None:
    assert detect(sentence) == language


@pytest.mark.parametrize(
    ("name", "expected"),
    [("KR", "ko"), ("zh-CN", "zh"), ("zh_Hans", "zh"), ("JP", "ja"), (" en-US ", "en"), ("cmn", "zh"), ("FR", "fr")],
)
def test_names_of_languages_of_other_tools(name: str, expected: str) -> None:
    assert canonical(name) == expected


def test_classes_are_counted_per_text_over_chunks_slices_and_nulls() -> None:
    texts = pa.chunked_array(
        [pa.array(["skipped", "가a1 漢カ", None]).slice(1), pa.array([""]), pa.array(["\x07b\ufffd"])]
    )
    counts = count_classes(texts)
    assert counts.shape == (4, len(CLASSES))
    assert {CLASSES[kind]: int(counts[0, kind]) for kind in (HANGUL, LATIN, DIGIT, SPACE, HAN, KANA)} == dict.fromkeys(
        ("hangul", "latin", "digit", "space", "han", "kana"), 1
    )
    assert counts[1].sum() == counts[2].sum() == 0
    assert (counts[3, CONTROL], counts[3, LATIN]) == (2, 1)
    np.testing.assert_array_equal(letters(counts), [5, 0, 0, 1])


def test_no_texts_have_no_counts() -> None:
    assert count_classes(pa.array([], pa.string())).shape == (0, len(CLASSES))
    assert count_classes(pa.chunked_array([], pa.string())).shape == (0, len(CLASSES))


@pytest.mark.parametrize("mark", ["\x00", "\t", "\n", "\x85", "\u200b", "\ufeff", "\u202e", "\ue000", "\ufffd"])
def test_what_no_reader_sees_counts_as_control(mark: str) -> None:
    assert count_classes(pa.array([f"a{mark}b"]))[0, CONTROL] == 1


def test_a_claim_is_doubted_only_where_the_script_speaks_against_it() -> None:
    texts = ["안녕하세요", "hello there", "東京都", "東京都", "123", "bonjour", "hello"]
    claims = ["ko", "ko", "ja", "ko", "ko", "fr", ""]
    found = fits(np.array(claims), count_classes(pa.array(texts)))
    np.testing.assert_array_equal(found, [True, False, True, False, True, True, True])


@pytest.mark.parametrize(
    ("text", "main", "parts"),
    [
        ("저는 iPhone을 샀어요.", "ko", ["ko 저는 ", "en iPhone", "ko 을 샀어요."]),
        ('"Hi," 안녕!', "ko", ['en "Hi," ', "ko 안녕!"]),
        ("你好 Bob", "zh", ["zh 你好 ", "en Bob"]),
        ("日本語です", "zh", ["zh 日本語", "ja です"]),
        ("日本語です", "en", ["ja 日本語です"]),
        ("日本語 です", "en", ["zh 日本語 ", "ja です"]),
        ("东京", "ja", ["ja 东京"]),
        ("MP3와 4K", "ko", ["en MP3", "ko 와 ", "en 4K"]),
        ("...", "ko", ["ko ..."]),
        ("", "ko", []),
    ],
)
def test_a_sentence_is_split_where_its_script_changes(text: str, main: str, parts: list[str]) -> None:
    found = spans(text, main)
    assert [f"{span.language} {text[span.start : span.end]}" for span in found] == parts
    assert "".join(text[span.start : span.end] for span in found) == text


def test_a_number_stays_whole_and_takes_the_language_around_it() -> None:
    text = "iPhone 15 Pro 15개 5 kg"
    whole = [(7, 9), (14, 16), (18, 22)]
    parts = [(span.language, text[span.start : span.end]) for span in spans(text, "ko", whole)]
    assert parts == [("en", "iPhone 15 Pro "), ("ko", "15개 5 kg")]


def test_many_numbers_are_told_apart_in_linear_time() -> None:
    text = "1 " * 20_000
    whole = [(place, place + 1) for place in range(0, len(text), 2)]
    assert len(spans(text, "ko", whole)) == 1
