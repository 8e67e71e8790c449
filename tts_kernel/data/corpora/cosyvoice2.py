"""CosyVoice2 training data: parquet shards with the audio inside, named in `data.list`.

    data.list                    one shard per line
    parquet_000000000.tar        parquet, in spite of its name: see COLUMNS
    utt2parquet_000000000.json   {utterance: shard}, spk2parquet_....json {speaker: shard}
    utt2data.list, spk2data.list one of those files per line

`utt_embedding`, `spk_embedding` and `speech_token` are there if they were computed before; they ride along as columns
of the common table. Upstream opens the names in the lists as they are, so they are written as absolute paths.
Source: FunAudioLLM/CosyVoice, tools/make_parquet_list.py and cosyvoice/dataset/processor.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tts_kernel.data.corpora.collect import Collector, Options
from tts_kernel.data.corpora.lines import read_lines
from tts_kernel.data.corpora.table import TEXT, Account, CorpusError, Imported, Utterances, require
from tts_kernel.data.corpora.unpack import write_bytes
from tts_kernel.data.corpora.write import fitting, new_folder, refuse_existing

COLUMNS = {
    "utt": TEXT,
    "audio_data": pa.binary(),  # the bytes of an audio file
    "wav": TEXT,  # where they came from
    "text": TEXT,
    "spk": TEXT,
    "utt_embedding": pa.list_(pa.float64()),
    "spk_embedding": pa.list_(pa.float64()),
    "speech_token": pa.list_(pa.int64()),
}
_VECTORS = ("utt_embedding", "spk_embedding", "speech_token")
_NEEDED = ("utt", "wav", "text", "spk")
_ROWS = 64  # rows of a row group: what upstream's loader reads at a time


def read_cosyvoice2(
    path: Path, *, audio_folder: Path | None = None, vectors: bool = True, **options: Unpack[Options]
) -> Imported:
    """Read `data.list`, the folder that holds it, or one shard.

    With `audio_folder`, new or empty, the audio is unpacked to `audio_folder/<utterance>.<suffix>`. Without it the
    table names the files that the audio came from, if they still exist. With `vectors=False` embeddings and speech
    tokens, some 4 KB per clip, are not read."""
    path = Path(path)
    if path.suffix in (".tar", ".parquet"):
        account, root, shards = Account(str(path)), path.parent, [path]
    else:
        path = require(path, "data.list")
        account, root = Account(str(path)), path.parent
        shards = _shards(path, account, options.get("allow_outside", False))
    if audio_folder is not None:
        refuse_existing(audio_folder)
        root = Path(audio_folder)
        root.mkdir(parents=True, exist_ok=True)
    rows = Collector(root, account, **options)
    if audio_folder is None:
        rows.hint = "; its bytes are in the shard: audio_folder unpacks them"
    for shard in shards:
        try:
            _read_shard(shard, rows, account, audio_folder, vectors)
        except (pa.ArrowInvalid, OSError) as error:  # Arrow reports a damaged page as an OSError
            account.read += 1
            account.drop("damaged shard", 1, [f"{shard}: {str(error).splitlines()[0]}"])
    return rows.finish()


def _shards(path: Path, account: Account, allow_outside: bool) -> list[Path]:
    """The shards of a list. One that was listed elsewhere but lies beside the list has moved with it."""
    shards = []
    inside = path.parent.resolve()
    for lines in read_lines(path, account):
        account.read -= len(lines.text)  # shards are not clips
        for number, line in zip(lines.numbers, lines.text.to_pylist(), strict=True):
            named = path.parent / line.strip()
            beside = path.parent / named.name
            shard = named if named.is_file() or not beside.is_file() else beside
            if not allow_outside and not shard.resolve().is_relative_to(inside):
                account.read += 1
                why = f"{line!r} leaves {path.parent}; allow_outside accepts it"
                account.drop("shard outside", 1, [f"{path}:{number}: {why}"])
            else:
                shards.append(shard)
    return shards


def _read_shard(shard: Path, rows: Collector, account: Account, audio_folder: Path | None, vectors: bool) -> None:
    file = pq.ParquetFile(shard)
    names = file.schema_arrow.names
    lacking = [name for name in (*_NEEDED, *(["audio_data"] if audio_folder else [])) if name not in names]
    if lacking:
        raise CorpusError(f"{shard}: no column {', '.join(lacking)}; expected {', '.join(COLUMNS)}")
    unwanted = ([] if audio_folder else ["audio_data"]) + ([] if vectors else [*_VECTORS])
    wanted = [name for name in COLUMNS if name in names and name not in unwanted]
    for batch in file.iter_batches(batch_size=_ROWS if audio_folder else 1 << 14, columns=wanted):
        table = pa.table({name: batch.column(name).cast(COLUMNS[name]) for name in wanted})
        account.read += len(table)
        if audio_folder is not None:
            table = _unpacked(table, shard, audio_folder, account)
        renamed = {"utt": "id", "wav": "audio", "spk": "speaker"}
        rows.add({renamed.get(name, name): table.column(name) for name in wanted if name != "audio_data"})


def _unpacked(table: pa.Table, shard: Path, folder: Path, account: Account) -> pa.Table:
    """The rows whose audio could be written to files, with the paths of those."""
    paths, good = [], []
    for row, (name, data) in enumerate(zip(table.column("utt").to_pylist(), table.column("audio_data"), strict=True)):
        path, reason = write_bytes(folder, name or "", data.as_py())
        if reason:
            account.drop(reason, 1, [f"{shard}: {name!r}"])
        else:
            paths.append(path)
            good.append(row)
    table = table.take(pa.array(good, pa.int64()))
    return table.set_column(table.column_names.index("wav"), "wav", pa.array(paths, TEXT))


def write_cosyvoice2(
    utterances: Utterances, folder: Path, *, shard_size: int = 1000, audio: str = "copy", drop_unfit: bool = False
) -> Account:
    """Write shards of `shard_size` utterances and the lists. The audio goes into the shards, whatever `audio` says. The
    table's columns `utt_embedding`, `spk_embedding` and `speech_token` are written where every row has them.
    Raises CorpusError naming a clip without an audio file, and for clips that are parts of longer files."""
    if shard_size < 1:
        raise CorpusError(f"shard_size {shard_size}: expected at least 1 utterance")
    held = {"id": {"^$": "no character"}, "speaker": {"^$": "no character"}}
    utterances, account = fitting(utterances, "CosyVoice2 shards", held, drop_unfit)
    if utterances.has("start").any():
        raise CorpusError("clips that are parts of longer files: write a Kaldi folder first, which cuts them out")
    folder = Path(folder)
    final = folder.absolute()
    lists: dict[str, list[str]] = {"data.list": [], "utt2data.list": [], "spk2data.list": []}
    with new_folder(folder) as scratch:
        for number, start in enumerate(range(0, len(utterances), shard_size)):
            part = utterances.take(np.arange(start, min(start + shard_size, len(utterances))))
            shard = f"parquet_{number:09d}.tar"
            _write_shard(part, scratch / shard)
            lists["data.list"].append(f"{final / shard}\n")
            for kind, name in (("utt", "id"), ("spk", "speaker")):
                names = pc.unique(part.strings(name)).to_pylist()
                text = json.dumps(dict.fromkeys(names, str(final / shard)), ensure_ascii=False, indent=2)
                (scratch / f"{kind}2parquet_{number:09d}.json").write_text(text, encoding="utf-8")
                lists[f"{kind}2data.list"].append(f"{final / f'{kind}2parquet_{number:09d}.json'}\n")
        for name, lines in lists.items():
            (scratch / name).write_text("".join(lines), encoding="utf-8")
    return account


def _write_shard(part: Utterances, path: Path) -> None:
    vectors = [name for name in _VECTORS if len(part) and part.has(name).all()]
    schema = pa.schema([(name, kind) for name, kind in COLUMNS.items() if name not in _VECTORS or name in vectors])
    compression = {name: "none" if name == "audio_data" else "snappy" for name in schema.names}
    dictionary = [name for name in ("spk",) if name in schema.names]
    with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=dictionary) as out:
        for start in range(0, len(part), _ROWS):
            table = part.table.slice(start, _ROWS)
            sources = [(part.root / name).absolute() for name in table.column("audio").to_pylist()]
            columns = {
                "utt": table.column("id"),
                "audio_data": pa.array([_content(source) for source in sources], pa.binary()),
                "wav": pa.array([str(source) for source in sources], TEXT),
                "text": table.column("text"),
                "spk": table.column("speaker"),
            } | {name: table.column(name).cast(COLUMNS[name]) for name in vectors}
            out.write_table(pa.table(columns, schema=schema))


def _content(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except FileNotFoundError as error:
        raise CorpusError(f"{source}: no such audio file; import again to drop the clips that lost theirs") from error
