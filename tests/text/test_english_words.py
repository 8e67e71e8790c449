from __future__ import annotations

import pytest

from tts_kernel.text.english_words import is_word, say_word, spell
from tts_kernel.text.symbols import MELOTTS


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("hello", "hh0 eh1 l0 ow2"),
        ("World", "w0 er2 l0 d0"),
        ("very", "V0 eh2 r0 iy1"),
        ("a", "ah1"),
        ("I", "ay2"),
        ("B", "b0 iy2"),
        ("don't", "d0 ow2 n0 t0"),
        ("workbench", "w0 er2 k0 b0 eh3 n0 ch0"),  # two words
        ("TensorFlow", "t0 eh2 n0 s0 er1 f0 l0 ow2"),  # its parts
        ("KBS", "k0 ey2 b0 iy2 eh2 s0"),  # spelled
        ("brrr", "b0 iy2 aa2 r0 aa2 r0 aa2 r0"),  # no vowel
        ("US", "y0 uw2 eh2 s0"),
        ("us", "ah2 s0"),
        ("Kubernetes's", "k0 y0 uw2 b0 er1 n0 ih1 t0 ih1 s0 ih1 z0"),
    ],
)
def test_words(word: str, said: str) -> None:
    phones, tones = say_word(word)
    assert " ".join(f"{phone}{tone}" for phone, tone in zip(phones, tones, strict=True)) == said


def test_a_guess_from_letters_agrees_with_the_dictionary_for_most_words() -> None:
    """On every 500th word of the dictionary, which the model has been trained on: it is wired up as it was trained."""
    from tts_kernel.text.english_words import _dictionary, _guess, _spoken

    words = sorted(word for word in _dictionary() if word.isalpha() and word.isascii())[::500]
    right = sum(_guess(word)[0] == _spoken(_dictionary()[word])[0] for word in words)
    assert right > 0.4 * len(words)


@pytest.mark.parametrize(
    "word", ["blorptastic", "xyzzy", "qwertyuiop", "aaaaaaaaaaaa", "o'zzz'", "ZZtop", "eeeek", "x" * 300]
)
def test_any_letters_come_to_phones_of_the_table(word: str) -> None:
    phones, tones = say_word(word)
    assert phones
    assert set(phones) <= set(MELOTTS)
    assert len(phones) == len(tones)
    assert set(tones) <= {0, 1, 2, 3}


def test_every_letter_has_a_name() -> None:
    assert len(spell("abcdefghijklmnopqrstuvwxyz")[0]) > 26


def test_abbreviations_are_told_from_words() -> None:
    assert is_word("NASA")
    assert not is_word("KBS")
    assert not is_word("US")
