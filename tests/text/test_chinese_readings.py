from __future__ import annotations

import pytest

from tests.text.test_chinese import pinyin
from tts_kernel.text.chinese_readings import read_in_context
from tts_kernel.text.chinese_tones import Syllable


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("两只猫", "liang3 zhir1 mao1"),
        ("我只要", "wo2 zhir3 yao4"),
        ("头发很长", "tou2 fa5 hen3 chang2"),
        ("长高了", "zhang3 gao1 le5"),
        ("种的花", "zhong4 de5 hua1"),
        ("三种花", "san1 zhong3 hua1"),
        ("重写", "chong2 xie3"),
        ("很重", "hen3 zhong4"),
        ("他教我", "ta1 jiao1 wo3"),
        ("切菜", "qie1 cai4"),
        ("数钱", "shu3 qian2"),
        ("空着", "kong1 zhe5"),
        ("还钱", "huan2 qian2"),
        ("还要", "hai2 yao4"),
        ("背着书", "bei1 zhe5 shu1"),
        ("高兴地说", "gao1 xing4 de5 shuo1"),
        ("跑得快", "pao3 de5 kuai4"),
        ("我得去", "wo2 dei3 qv4"),
        ("他得了", "ta1 de2 le5"),
        ("获得", "huo4 de2"),
        ("这儿", "zhe4 EEer5"),
        ("我的儿", "wo3 de5 EEer2"),
    ],
)
def test_a_character_is_read_as_its_neighbours_want(text: str, said: str) -> None:
    assert pinyin(text) == said


def test_only_what_no_phrase_has_read_changes() -> None:
    known, alone = (Syllable("长", "zhang", 3, 1, 2, told) for told in (False, True))
    assert read_in_context([None, known, None]) == [None, known, None]
    (_, changed, _) = read_in_context([None, alone, None])
    assert changed is not None
    assert (changed.pinyin, changed.tone) == ("chang", 2)
