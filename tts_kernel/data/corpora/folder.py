"""A plain folder: audio files, each with its text in a file of the same name.

    <speaker>/.../<clip>.wav   or .flac, .mp3, .ogg, .opus
    <speaker>/.../<clip>.txt   or .lab, in UTF-8

The speaker is the first subfolder; a clip that lies in the folder itself has none. A clip is called like its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Unpack

import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.corpora.collect import Collector, Options, in_parts
from tts_kernel.data.corpora.lines import LONGEST, glued
from tts_kernel.data.corpora.table import TEXT, Account, CorpusError, Imported, Utterances
from tts_kernel.data.corpora.walk import AUDIO_SUFFIXES, walk
from tts_kernel.data.corpora.write import FILE_NAME, Audio, fitting, new_folder, place_audio, refuse_reference

TEXT_SUFFIXES = (".txt", ".lab")  # the first one that exists


class _Clip(NamedTuple):
    audio: str
    text: str  # path of the file with its text


def read_folder(path: Path, **options: Unpack[Options]) -> Imported:
    """Read every audio file below `path` that has a text. Folders that a link leads to are read as well, each once;
    links out of `path` only with `allow_outside`."""
    path = Path(path)
    if not path.is_dir():
        raise CorpusError(f"{path}: no such folder; expected one with audio files and texts of the same names")
    account = Account(str(path))
    rows = Collector(path, account, **options)
    with ThreadPoolExecutor(options.get("workers") or 8) as pool:
        for part in in_parts(_clips(path, account, options.get("allow_outside", False))):
            texts = list(pool.map(lambda clip: _text(path / clip.text), part, chunksize=64))
            good = [place for place, text in enumerate(texts) if isinstance(text, str)]
            for clip, text in zip(part, texts, strict=True):
                if not isinstance(text, str):
                    account.drop(text.reason, 1, [f"{clip.text}: {text.detail}"])
            audio = [part[place].audio for place in good]
            speakers = [name.split("/")[0] if "/" in name else "" for name in audio]
            found = {"audio": audio, "text": [texts[place] for place in good], "speaker": speakers}
            rows.add({name: pa.array(values, TEXT) for name, values in found.items()})
    return rows.finish()


def write_folder(utterances: Utterances, folder: Path, *, audio: Audio = "link", drop_unfit: bool = False) -> Account:
    """Write `<speaker>/<id>.<suffix>` and `<speaker>/<id>.txt`; clips of an unknown speaker lie in the folder itself.
    Languages are not part of the layout."""
    name = {pattern: what for pattern, what in FILE_NAME.items() if pattern != "^$"}
    held = {"id": FILE_NAME, "speaker": name}
    refuse_reference(audio)
    utterances, account = fitting(utterances, "a folder of clips", held, drop_unfit)
    with new_folder(folder) as scratch:
        speakers = utterances.strings("speaker")
        parents = pc.if_else(pc.equal(speakers, ""), "", glued(speakers, "/"))
        names = glued(parents, utterances.strings("id"))
        place_audio(utterances, scratch, names, audio)
        for name, text in zip(names.to_pylist(), utterances.strings("text").to_pylist(), strict=True):
            (scratch / f"{name}.txt").write_text(f"{text}\n", encoding="utf-8", newline="\n")
    return account


def _clips(root: Path, account: Account, allow_outside: bool) -> Iterator[_Clip]:
    """Every audio file that has a text; what has only one of the two is dropped."""
    for here in walk(root, account, allow_outside):
        names = set(here.files)
        used = set()
        for name in here.files:
            stem, dot, suffix = name.rpartition(".")
            if f"{dot}{suffix}".lower() not in AUDIO_SUFFIXES:
                continue
            account.read += 1
            text = next((stem + end for end in TEXT_SUFFIXES if stem + end in names), None)
            if text is None:
                account.drop("no text", 1, [f"{here.relative(name)}: no {' or '.join(TEXT_SUFFIXES)} of that name"])
                continue
            used.add(text)
            yield _Clip(here.relative(name), here.relative(text))
        lonely = [name for name in here.files if name.endswith(TEXT_SUFFIXES) and name not in used]
        lonely = [name for name in lonely if not any(name.rpartition(".")[0] + end in used for end in TEXT_SUFFIXES)]
        account.read += len(lonely)
        account.drop("missing audio", len(lonely), (f"{here.relative(name)}: no audio of that name" for name in lonely))


class _Bad(NamedTuple):
    reason: str
    detail: str


def _text(path: Path) -> str | _Bad:
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        return _Bad("no text", error.strerror or str(error))
    if len(data) > LONGEST:
        return _Bad("too long", f"more than {LONGEST:,} bytes")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return _Bad("encoding", "not UTF-8")
