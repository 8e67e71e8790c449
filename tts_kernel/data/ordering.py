"""Mel-first order of a manifest: pairs whose mel exists come first, and once available they never move.

The guide re-sorts naively when more mels have been extracted, which moves new rows into the part already trained on.
Here the available rows are a prefix that only ever grows at its end, so a run resumes at the first row not yet seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.features import FeatureError, Features
from tts_kernel.data.manifest import Manifest, ManifestError, PathRule, read_manifest, write_manifest

TRAIN = "gpt_pairs_train.jsonl"
MEL_MANIFEST = "gpt_pairs_train_mel.jsonl"
_MEL = PathRule("mel/", "target_id", ".npy", where="target_mel_len")


@dataclass(frozen=True)
class Ordered:
    """What an ordering did, in rows."""

    rows: int  # of the manifest; never changes
    stayed: int  # were available before
    added: int  # became available
    waiting: int  # have no mel yet
    changed: int = 0  # had a mel of another length, in the source or in the order before

    def __str__(self) -> str:
        text = f"{self.rows} rows: {self.stayed} had a mel and stay, {self.added} more have one, {self.waiting} wait"
        return text + (f"; {self.changed} mels have another length than was written" if self.changed else "")


def available_prefix(manifest: Manifest) -> int:
    """Rows at the head that have a mel. Raises ManifestError if one further back has, too: such a manifest was not
    ordered by this module, and training on it would lose rows."""
    filled = manifest.has("target_mel_path")
    prefix = len(filled) if filled.all() else int(np.argmin(filled))
    if filled[prefix:].any():
        stray = prefix + int(np.argmax(filled[prefix:]))
        raise ManifestError(
            [
                f"{manifest.path}:{manifest.line(stray)}: has a mel although row {prefix + 1} has none; "
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


def order_mel_first(
    data: Path, source: str = TRAIN, target: str = MEL_MANIFEST, *, allow_outside: bool = False
) -> Ordered:
    """Bring `data/target` up to date with the mels of the data folder (packed, or `mel/<target_id>.npy`); made from
    `data/source` the first time. Its rows are the source's, each once; a field edited in the source is taken over, an
    order once given stays. Raises ManifestError if the source has other rows than the target, or if a mel that was
    available has vanished or is damaged."""
    rows, before, prefix = read_manifest(data / source, allow_outside=allow_outside), None, 0
    digest = rows.digest
    if (data / target).is_file():
        before = read_manifest(data / target, allow_outside=allow_outside)
        prefix = available_prefix(before)
        rows = before if before.made_from == digest else rows.take(_rows_of(before, rows))
    frames = _mel_frames(data, rows)
    filled = frames > 0
    gone = np.flatnonzero(~filled[:prefix])
    if before is not None and len(gone):
        clips = before.take(gone).strings("target_id").to_pylist()
        where = [f"{before.path}:{before.line(row)}" for row in gone]
        raise ManifestError(
            [f"{at}: mel of {clip} has vanished; extract it" for at, clip in zip(where, clips, strict=True)]
        )
    written = _stored_frames(rows)
    changed = int(((written > 0) & filled & (written != frames)).sum())
    done = Ordered(len(rows), prefix, int(filled.sum()) - prefix, int((~filled).sum()), changed)
    if rows is not before or done.added or changed:
        final = mel_first(filled, prefix)
        frames, filled = frames[final], filled[final]
        columns = {"target_mel_len": pa.array(frames.astype(np.int32), mask=~filled), "target_mel_path": _MEL}
        write_manifest(rows.take(final).with_columns(columns), data / target, made_from=digest)
    return done


def _stored_frames(rows: Manifest) -> np.ndarray:
    named = "target_mel_len" in rows
    return np.maximum(rows.numbers("target_mel_len"), 0) if named else np.zeros(len(rows), dtype=np.int32)


def _rows_of(before: Manifest, rows: Manifest) -> np.ndarray:
    """(rows,) the source's row for each row of an earlier order."""
    old, new = before.keys(), rows.keys()
    ranked = np.argsort(new)
    places = np.searchsorted(new[ranked], old) if len(old) == len(new) else np.empty(0, dtype=np.int64)
    if len(old) != len(new) or places.max(initial=0) >= len(new) or not np.array_equal(new[ranked[places]], old):
        raise ManifestError(
            [
                f"{before.path}: {len(old)} rows that are not the {len(new)} of {rows.path.name}; the source has "
                "changed. Runs that began with the old rows end with them: start anew without this file"
            ]
        )
    return ranked[places]


def _mel_frames(data: Path, rows: Manifest) -> np.ndarray:
    """(rows,) frames of each target's mel, 0 where there is none."""
    try:
        mels = Features(data).lengths("mel")
    except FeatureError as error:
        raise ManifestError([str(error)]) from error
    place = pc.index_in(
        rows.strings("target_id"), value_set=mels.column("clip").combine_chunks().cast(pa.large_string())
    )
    place = place.fill_null(len(mels)).to_numpy()
    return np.append(mels.column("frames").to_numpy(), 0)[place]
