from __future__ import annotations

import pytest

from tts_kernel.text.chinese import normalise, phones_of, pronounce
from tts_kernel.text.symbols import MELOTTS


def pinyin(text: str) -> str:
    return " ".join("".join(piece.phones) + str(piece.tones[0]) for piece in pronounce(text) if piece.phones)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026年", "二零二六年"),
        ("1998", "一千九百九十八"),
        ("2个人2号22个", "两个人二号二十二个"),
        ("-5°C", "零下五摄氏度"),
        ("-5%", "负百分之五"),
        ("2:05", "两点零五分"),
        ("10:00", "十点整"),
        ("$3.5", "三点五美元"),
        ("1/4", "四分之一"),
        ("13800138000", "一三八零零一三八零零零"),
        ("3.11.2", "三点十一点二"),
        ("A+B=C", "A加B等于C"),
    ],
)
def test_normalisation(text: str, said: str) -> None:
    assert normalise(text) == said


@pytest.mark.parametrize(
    ("syllable", "phones"),
    [
        ("zhi", "zh ir"), ("zi", "z i0"), ("yi", "y i"), ("yan", "y En"), ("ye", "y E"), ("yuan", "y van"),
        ("yue", "y ve"), ("ju", "j v"), ("xue", "x ve"), ("lv", "l v"), ("lve", "l ve"), ("lu", "l u"),
        ("er", "EE er"), ("a", "AA a"), ("ou", "OO ou"), ("wu", "w u"), ("weng", "w eng"), ("liu", "l iu"),
        ("jiong", "j iong"), ("ng", "EE en"),
    ],
)  # fmt: skip
def test_syllables_have_an_initial_and_a_final(syllable: str, phones: str) -> None:
    assert phones_of(syllable) == tuple(phones.split())


def test_every_syllable_of_the_dictionary_is_in_the_published_table() -> None:
    from pypinyin.constants import PINYIN_DICT
    from pypinyin.contrib.tone_convert import to_normal

    syllables = {
        to_normal(reading, v_to_u=False) for readings in PINYIN_DICT.values() for reading in readings.split(",")
    }
    assert len(syllables) > 400
    for syllable in syllables:
        phones = phones_of(syllable.replace("ü", "v"))
        assert len(phones) == 2
        assert set(phones) <= set(MELOTTS), syllable


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("银行行长", "yin2 hang2 hang2 zhang3"),
        ("重要,重新", "zhong4 yao4 ,0 chong2 xin1"),
        ("音乐,快乐", "yin1 yve4 ,0 kuai4 le4"),
        ("长得高,长江", "zhang3 de5 gao1 ,0 chang2 jiang1"),
        ("得到,获得,值得", "de2 dao4 ,0 huo4 de2 ,0 zhir2 de5"),
        ("慢慢地走,地方", "man4 man4 de5 zou3 ,0 di4 fang5"),
    ],
)
def test_characters_with_several_readings(text: str, said: str) -> None:
    assert pinyin(text) == said


def test_a_character_without_a_reading_is_unknown() -> None:
    (piece,) = pronounce("\U0003134a")
    assert piece.unknown
