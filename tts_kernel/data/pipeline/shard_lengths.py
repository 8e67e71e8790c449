"""Lengths of a corpus from its shards: text tokenized, heads of audio files read, nothing decoded.

They are kept in `.<name of the list>.lengths` beside the list, or in the cache folder where that cannot be written, and
read from there while shards and tokenizer are the same: a million utterances in a second.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from tts_kernel.data.pipeline.lengths import ABSENT, EMBEDDING, UNREADABLE, Lengths
from tts_kernel.data.pipeline.processors import PipelineError
from tts_kernel.data.pipeline.shards import REJECTED, STRINGS, TOKENS, VECTORS, open_shard, read_list
from tts_kernel.data.pipeline.text import Encoder
from tts_kernel.runs import cache_folder

log = logging.getLogger(__name__)

FORMAT = 2  # of the kept lengths; raise it when rows are checked for more
_AT_ONCE = 64  # rows, while heads are read
_MOST_NAMED = 5  # rows of a reason
_MOST_SHARDS = 20  # of which the problems are told
Found = TypeVar("Found")
_NUMBERS = {
    "samples": pa.int64(),
    "rates": pa.int32(),
    "text_tokens": pa.int32(),
    "speech_tokens": pa.int32(),
    "reject_tokens": pa.int32(),
    "shards": pa.int32(),
    "rows": pa.int64(),
}
_KEPT = pa.schema([("utterance", pa.large_string()), ("speaker", pa.large_string()), *_NUMBERS.items()])


def read_lengths(data_list: Path, encoder: Encoder) -> Lengths:
    """Lengths of every row of the list's shards, from what was kept of an earlier reading where it still holds.
    Raises PipelineError naming every shard that cannot be used, and every reason why rows of one cannot: a missing
    value, a speech token that is none, an embedding of another width or with NaN."""
    shards = read_list(data_list)
    key = _key(shards, encoder)
    for place in _places(data_list):
        try:
            kept = pq.read_table(place)
        except (OSError, pa.ArrowInvalid):  # none there, or torn
            continue
        if (kept.schema.metadata or {}).get(b"key") == key:
            return _from_table(kept, shards)
    _of_each(shards, lambda number: open_shard(shards[number]).close())  # the columns of all, before rows of any
    parts = _of_each(shards, lambda number: _shard_lengths(shards[number], number, encoder))
    lengths = _from_table(pa.concat_tables(parts), shards)
    keep_lengths(lengths, data_list, encoder)
    return lengths


def keep_lengths(lengths: Lengths, data_list: Path, encoder: Encoder) -> None:
    """Keep the lengths of a list, in the first place that can be written; a warning where none can."""
    speakers = pa.DictionaryArray.from_arrays(lengths.speakers, pa.array(lengths.speaker_names, pa.large_string()))
    columns = {"utterance": lengths.utterances, "speaker": speakers}
    columns |= {name: pa.array(getattr(lengths, name), kind) for name, kind in _NUMBERS.items()}
    table = pa.table(columns).replace_schema_metadata({b"key": _key(read_list(data_list), encoder)})
    refused = []
    for place in _places(data_list):
        scratch = place.with_name(f"{place.name}.{os.getpid()}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, scratch)
            os.replace(scratch, place)
        except OSError as error:  # read-only, or full
            refused.append(f"{place}: {error.strerror or error}")
        else:
            return
        finally:
            scratch.unlink(missing_ok=True)
    log.warning("lengths are not kept and will be read again: %s", "; ".join(refused))


def _places(data_list: Path) -> list[Path]:
    """Beside the list, else in the cache folder."""
    path = Path(data_list)
    path = path / "data.list" if path.is_dir() else path
    name = hashlib.blake2b(str(path.resolve()).encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return [path.with_name(f".{path.name}.lengths"), cache_folder() / "lengths" / name]


def _key(shards: list[Path], encoder: Encoder) -> bytes:
    """What kept lengths depend on."""
    stamps = [(path.name, found.st_size, found.st_mtime_ns) for path in shards for found in [path.stat()]]
    return json.dumps([FORMAT, encoder.fingerprint, stamps]).encode()


def _from_table(table: pa.Table, shards: list[Path]) -> Lengths:
    speakers = table.column("speaker").combine_chunks()
    speakers = speakers if pa.types.is_dictionary(speakers.type) else speakers.dictionary_encode()
    numbers = {name: table.column(name).to_numpy() for name in _NUMBERS}
    return Lengths(
        utterances=table.column("utterance").to_numpy(),
        speakers=speakers.indices.to_numpy(),
        speaker_names=tuple(speakers.dictionary.to_pylist()),
        paths=tuple(shards),
        **numbers,
    )


def _of_each(shards: Sequence[Path], read: Callable[[int], Found]) -> list[Found]:
    """What is read of every shard. Raises PipelineError with the problems of all."""
    found, problems = [], []
    for number in range(len(shards)):
        try:
            found.append(read(number))
        except PipelineError as error:
            problems.append(str(error))
    if len(problems) > _MOST_SHARDS:
        problems[_MOST_SHARDS:] = [f"and {len(problems) - _MOST_SHARDS} more of {len(shards)} shards"]
    if problems:
        raise PipelineError("\n".join(problems))
    return found


def _shard_lengths(path: Path, number: int, encoder: Encoder) -> pa.Table:
    file = open_shard(path)
    rejected = REJECTED in file.schema_arrow.names
    columns = [*STRINGS, "audio_data", *VECTORS, *TOKENS, *([REJECTED] if rejected else [])]
    parts, row = [], 0
    wrong: dict[str, list[str]] = {}
    bar = tqdm(total=file.metadata.num_rows, desc=f"lengths of {path.name}", unit="row", disable=None)
    try:
        for batch in file.iter_batches(batch_size=_AT_ONCE, columns=columns):
            for reason, rows in _wrong(batch).items():
                wrong.setdefault(reason, []).extend(str(batch.column("utt")[at]) for at in np.flatnonzero(rows))
            if not wrong:
                parts.append(_batch_lengths(batch, number, row, encoder))
            row += len(batch)
            bar.update(len(batch))
    except (pa.ArrowInvalid, OSError) as error:  # Arrow reports a damaged page as an OSError
        raise PipelineError(f"{path}: damaged ({str(error).splitlines()[0]}); copy it again") from error
    finally:
        bar.close()
        file.close()
    if wrong:
        said = [
            f"{len(names):,} rows with {reason}, such as {', '.join(names[:_MOST_NAMED])}"
            for reason, names in wrong.items()
        ]
        raise PipelineError("\n  ".join([f"{path}: rows that cannot be used; make these columns again:", *said]))
    return pa.Table.from_batches(parts, _KEPT)


def _wrong(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    """What makes rows useless -> (rows,) bool, where there are any. A missing value is no empty one."""
    found = {f"no {name}": batch.column(name).is_null() for name in (*STRINGS, *VECTORS, *TOKENS)}
    masks = {reason: mask.to_numpy(zero_copy_only=False) for reason, mask in found.items()}
    for name in VECTORS:
        column = batch.column(name)
        widths = pc.fill_null(pc.list_value_length(column), EMBEDDING).to_numpy()
        odd = {int(width) for width in widths} - {EMBEDDING}
        masks |= {f"{name} of {width} values, expected {EMBEDDING}": widths == width for width in sorted(odd)}
        finite = pc.fill_null(pc.is_finite(pc.list_flatten(column).cast(pa.float64())), False)
        masks[f"NaN or infinite values in {name}"] = _holds(column, pc.invert(finite))
    for name in TOKENS:
        column = batch.column(name)
        below = pc.fill_null(pc.less(pc.list_flatten(column).cast(pa.int64()), 0), True)
        masks[f"negative or missing values in {name}"] = _holds(column, below)
    return {reason: mask for reason, mask in masks.items() if mask.any()}


def _holds(lists: pa.Array, bad: pa.BooleanArray) -> np.ndarray:
    """(rows,) bool: whose list has one of the bad among all values."""
    rows = np.zeros(len(lists), dtype=bool)
    rows[pc.list_parent_indices(lists).filter(bad).to_numpy()] = True
    return rows


def _batch_lengths(batch: pa.RecordBatch, shard: int, row: int, encoder: Encoder) -> pa.RecordBatch:
    heads = [_audio_head(data) for data in batch.column("audio_data")]
    count = len(batch)
    rejects = np.full(count, ABSENT)
    if REJECTED in batch.schema.names:
        rejects = pc.fill_null(pc.list_value_length(batch.column(REJECTED)), 0).to_numpy(zero_copy_only=False)
    columns = {
        "utterance": batch.column("utt").to_pylist(),
        "speaker": batch.column("spk").to_pylist(),
        "samples": [samples for samples, _ in heads],
        "rates": [rate for _, rate in heads],
        "text_tokens": [len(encoder.encode(text)) for text in batch.column("text").to_pylist()],
        "speech_tokens": pc.list_value_length(batch.column("speech_token")).to_pylist(),
        "reject_tokens": rejects,
        "shards": np.full(count, shard),
        "rows": np.arange(row, row + count),
    }
    return pa.record_batch(columns, schema=_KEPT)


def _audio_head(data: pa.Scalar) -> tuple[int, int]:
    """Samples per channel and rate of an encoded file; nothing is decoded."""
    import soundfile

    content = data.as_buffer()
    if content is None:
        return UNREADABLE, 0
    try:
        found = soundfile.info(io.BytesIO(content))
    except soundfile.LibsndfileError:
        return UNREADABLE, 0
    return found.frames or UNREADABLE, found.samplerate
