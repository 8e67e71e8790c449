from __future__ import annotations

import pytest

from tts_kernel.text.japanese import normalise, phones_of, prepare, pronounce
from tts_kernel.text.symbols import MELOTTS

KANA = (
    "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲンガギグゲゴザジズゼゾ"
    "ダヂヅデドバビブベボパピプペポヴヰヱァィゥェォャュョッヮヵヶ"
)


@pytest.mark.parametrize(
    ("kana", "phones"),
    [
        ("トーキョー", "t o: ky o:"),
        ("ガッコウ", "g a q k o u"),
        ("シャシン", "sh a sh i N"),
        ("チェック", "ch e q k u"),
        ("ティー", "t i:"),
        ("デュエット", "dy u e q t o"),
        ("フュージョン", "hy u: j o N"),
        ("ヴァイオリン", "b a i o r i N"),
        ("ウォッカ", "w o q k a"),
        ("クォーター", "k w o: t a:"),
        ("ンー", "N"),
        ("アーー", "a:"),
    ],
)
def test_kana(kana: str, phones: str) -> None:
    assert phones_of(kana) == tuple(phones.split())


def test_all_kana_come_to_phones_of_the_published_table() -> None:
    for first in KANA:
        for second in ("", *"ァィゥェォャュョー"):
            phones = phones_of(first + second)
            assert phones, first + second
            assert set(phones) <= set(MELOTTS), (first + second, phones)


def test_what_is_no_katakana_has_no_phones() -> None:
    assert phones_of("漢") is None
    assert phones_of("a") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026/11/21", "2026年11月21日"),
        ("10:30", "10時30分"),
        ("10:00", "10時"),
        ("1,000円", "1000円"),
        ("$5", "5ドル"),
        ("-3°C", "マイナス3度"),
        ("時速50km/h", "時速50キロメートル"),
        ("1/3", "3分の1"),
        ("3~5人", "3から5人"),
        ("007", "ゼロゼロナナ"),
        ("090-1234-0000", "ゼロキューゼロ、イチニサンヨン、ゼロゼロゼロゼロ"),
        ("20歳、120歳、20.5", "二十歳、120歳、20.5"),
        ("100均", "百均"),
        ("3:2", "3対2"),
        ("10-20%、3〜5kg", "10から20パーセント、3から5キログラム"),
        ("$3.5 million", "3500000ドル"),
        ("お〜い、タワー〜駅", "おーい、タワー〜駅"),
    ],
)
def test_normalisation(text: str, said: str) -> None:
    assert normalise(text) == said


def test_abbreviations_in_capitals_are_read_in_japanese() -> None:
    assert prepare("NHKとJR、Aさん、NASA") == "エヌエイチケーとジェーアール、エーさん、NASA"


def test_counters_change_the_reading() -> None:
    said = {text: " ".join(pronounce(text)[-1].phones) for text in ("1本", "2本", "3本")}
    assert said == {"1本": "p o N", "2本": "h o N", "3本": "b o N"}


def test_a_lengthening_mark_after_a_space_or_alone() -> None:
    assert [piece.unknown for piece in pronounce("ー")] == [True]
    assert pronounce("えー")[0].phones[-1] == "e:"


@pytest.mark.parametrize(
    ("text", "kana"),
    [
        ("何ですか", "na N d e s u k a"),
        ("何を", "na n i o"),
        ("何って", "na N q t e"),
        ("何人", "na N n i N"),
        ("何色", "na n i i r o"),
        ("8分", "h a q p u N"),
        ("18個", "j u: h a q k o"),
        ("八百", "h a q py a k u"),
        ("十分かかる", "j u q p u N k a k a r u"),
        ("十分です", "j u: b u N d e s u"),
        ("八百屋", "y a o y a"),
        ("明後日", "a s a q t e"),
        ("1月1日", "i ch i g a ts u ts u i t a ch i"),
        ("私は東京へ行く", "w a t a sh i w a t o: ky o: e i k u"),
    ],
)
def test_readings_that_follow_from_their_neighbours(text: str, kana: str) -> None:
    said = " ".join(phone for piece in pronounce(text) for phone in piece.phones)
    assert said.replace(" ", "") == kana.replace(" ", "")
