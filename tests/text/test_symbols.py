from __future__ import annotations

import numpy as np
import pytest

from tts_kernel.text.symbols import (
    FIRST_TONES,
    LANGUAGE_IDS,
    MELOTTS,
    NUM_LANGUAGES,
    NUM_TONES,
    OTHER_FINALS,
    PAD,
    SYMBOLS,
    TONES,
    Symbols,
    UnknownSymbolError,
    language_ids,
    tone_ids,
)


def test_the_published_table_has_its_published_order() -> None:
    """219 symbols as in layout_full (n_vocab); the places as training_facts recorded them."""
    assert len(MELOTTS) == 219
    places = {"_": 0, "N": 11, "ah": 23, "k": 68, "n": 73, "ow": 80, "ᄂ": 162, "ᄋ": 171, "ᅡ": 179, "ᅧ": 185}
    places |= {"ᆫ": 201, "ᆼ": 206, "!": 208, ".": 212}
    assert {name: MELOTTS.index(name) for name in places} == places


def test_our_table_keeps_every_published_row() -> None:
    assert SYMBOLS.names[:219] == MELOTTS
    assert SYMBOLS.names[219:] == OTHER_FINALS
    assert SYMBOLS.has_all_finals
    assert not Symbols(MELOTTS).has_all_finals


def test_tones_of_the_languages_do_not_overlap() -> None:
    rows = [first + tone for name, first in FIRST_TONES.items() for tone in range(TONES[name])]
    assert len(rows) == len(set(rows))
    assert max(rows) < NUM_TONES
    assert max(LANGUAGE_IDS.values()) < NUM_LANGUAGES
    assert tone_ids([5, 0, 3, 0], ["zh", "ja", "en", "ko"]).tolist() == [5, 6, 10, 11]
    assert language_ids(["zh", "ja", "en", "ko"]).tolist() == [0, 1, 2, 4]


def test_a_phone_outside_the_table_is_named_with_the_sentence() -> None:
    with pytest.raises(UnknownSymbolError, match=r"'a sentence': the phones \['xx', 'yy'\]"):
        SYMBOLS.ids(["a", "yy", "xx"], "a sentence")


@pytest.mark.parametrize("names", [(), ("a", "b"), (PAD, "a", "a")])
def test_a_table_without_padding_first_or_with_a_name_twice_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="begins with '_' and has every name once"):
        Symbols(names)


def test_rows_of_an_older_table_are_found_by_name() -> None:
    older = Symbols((PAD, "b", "ᆸ", "a"))
    newer = Symbols((PAD, "a", "b", "c", "ᆹ", "ᆸ"))
    np.testing.assert_array_equal(newer.rows_in(older), [0, 3, 1, -1, 2, 2])
    grown = SYMBOLS.rows_in(Symbols(MELOTTS))
    np.testing.assert_array_equal(grown[:219], np.arange(219))
    assert set(grown[219:].tolist()) <= {MELOTTS.index(final) for final in "ᆨᆫᆮᆯᆷᆸ"}
