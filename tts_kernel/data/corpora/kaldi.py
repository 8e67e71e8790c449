"""Kaldi data folders, as ESPnet, WeNet and CosyVoice use them: a few files that map ids to values, sorted by id.

    wav.scp    <recording id> <path of the audio>     without `segments` the recording is the utterance
    text       <utterance id> <transcription>
    utt2spk    <utterance id> <speaker>               no speaker known: the utterance's own id, which is Kaldi's custom
    segments   <utterance id> <recording id> <begin> <end>      optional; seconds, an end of -1 is the recording's
    utt2lang, utt2dur, spk2utt, reco2dur              optional

In wav.scp a value with a `|` is a shell command that makes the audio. It is refused, never executed.
Paths in wav.scp are mostly absolute: those that leave the folder need `allow_outside`.
Source: Kaldi, src/doc/data_prep.dox.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.corpora.collect import Collector, Options
from tts_kernel.data.corpora.lines import glued, read_lines, split_fields
from tts_kernel.data.corpora.table import EXAMPLES, TEXT, Account, Imported, Utterances, first_of_each, require
from tts_kernel.data.corpora.write import FILE_NAME, Audio, fitting, new_folder, place_audio, write_fields

_LINE, _SCP, _SEGMENT = "_line_of_text", "_line_of_scp", "_segment"
_PLACES = (_LINE, _SCP, _SEGMENT)


@dataclass(frozen=True)
class _Map:
    """One file: ids that occur once, their values, and the lines they stand in."""

    path: Path
    ids: pa.ChunkedArray
    values: pa.ChunkedArray
    numbers: np.ndarray

    def rows(self, ids: pa.ChunkedArray) -> pa.ChunkedArray:
        """Where the ids stand here, null where they do not."""
        if self.ids.equals(ids):  # the files of a folder usually have the same order
            return pa.chunked_array([pa.array(np.arange(len(ids)))])
        return pc.index_in(ids, value_set=self.ids)

    def of(self, ids: pa.ChunkedArray) -> pa.ChunkedArray:
        return self.values.take(self.rows(ids))


def read_kaldi(path: Path, *, root: Path | None = None, **options: Unpack[Options]) -> Imported:
    """Read a folder; relative paths start from `root`, by default the folder itself. An utterance of `segments` has
    its beginning in the column `start`; exporters cut it out of its recording.

    The account counts utterances, and of the other files the lines that are of no use."""
    path = Path(path)
    spoken = require(path / "text", "text")
    account = Account(str(path))
    rows = Collector(Path(root or path), account, **options)
    text = _read(spoken, account, empty_values=True)
    audio = _read(require(path / "wav.scp", "wav.scp"), account)
    account.read += len(text.ids)
    columns = {"id": text.ids, "text": text.values, _LINE: pa.array(text.numbers)}
    if (path / "segments").is_file():
        segments = _read(path / "segments", account)
        _count_unmatched(segments, text, account)
        columns |= _cut(segments, text.ids)
        recordings = columns["recording"]
    else:
        _count_unmatched(audio, text, account)
        recordings = text.ids
    place = audio.rows(recordings)
    columns |= {"audio": audio.values.take(place), _SCP: pa.array(audio.numbers).take(place)}
    for name, file in (("speaker", "utt2spk"), ("language", "utt2lang"), ("duration", "utt2dur")):
        if name not in columns and (path / file).is_file():
            columns[name] = _read(path / file, account).of(text.ids)
    if "speaker" in columns:
        columns["speaker"] = pc.if_else(pc.equal(columns["speaker"], text.ids), "", columns["speaker"])
    if "duration" in columns and columns["duration"].type == TEXT:
        columns["duration"] = _seconds(columns["duration"])
    table = _usable(pa.table(columns), path, account)
    numbers = table.column(_LINE).to_numpy()
    rows.add({name: table.column(name) for name in table.column_names if name not in _PLACES}, numbers, spoken)
    return rows.finish()


def write_kaldi(utterances: Utterances, folder: Path, *, audio: Audio = "link", drop_unfit: bool = False) -> Account:
    """Write wav.scp, text, utt2spk, spk2utt, and utt2lang and utt2dur where something is known, sorted by id in byte
    order as Kaldi wants it. Audio goes to `wavs/<id>.<suffix>`; with `audio="refer"` wav.scp has absolute paths."""
    blank = {r"[\s\p{Z}\x{85}]": "a blank"}
    held = {"id": FILE_NAME | blank, "speaker": blank, "language": blank, "text": {r"[\r\n]": "a line end"}}
    utterances, account = fitting(utterances, "a Kaldi folder", held | {"audio": {r"\|": "a '|'"}}, drop_unfit)
    utterances = utterances.take(pc.sort_indices(utterances.strings("id")).to_numpy())
    ids, speakers = utterances.strings("id"), utterances.strings("speaker")
    with new_folder(folder) as scratch:
        placed = place_audio(utterances, scratch, glued("wavs/", ids), audio)
        write_fields(scratch / "wav.scp", [ids, placed], " ")
        write_fields(scratch / "text", [ids, utterances.strings("text")], " ")
        speakers = pc.if_else(pc.equal(speakers, ""), ids, speakers)
        write_fields(scratch / "utt2spk", [ids, speakers], " ")
        listed = (
            pa.table({"speaker": speakers, "id": ids})
            .group_by("speaker", use_threads=False)
            .aggregate([("id", "list")])
        )
        listed = listed.sort_by("speaker")
        spoken = [" ".join(group) for group in listed.column("id_list").to_pylist()]
        write_fields(scratch / "spk2utt", [listed.column("speaker"), pa.array(spoken, TEXT)], " ")
        languages, seconds = utterances.strings("language"), utterances.strings("duration")
        for name, values, known in (
            ("utt2lang", languages, pc.not_equal(languages, "")),
            ("utt2dur", seconds.cast(TEXT), seconds.is_valid()),
        ):
            if pc.any(known).as_py():
                write_fields(scratch / name, [ids.filter(known), values.filter(known)], " ")
    return account


def _read(path: Path, account: Account, empty_values: bool = False) -> _Map:
    """One file. Only its unusable lines are counted, as read and dropped: utterances are counted where they have
    their text."""
    ids, values, numbers = [], [], []
    for lines in read_lines(path, account):
        (found, value), where = split_fields(lines, "", (1, 2) if empty_values else (2,), "<id> <value>", path, account)
        ids.append(found)
        values.append(value.fill_null(""))
        numbers.append(where)
        account.read -= len(where)
    every = pa.chunked_array(ids, TEXT)
    where = np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.int64)
    first = first_of_each(every)
    repeated = np.flatnonzero(~first)
    account.read += len(repeated)
    said = (f"{path}:{where[row]}: id {every[int(row)].as_py()!r} occurs before" for row in repeated[:EXAMPLES])
    account.drop("duplicate id", len(repeated), said)
    values = pc.utf8_trim_whitespace(pa.chunked_array(values, TEXT))
    if len(repeated):
        return _Map(path, every.filter(pa.array(first)), values.filter(pa.array(first)), where[first])
    return _Map(path, every, values, where)


def _count_unmatched(side: _Map, text: _Map, account: Account) -> None:
    """Lines of a side file without an utterance: read, and dropped."""
    rows = np.flatnonzero(side.values.is_valid().to_numpy() & ~pc.is_in(side.ids, value_set=text.ids).to_numpy())
    account.read += len(rows)
    said = (f"{side.path}:{side.numbers[row]}: {side.ids[int(row)].as_py()!r} has no line in text" for row in rows)
    account.drop("no text", len(rows), said)


def _cut(segments: _Map, ids: pa.ChunkedArray) -> dict[str, pa.ChunkedArray]:
    """recording, start, duration, and the segment as it is written, of every utterance; null where it is no segment."""
    written = segments.of(ids)
    parts = pc.extract_regex(written, r"^(?P<recording>\S+)\s+(?P<start>[\d.]+)\s+(?P<end>-1(?:\.0+)?|[\d.]+)$")
    start, end = (_seconds(pc.struct_field(parts, name)) for name in ("start", "end"))
    open_end = pc.match_substring(pc.struct_field(parts, "end"), "-1")
    good = pc.fill_null(pc.or_kleene(open_end, pc.greater(end, start)), False)
    number = pa.scalar(None, pa.float64())
    return {
        "recording": pc.if_else(good, pc.struct_field(parts, "recording"), pa.scalar(None, TEXT)),
        "start": pc.if_else(good, start, number),
        "duration": pc.if_else(good, pc.subtract(end, start), number),
        _SEGMENT: written,
    }


def _usable(table: pa.Table, path: Path, account: Account) -> pa.Table:
    """The utterances that have an audio file; the others are counted with their reason."""

    def without(table: pa.Table, bad: pa.ChunkedArray, reason: str, say: Callable[[dict[str, Any]], str]) -> pa.Table:
        bad = pc.fill_null(bad, False)
        if not pc.any(bad).as_py():
            return table
        rows = table.filter(bad)
        account.drop(reason, len(rows), (say(row) for row in rows.slice(0, EXAMPLES).to_pylist()))
        return table.filter(pc.invert(bad))

    if _SEGMENT in table.column_names:
        bad = pc.and_(table.column(_SEGMENT).is_valid(), table.column("recording").is_null())
        expected = "expected <recording> <begin> <end> in seconds"
        table = without(
            table, bad, "bad segment", lambda row: f"{path}/segments: {row['id']} {row[_SEGMENT]}, {expected}"
        )
    table = without(
        table,
        table.column("audio").is_null(),
        "missing audio",
        lambda row: (
            f"{path}/text:{row[_LINE]}: {row['recording'] if row.get('recording') else row['id']!r} is not in wav.scp"
        ),
    )
    return without(
        table,
        pc.match_substring(table.column("audio"), "|"),
        "command in wav.scp",
        lambda row: f"{path}/wav.scp:{row[_SCP]}: {row['audio']!r:.100} is never executed; write its audio to a file",
    )


def _seconds(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers where they are numbers, null elsewhere."""
    good = pc.fill_null(pc.match_substring_regex(values, r"^\d+(\.\d+)?$"), False)
    return pc.if_else(good, values, pa.scalar(None, TEXT)).cast(pa.float64())
