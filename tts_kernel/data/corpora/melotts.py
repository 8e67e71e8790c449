"""MeloTTS lists: one line per clip, audio anywhere below the list's folder.

    wavs/a.wav|text|SPEAKER_001|KR
    <audio>|<text>|<speaker>|<language, which may be left out>

This is the order of the MeloTTS guide that this project follows. Upstream's preprocess_text.py reads
`<audio>|<speaker>|<language>|<text>`: pass `order=UPSTREAM`. Neither can hold a `|`, and there are no ids: a clip is
called like its file. Language codes are KR, EN, ZH, JP, ES, FR. MeloTTS trains on 44,100 Hz.
Source: myshell-ai/MeloTTS, docs/training.md and melo/preprocess_text.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.corpora.collect import Collector, Options
from tts_kernel.data.corpora.lines import glued, read_lines, split_fields
from tts_kernel.data.corpora.table import Account, CorpusError, Imported, Utterances, require
from tts_kernel.data.corpora.write import FILE_NAME, Audio, fitting, new_folder, place_audio, write_fields

GUIDE = ("audio", "text", "speaker", "language")
UPSTREAM = ("audio", "speaker", "language", "text")
_CODES = pa.array(["KR", "KO", "EN", "ZH", "JP", "JA", "ES", "SP", "FR", "ZH_MIX_EN", "EN_V2"])


def read_melotts(path: Path, *, order: tuple[str, ...] = GUIDE, **options: Unpack[Options]) -> Imported:
    """Read a list, or `metadata.list` of a folder; audio paths start from the list's folder, or stay inside it if
    they are absolute. Raises CorpusError if the list is visibly in the other order."""
    path = require(Path(path), "metadata.list")
    _check_order(order)
    fields = (3, 4) if order[-1] == "language" else (4,)
    layout = "|".join(order) + (" (the language may be left out)" if 3 in fields else "")
    account = Account(str(path))
    rows = Collector(path.parent, account, **options)
    for lines in read_lines(path, account):
        columns, numbers = split_fields(lines, "|", fields, layout, path, account)
        columns = [pc.utf8_trim_whitespace(column) for column in columns]
        _refuse_other_order(columns, order, path)
        rows.add(dict(zip(order, columns, strict=True)), numbers, path)
    return rows.finish()


def write_melotts(
    utterances: Utterances,
    folder: Path,
    *,
    order: tuple[str, ...] = GUIDE,
    audio: Audio = "link",
    drop_unfit: bool = False,
) -> Account:
    """Write `metadata.list` and `wavs/<id>.<suffix>`, or, with `audio="refer"`, absolute paths of the audio as it is.
    A language that is unknown is an empty last field."""
    _check_order(order)
    plain = {r"[|\r\n]": "a '|' or a line end"}
    held = {"text": plain, "speaker": plain, "language": plain, "id": FILE_NAME | plain}
    utterances, account = fitting(utterances, "a MeloTTS list", held, drop_unfit)
    with new_folder(folder) as scratch:
        names = glued("wavs/", utterances.strings("id"))
        placed = place_audio(utterances, scratch, names, audio)
        columns = {"audio": placed} | {name: utterances.strings(name) for name in ("text", "speaker", "language")}
        write_fields(scratch / "metadata.list", [columns[name] for name in order], "|")
    return account


def _check_order(order: tuple[str, ...]) -> None:
    if sorted(order) != sorted(GUIDE) or order[0] != "audio":
        raise CorpusError(f"order {'|'.join(order)}: expected {'|'.join(GUIDE)} or {'|'.join(UPSTREAM)}")


def _refuse_other_order(columns: list[pa.Array], order: tuple[str, ...], path: Path) -> None:
    """Reading one order as the other would give clips whose text is a language code, without an error."""
    here, there = order.index("language"), 5 - order.index("language")  # the code's place in either order: 3 or 2
    if len(columns[0]) and _are_codes(columns[there]) and not _are_codes(columns[here]):
        other = UPSTREAM if order == GUIDE else GUIDE
        found = f"field {there + 1} of every line is a language code, as in {'|'.join(other)}"
        raise CorpusError(f"{path}: {found}; pass order={other}")


def _are_codes(column: pa.Array) -> bool:
    return (
        column.null_count == 0 and pc.all(pc.is_in(pc.utf8_upper(column), value_set=_CODES.cast(column.type))).as_py()
    )
