"""LJSpeech and corpora in its layout: one speaker's clips in `wavs/`, described by `metadata.csv`.

    LJ001-0001|Printing, in the only sense|Printing, in the only sense
    <name of the wav>|<transcription>|<transcription with numbers and abbreviations written out>

The third field may be missing or empty. Despite its name the file is not CSV: quotation marks are characters like any
other, and a `|` cannot be written. LJSpeech itself: 13,100 clips, 24 hours, 22,050 Hz, English, public domain.
Source: keithito.com/LJ-Speech-Dataset, its README.
"""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import pyarrow.compute as pc

from tts_kernel.data.corpora.collect import Collector, Options
from tts_kernel.data.corpora.lines import glued, read_lines, split_fields
from tts_kernel.data.corpora.table import Account, Imported, Utterances, require
from tts_kernel.data.corpora.write import (
    FILE_NAME,
    Audio,
    fitting,
    new_folder,
    place_audio,
    refuse_reference,
    write_fields,
)

_LAYOUT = "id|text or id|text|normalised text"


def read_ljspeech(path: Path, *, normalised: bool = True, **options: Unpack[Options]) -> Imported:
    """Read `metadata.csv`, or the folder that holds it. `text` is the normalised text where there is one, and the
    column `raw_text` the other; with `normalised=False` `text` is the raw one. The corpus names no speaker and no
    language: give them as options."""
    path = require(Path(path), "metadata.csv")
    account = Account(str(path))
    rows = Collector(path.parent, account, **options)
    for lines in read_lines(path, account):
        (ids, raw, written_out), numbers = split_fields(lines, "|", (2, 3), _LAYOUT, path, account)
        ids = pc.utf8_trim_whitespace(ids)
        raw = pc.utf8_trim_whitespace(raw)
        written_out = pc.utf8_trim_whitespace(written_out.fill_null(""))
        text = pc.if_else(pc.equal(written_out, ""), raw, written_out) if normalised else raw
        audio = glued("wavs/", ids, ".wav")
        rows.add({"id": ids, "audio": audio, "text": text, "raw_text": raw}, numbers, path)
    return rows.finish()


def write_ljspeech(utterances: Utterances, folder: Path, *, audio: Audio = "link", drop_unfit: bool = False) -> Account:
    """Write `metadata.csv` and `wavs/<id>.wav`; audio that is not wav is decoded to 16-bit wav. Speakers and languages
    are not part of the layout."""
    refuse_reference(audio)
    utterances, account = fitting(
        utterances,
        "an LJSpeech corpus",
        {
            "id": FILE_NAME | {r"\|": "a '|'"},
            "text": {r"[|\r\n]": "a '|' or a line end"},
            "raw_text": {r"[|\r\n]": "a '|' or a line end"},
        },
        drop_unfit,
    )
    with new_folder(folder) as scratch:
        ids, text = utterances.strings("id"), utterances.strings("text")
        place_audio(utterances, scratch, glued("wavs/", ids), audio, as_wav=True)
        raw = pc.coalesce(utterances.strings("raw_text"), text) if "raw_text" in utterances.table.column_names else text
        write_fields(scratch / "metadata.csv", [ids, raw, text], "|")
    return account
