from __future__ import annotations

import pytest

from tts_kernel.text.chinese import pronounce


def tones(text: str) -> str:
    return " ".join(str(piece.tones[0]) for piece in pronounce(text) if piece.tones)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("你好", "2 3"),
        ("我很好", "2 2 3"),
        ("展览馆", "2 2 3"),
        ("小组长", "2 2 3"),
        ("老虎很美", "2 2 2 3"),
        ("好,我", "3 0 3"),  # not across a mark
    ],
)
def test_a_third_tone_rises_before_another(text: str, spoken: str) -> None:
    assert tones(text) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("一个", "2 4"),
        ("一定", "2 4"),
        ("一天", "4 1"),
        ("一年", "4 2"),
        ("一起", "4 3"),
        ("第一", "4 1"),
        ("统一", "3 1"),
        ("十一", "2 1"),
        ("一百一十", "4 3 1 2"),
        ("二零一一年", "4 2 1 1 2"),
        ("一月一号", "1 4 1 4"),
        ("看一看", "4 5 4"),
        ("一个一个", "2 4 2 4"),
        ("一年级", "1 2 2"),
        ("一等奖", "1 2 3"),
    ],
)
def test_yi(text: str, spoken: str) -> None:
    assert tones(text) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("不是", "2 4"),
        ("不好", "4 3"),
        ("不来", "4 2"),
        ("好不好", "3 5 3"),
        ("对不起", "4 5 3"),
        ("我不", "3 4"),
        ("不得不", "4 2 4"),
    ],
)
def test_bu(text: str, spoken: str) -> None:
    assert tones(text) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("朋友", "2 5"),
        ("妈妈", "1 5"),
        ("谢谢", "4 5"),
        ("我们", "3 5"),
        ("孩子", "2 5"),
        ("王子", "2 3"),
        ("看看", "4 5"),
        ("天天", "1 1"),
        ("他的", "1 5"),
    ],
)
def test_neutral_tones(text: str, spoken: str) -> None:
    assert tones(text) == spoken
