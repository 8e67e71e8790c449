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
        ("13800138000", "幺三八零零幺三八零零零"),
        ("010-12345678", "零幺零，幺二三四五六七八"),
        ("3.11.2", "三点十一点二"),
        ("第2次2次", "第二次两次"),
        ("2年2年级", "两年二年级"),
        ("2万2百", "两万二百"),
        ("22000", "两万二千"),
        ("2kg,2两", "两公斤,二两"),
        ("$2和$3.5 million", "两美元和三百五十万美元"),
        ("10-20%", "百分之十到百分之二十"),
        ("50%-60%", "百分之五十到百分之六十"),
        ("2-3kg", "两到三公斤"),
        ("2020-2024年", "二零二零到二零二四年"),
        ("3:2", "三比二"),
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
        ("跑得快,来得及", "pao3 de5 kuai4 ,0 lai2 de5 ji2"),
        ("开心得很,心得", "kai1 xin1 de5 hen3 ,0 xin1 de2"),
        ("我得去,他得了", "wo2 dei3 qv4 ,0 ta1 de2 le5"),
        ("得去,总得", "dei3 qv4 ,0 zong2 dei3"),
        ("不得了", "bu4 de2 liao3"),
        ("这儿,女儿,儿子", "zhe4 EEer5 ,0 nv3 EEer2 ,0 EEer2 zi05"),
        ("数一数", "shu3 yi5 shu3"),
    ],
)
def test_characters_with_several_readings(text: str, said: str) -> None:
    assert pinyin(text) == said


def test_a_character_without_a_reading_is_unknown() -> None:
    (piece,) = pronounce("\U0003134a")
    assert piece.unknown
