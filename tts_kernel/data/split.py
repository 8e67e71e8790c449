"""Validation rows held out of a training manifest, the same ones however its rows are ordered."""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa

FEWEST = 64  # clips held out at least, unless that were more than a tenth


def hold_out(target_ids: pa.ChunkedArray, share: float) -> np.ndarray:
    """(rows,) bool: rows whose target is among the held-out clips, `share` of all, chosen by a hash of their id."""
    clips = target_ids.combine_chunks().dictionary_encode()
    names = clips.dictionary.to_pylist()
    count = max(round(share * len(names)), min(FEWEST, len(names) // 10))
    ranked = sorted(range(len(names)), key=lambda number: (zlib.crc32(names[number].encode()), names[number]))
    chosen = np.zeros(len(names), dtype=bool)
    chosen[ranked[:count]] = True
    return chosen[clips.indices.to_numpy()]
