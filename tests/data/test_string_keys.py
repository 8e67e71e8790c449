from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tts_kernel.data.string_keys import string_keys

TEXTS = ["", "a", "b", "한국어", "KO_B00001_S00002_W000003", "x" * 255, "x" * 256, "x" * 257, "y" * 5000, "a\0", "\0a"]


def test_different_texts_have_different_keys() -> None:
    texts = [f"KO_B{n % 99:05d}_S{n % 3001:05d}_W{n:06d}" for n in range(100_000)]
    assert len(np.unique(string_keys(pa.array([*TEXTS, *texts])))) == len(TEXTS) + len(texts)


def test_a_key_depends_on_the_text_alone_not_on_its_neighbours_or_its_column() -> None:
    together = string_keys(pa.array(TEXTS))
    alone = np.concatenate([string_keys(pa.array([text])) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)
    column = pa.array(TEXTS)
    for other in (
        column.cast(pa.large_string()),
        column.dictionary_encode(),
        pa.chunked_array([column.slice(0, 4), column.slice(4)]),
        pa.concat_arrays([pa.array(["z" * 40]), column]).slice(1),
    ):
        np.testing.assert_array_equal(string_keys(other), together)


def test_a_null_has_the_key_of_the_empty_text() -> None:
    for column in (pa.array([None, ""], pa.string()), pa.array([None, ""]).dictionary_encode()):
        keys = string_keys(column)
        assert keys[0] == keys[1] == string_keys(pa.array([""]))[0]


def test_keys_stay_the_same_from_version_to_version() -> None:
    """Splits and the checksums in checkpoints were made with them."""
    found = [f"{key:016x}" for key in string_keys(pa.array(["a", "KO_B00001_S00002_W000003", "x" * 300]))]
    assert found == ["142e2bbd2d46af3c", "1815efe912b153ee", "1546d9cac139b512"]


@pytest.mark.parametrize("column", [pa.array([], pa.string()), pa.chunked_array([], pa.string())])
def test_an_empty_column_has_no_keys(column: pa.Array) -> None:
    assert string_keys(column).shape == (0,)
