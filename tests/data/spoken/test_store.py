"""What is computed once is found again, and never for another text, table or encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tiny_spoken import LINES, make_encoder
from tts_kernel.data.features import FeatureError
from tts_kernel.data.spoken import SpokenStore
from tts_kernel.text.bge_m3 import BGEM3
from tts_kernel.text.phones import to_ids, to_phones
from tts_kernel.text.symbols import MELOTTS, SYMBOLS, Symbols

SENTENCES = [(text, code) for code, text in LINES]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BGEM3:
    return BGEM3(make_encoder(tmp_path_factory.mktemp("encoder") / "bge-m3"))


@pytest.fixture
def store(tmp_path: Path, encoder: BGEM3) -> SpokenStore:
    return SpokenStore(tmp_path / "store", encoder, SYMBOLS)


def test_a_stored_sentence_is_what_the_front_end_says_now(store: SpokenStore, encoder: BGEM3) -> None:
    assert store.fill(SENTENCES, progress=False) == {}
    for text, code in SENTENCES:
        said, stored = to_phones(text, code), store.sentence(store.name(text, code))
        np.testing.assert_array_equal(stored.phones, to_ids(said).phones)
        np.testing.assert_array_equal(stored.tones, to_ids(said).tones)
        np.testing.assert_array_equal(stored.languages, to_ids(said).languages)
        np.testing.assert_allclose(stored.features, encoder.of_phones(said), atol=1e-5)


def test_nothing_is_computed_twice(store: SpokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.fill(SENTENCES, progress=False)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    again = SpokenStore(store.folder, store.encoder, SYMBOLS)
    monkeypatch.setattr(SpokenStore, "_phones", refuse)
    monkeypatch.setattr(BGEM3, "_run", refuse)
    again.fill(SENTENCES, progress=False)
    assert (again.lengths([again.name(*item) for item in SENTENCES]) > 4).all()


def test_another_table_or_encoder_does_not_find_old_phones(store: SpokenStore, tmp_path: Path) -> None:
    store.fill(SENTENCES[:1], progress=False)
    name = store.name(*SENTENCES[0])
    assert SpokenStore(store.folder, store.encoder, Symbols(MELOTTS)).name(*SENTENCES[0]) != name
    other = BGEM3(store.encoder.folder, layer=-1)
    assert SpokenStore(store.folder, other, SYMBOLS).name(*SENTENCES[0]) != name


def test_a_sentence_that_cannot_be_said_is_told_and_not_stored(store: SpokenStore) -> None:
    problems = store.fill([*SENTENCES[:1], ("...", "EN")], progress=False)
    assert list(problems) == [("...", "EN")]
    assert "nothing to say" in problems["...", "EN"]
    with pytest.raises(FeatureError):
        store.sentence(store.name("...", "EN"))
