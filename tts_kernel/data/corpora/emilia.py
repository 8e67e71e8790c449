"""Emilia and Emilia-YODAS: in-the-wild speech of six languages, mp3 at 24 kHz, with transcripts by a recogniser.

One JSON object per clip:

    {"id": "EN_B00000_S00000_W000000", "wav": "EN_B00000/EN_B00000_S00000/mp3/EN_B00000_S00000_W000000.mp3",
     "text": " The birch canoe.", "duration": 3.228, "speaker": "EN_B00000_S00000", "language": "en", "dnsmos": 3.37}

Emilia-YODAS spells the id `_id`, has no `wav`, and its speakers are `KO_<video>_SPEAKER_04`. They come as

    json    <name>.json beside <name>.mp3, in any folders: the published tar files, unpacked
    jsonl   <batch>.jsonl with one object per line; `wav` starts from the folder of the .jsonl
    tar     WebDataset: <name>.json and <name>.mp3 one after the other; the audio is unpacked into a folder you name

`recording` is the video that a clip was cut from, as speaker or id tell it. `dnsmos` becomes a column.
Source: open-mmlab/Amphion, preprocessors/Emilia/README.md; the dataset amphion/Emilia-Dataset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.corpora.collect import Collector, Options, in_parts
from tts_kernel.data.corpora.lines import Lines, glued, joined, read_lines
from tts_kernel.data.corpora.table import TEXT, Account, CorpusError, Imported, Utterances
from tts_kernel.data.corpora.unpack import read_tars
from tts_kernel.data.corpora.walk import AUDIO_SUFFIXES, is_utf8, walk
from tts_kernel.data.corpora.write import FILE_NAME, Audio, fitting, new_folder, place_audio
from tts_kernel.data.manifest.jsonl import encode, parse

Form = Literal["json", "jsonl", "tar"]

_FIELDS = {
    "id": pa.string(),
    "_id": pa.string(),
    "wav": pa.string(),
    "text": pa.string(),
    "speaker": pa.string(),
    "language": pa.string(),
    "duration": pa.float64(),
    "sample_rate": pa.int32(),
    "recording": pa.string(),
    "dnsmos": pa.float64(),
}


def read_emilia(path: Path, *, audio_folder: Path | None = None, **options: Unpack[Options]) -> Imported:
    """Read a folder of any of the forms, or one .jsonl or .tar file. A folder is of the form jsonl if there are .jsonl
    files in it or one folder down, else tar if there are .tar files, else json. Tar files need `audio_folder`, new or
    empty, for their audio."""
    path = Path(path)
    if not path.exists():
        raise CorpusError(f"{path}: no such file or folder; expected Emilia's json, jsonl or tar files")
    account = Account(str(path))
    form, files = _files(path)
    if form == "tar":
        if audio_folder is None:
            raise CorpusError(f"{path}: the audio lies inside of tar files; pass audio_folder, where to unpack it to")
        rows = Collector(Path(audio_folder), account, **options)
        for part in in_parts(read_tars(files, Path(audio_folder), account)):
            _add_objects(rows, [(member.audio, member.data) for member in part], account)
        return rows.finish()
    root = path if path.is_dir() else path.parent
    rows = Collector(root, account, **options)
    if form == "jsonl":
        for file in files:
            _add_lines(rows, file, root, account)
    else:
        found = _beside(root, account, options.get("allow_outside", False))
        with ThreadPoolExecutor(options.get("workers") or 8) as pool:
            for batch in in_parts(found):
                data = pool.map(lambda names: (root / names[1]).read_bytes(), batch, chunksize=64)
                _add_objects(rows, [(audio, text) for (audio, _), text in zip(batch, data, strict=True)], account)
    return rows.finish()


def write_emilia(
    utterances: Utterances,
    folder: Path,
    *,
    form: Literal["json", "jsonl"] = "jsonl",
    audio: Audio = "link",
    drop_unfit: bool = False,
) -> Account:
    """Write `emilia.jsonl`, or one .json per clip, with the audio at `mp3/<id>.<suffix>` (Emilia's own folder name).
    What is known beyond Emilia's fields, `sample_rate` and `recording`, is written as well."""
    utterances, account = fitting(utterances, "an Emilia corpus", {"id": FILE_NAME}, drop_unfit)
    with new_folder(folder) as scratch:
        placed = place_audio(utterances, scratch, glued("mp3/", utterances.strings("id")), audio)
        columns = {"id": utterances.strings("id"), "wav": placed}
        for name in _FIELDS:
            if name not in ("id", "_id", "wav") and name in utterances.table.column_names:
                columns[name] = utterances.strings(name)
        table = pa.table(columns)
        with (scratch / "emilia.jsonl").open("wb") as file:
            for batch in table.to_batches(max_chunksize=1 << 16):
                file.write(encode(pa.Table.from_batches([batch])))
        if form == "json":
            for line in (scratch / "emilia.jsonl").read_bytes().splitlines():
                (scratch / "mp3" / f"{json.loads(line)['id']}.json").write_bytes(line)
            (scratch / "emilia.jsonl").unlink()
    return account


def _files(path: Path) -> tuple[Form, list[Path]]:
    """The form, and the files of it: those of the folder itself, else those one folder further down."""
    found = [path] if path.is_file() else sorted(path.iterdir())
    for candidates in (found, (file for folder in found if folder.is_dir() for file in sorted(folder.iterdir()))):
        by_suffix: dict[str, list[Path]] = {".jsonl": [], ".tar": []}
        for file in candidates:
            if file.suffix in by_suffix:
                by_suffix[file.suffix].append(file)
        for form in ("jsonl", "tar"):
            if by_suffix[f".{form}"]:
                return form, by_suffix[f".{form}"]
    return "json", []


def _add_lines(rows: Collector, file: Path, root: Path, account: Account) -> None:
    """The objects of a JSON-lines file, parsed by Arrow; where that fails, line by line to learn which are bad."""
    parent = file.parent.relative_to(root).as_posix()
    prefix = "" if parent == "." else f"{parent}/"
    for lines in read_lines(file, account):
        table, numbers = _at_once(lines), lines.numbers
        if table is None:
            good, numbers = _each(lines, file, account)
            table = _objects(good)
        wav = pc.utf8_trim_whitespace(table.column("wav").cast(TEXT).fill_null(""))
        relative = pc.and_(pc.not_equal(wav, ""), pc.invert(pc.starts_with(wav, "/")))
        _add(rows, table, pc.if_else(relative, glued(prefix, wav), wav), numbers, file)


def _at_once(lines: Lines) -> pa.Table | None:
    """One row per line; None if a line is not one object. Arrow reads objects wherever they begin and end, so two in
    one line could make up for one in two."""
    text = pc.ascii_trim_whitespace(lines.text)
    if not pc.all(pc.and_(pc.starts_with(text, "{"), pc.ends_with(text, "}"))).as_py():
        return None
    try:
        table = parse(bytes(joined(lines.text)), _FIELDS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return table.select(list(_FIELDS)) if len(table) == len(lines.text) else None


def _each(lines: Lines, file: Path, account: Account) -> tuple[list[dict[str, Any]], np.ndarray]:
    good, numbers = [], []
    for number, line in zip(lines.numbers, lines.text.to_pylist(), strict=True):
        values, reason, why = _object(line)
        if reason:
            account.drop(reason, 1, [f"{file}:{number}: {why}"])
        else:
            good.append(values)
            numbers.append(number)
    return good, np.array(numbers, dtype=np.int64)


def _add_objects(rows: Collector, found: list[tuple[str, bytes]], account: Account) -> None:
    """Clips by the path of their audio and their JSON."""
    good, audio = [], []
    for path, data in found:
        values, reason, why = _object(data)
        if reason:
            account.drop(reason, 1, [f"{path}: {why}"])
        else:
            good.append(values)
            audio.append(path)
    _add(rows, _objects(good), pa.chunked_array([pa.array(audio, TEXT)]), None, None)


def _object(data: str | bytes) -> tuple[dict[str, Any], str, str]:
    """The fields of one JSON object; or why there are none: reason and detail."""
    try:
        values = json.loads(data if isinstance(data, str) else data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return {}, "encoding", "not UTF-8"
    except (ValueError, RecursionError) as error:
        return {}, "not json", f"not JSON: {error}"
    if not isinstance(values, dict):
        return {}, "not json", f"a JSON {type(values).__name__}, expected an object"
    for name, kind in _FIELDS.items():
        value = values.get(name)
        expected: tuple[type, ...] = (str,) if kind == pa.string() else (int,) if kind == pa.int32() else (int, float)
        if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            return {}, "wrong type", f"{name} is {value!r:.100}, expected {expected[-1].__name__}"
        if isinstance(value, str) and not is_utf8(value):
            return {}, "encoding", f"{name} has half of a surrogate pair"
        if name == "sample_rate" and isinstance(value, int) and not 0 < value < 1 << 31:
            return {}, "wrong type", f"{name} is {value!r:.100}, expected Hz"
    return {name: values.get(name) for name in _FIELDS}, "", ""


def _objects(values: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(values, schema=pa.schema(list(_FIELDS.items())))


def _add(rows: Collector, table: pa.Table, audio: pa.ChunkedArray, lines: np.ndarray | None, file: Path | None) -> None:
    ids = pc.coalesce(table.column("id"), table.column("_id"))
    speaker = table.column("speaker")
    video = pc.struct_field(pc.extract_regex(speaker, r"^(?P<video>.+)_SPEAKER_\d+$"), "video")
    source = pc.struct_field(pc.extract_regex(ids, r"^(?P<source>[A-Z]{2}_B\d+_S\d+)_W\d+$"), "source")
    rows.add(
        {
            "id": ids,
            "audio": audio,
            "text": table.column("text"),
            "speaker": speaker,
            "language": table.column("language"),
            "duration": table.column("duration"),
            "sample_rate": table.column("sample_rate"),
            "recording": pc.coalesce(table.column("recording"), video, source).cast(TEXT),
            "dnsmos": table.column("dnsmos"),
        },
        lines,
        file,
    )


def _beside(root: Path, account: Account, allow_outside: bool) -> Iterator[tuple[str, str]]:
    """(audio, json) of every clip, relative to `root`; what has only one of the two is dropped."""
    for here in walk(root, account, allow_outside):
        names, used = set(here.files), set()
        for name in here.files:
            if not name.endswith(".json"):
                continue
            account.read += 1
            stem = name.removesuffix(".json")
            audio = next((stem + suffix for suffix in (".mp3", *AUDIO_SUFFIXES) if stem + suffix in names), None)
            if audio is None:
                account.drop("missing audio", 1, [f"{here.relative(name)}: no audio of that name"])
                continue
            used.add(audio)
            yield here.relative(audio), here.relative(name)
        lonely = [name for name in here.files if name.lower().endswith(AUDIO_SUFFIXES) and name not in used]
        account.read += len(lonely)
        account.drop("no text", len(lonely), (f"{here.relative(name)}: no .json of that name" for name in lonely))
