"""Puts the indices of many shards together into one file, for folders with many small shards."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from tts_kernel.data.features.folder_lock import StoreError
from tts_kernel.data.features.shard_index import open_index
from tts_kernel.data.features.shards import JOINED, SCHEMA, Shard, read_index, shards_metadata, write_index
from tts_kernel.data.features.store_lock import writing


def compact(folder: Path) -> tuple[int, int]:
    """Replace all indices in `folder` by one. The shards stay as they are, and so does what they hold.

    Returns the number of indices before and after. Raises StoreError if one cannot be read, or a job is writing."""
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder; nothing has been packed")
    with writing(folder, "compaction"):
        paths = sorted(folder.glob("*.arrow"))
        if len(paths) < 2:
            return len(paths), len(paths)
        shards: list[Shard] = []
        numbers: dict[str, int] = {}
        parts = []
        for path in paths:
            table, own = read_index(path)
            mapping = []
            for shard in own:  # one that two files list, as they were being put together, is taken once
                mapping.append(-1 if shard.name in numbers else len(shards))
                if shard.name not in numbers:
                    numbers[shard.name] = len(shards)
                    shards.append(shard)
            renumbered = np.array(mapping, dtype=np.int32)[table["shard"].to_numpy()]
            table = table.set_column(SCHEMA.get_field_index("shard"), "shard", pa.array(renumbered))
            parts.append(table.replace_schema_metadata(None).filter(pa.array(renumbered >= 0)))
        joined = pa.concat_tables(parts).unify_dictionaries().replace_schema_metadata(shards_metadata(shards))
        target = folder / f"{JOINED}{time.time_ns():x}.arrow"
        write_index(target, joined)
        for path in paths:
            os.unlink(path)
    open_index(folder)
    return len(paths), 1
