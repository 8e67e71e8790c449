"""A 64-bit key per text of a column: to compare, deduplicate and split millions of names without a Python object
each. The same text gives the same key on every machine and in every version, as splits and checksums depend on it."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ROWS = 1 << 18  # hashed at once
_WIDE = 256  # bytes; longer texts are hashed one by one
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: multiplication by it spreads the bits
_MIX = np.uint64(0xBF58476D1CE4E5B9)  # the finaliser's constants are splitmix64's (Steele et al. 2014)
_MIX2 = np.uint64(0x94D049BB133111EB)


def string_keys(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """(rows,) uint64; a null has the key of the empty text."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = []
    for chunk in chunks:
        if pa.types.is_dictionary(chunk.type):
            keys = string_keys(chunk.dictionary)
            indices = chunk.indices.fill_null(len(keys)).to_numpy(zero_copy_only=False)
            parts.append(np.append(keys, string_keys(pa.array([""])))[indices])
            continue
        parts += [_keys(chunk.slice(start, _ROWS)) for start in range(0, len(chunk), _ROWS)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _keys(texts: pa.Array) -> np.ndarray:
    texts = pc.fill_null(texts, "").cast(pa.large_binary())
    lengths = pc.binary_length(texts).to_numpy(zero_copy_only=False)
    long = lengths > _WIDE
    if long.any():
        short = pc.if_else(pa.array(long), pa.scalar(b"", pa.large_binary()), texts)
        keys = _short_keys(short, np.where(long, 0, lengths))
        for row in np.flatnonzero(long):
            digest = hashlib.blake2b(texts[int(row)].as_py(), digest_size=8).digest()
            keys[row] = int.from_bytes(digest, "little")
        return keys
    return _short_keys(texts, lengths)


def _short_keys(texts: pa.Array, lengths: np.ndarray) -> np.ndarray:
    words = max(-(-int(lengths.max(initial=0)) // 8), 1)
    padded = pc.ascii_rpad(texts.cast(pa.large_string(), safe=False), width=8 * words, padding="\0")
    _, _, data = padded.buffers()
    table = np.frombuffer(data, dtype="<u8", count=len(texts) * words).reshape(len(texts), words)
    keys = lengths.astype(np.uint64) * _ODD
    for number, word in enumerate(table.T):  # a text's key must not depend on how wide its neighbours are
        keys = np.where(lengths > 8 * number, _mixed(keys ^ word.astype(np.uint64)) + _ODD, keys)
    return _mixed(keys)


def _mixed(keys: np.ndarray) -> np.ndarray:
    keys = (keys ^ (keys >> np.uint64(30))) * _MIX
    keys = (keys ^ (keys >> np.uint64(27))) * _MIX2
    return keys ^ (keys >> np.uint64(31))
