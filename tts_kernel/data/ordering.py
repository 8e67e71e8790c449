"""Mel-first order of a manifest: pairs whose mel exists come first, and once available they never move.

The guide re-sorts naively when more mels have been extracted, which moves new rows into the part already trained on.
Here the available rows are a prefix that only ever grows at its end, so a run resumes at the first row not yet seen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tts_kernel.data.files import inside
from tts_kernel.data.manifest import Manifest, ManifestError, read_manifest, write_manifest

MEL_MANIFEST = "gpt_pairs_train_mel.jsonl"


@dataclass(frozen=True)
class Ordered:
    """What an ordering did, in rows."""

    rows: int  # of the manifest; never changes
    stayed: int  # were available before
    added: int  # became available
    waiting: int  # have no mel yet

    def __str__(self) -> str:
        return f"{self.rows} rows: {self.stayed} had a mel and stay, {self.added} more have one, {self.waiting} wait"


def available_prefix(manifest: Manifest) -> int:
    """Rows at the head that have a mel. Raises ManifestError if one further back has, too: such a manifest was not
    ordered by this module, and training on it would lose rows."""
    filled = manifest.has("target_mel_path")
    prefix = len(filled) if filled.all() else int(np.argmin(filled))
    if filled[prefix:].any():
        stray = prefix + int(np.argmax(filled[prefix:]))
        raise ManifestError(
            [
                f"{manifest.path}:{stray + 1}: has a mel although row {prefix + 1} has none; "
                "order it first: python -m tts_kernel.data.extract DATA"
            ]
        )
    return prefix


def mel_first(filled: np.ndarray, prefix: int) -> np.ndarray:
    """(rows,) whether each row's mel exists now, and how many rows at the head were available before -> the order of
    rows: the old prefix as it is, newly available rows in their present order, then the rest in theirs."""
    tail = np.arange(prefix, len(filled))
    now = filled[prefix:]
    return np.concatenate([np.arange(prefix), tail[now], tail[~now]])


def order_mel_first(data: Path, source: str = "gpt_pairs_train.jsonl", target: str = MEL_MANIFEST) -> Ordered:
    """Bring `data/target` up to date with the mels that lie in `data/mel/<target_id>.npy`; made from `data/source` the
    first time. Row count and set of rows stay equal to the source's. Raises ManifestError if a mel that was
    available has vanished."""
    ordered = (data / target).is_file()
    manifest = read_manifest(data / source)
    if ordered:
        ids, manifest = manifest.strings("id").to_pylist(), read_manifest(data / target)
        if Counter(ids) != Counter(manifest.strings("id").to_pylist()):
            raise ManifestError(
                [
                    f"{data / target}: {len(manifest)} rows that are not the {len(ids)} of {source}; the source has "
                    "changed. Runs that began with the old rows end with them: start anew without this file"
                ]
            )
    prefix = available_prefix(manifest) if ordered else 0
    ids = manifest.strings("target_id").to_pylist()
    frames = {clip: _mel_frames(data, clip) for clip in set(ids)}
    lengths = np.array([frames[clip] for clip in ids])
    filled = lengths > 0
    gone = np.flatnonzero(~filled[:prefix])
    if len(gone):
        raise ManifestError([f"{manifest.path}:{row + 1}: mel of {ids[row]} has vanished; extract it" for row in gone])
    paths = pa.array([f"mel/{clip}.npy" if there else None for clip, there in zip(ids, filled, strict=True)])
    table = manifest.table
    for name, column in (
        ("target_mel_path", paths),
        ("target_mel_len", pa.array(np.where(filled, lengths, 0), mask=~filled)),
    ):
        table = table.drop_columns([name]) if name in table.column_names else table
        table = table.append_column(name, column)
    write_manifest(Manifest(table, manifest.path).take(mel_first(filled, prefix)), data / target)
    return Ordered(len(manifest), prefix, int(filled.sum()) - prefix, int((~filled).sum()))


def _mel_frames(data: Path, clip: str) -> int:
    """Frames of a clip's mel from the file's header; 0 where there is none."""
    path = inside(data / "mel", f"{clip}.npy")
    if not path.is_file():
        return 0
    try:
        return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0])
    except (ValueError, EOFError, OSError, IndexError) as error:
        raise ManifestError([f"{path}: not a readable mel ({error}); delete it and extract it again"]) from error
