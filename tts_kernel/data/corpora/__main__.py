"""Rewrite a corpus in another layout and print what became of its clips.

python -m tts_kernel.data.corpora ljspeech LJSpeech-1.1 kaldi data/ljspeech --speaker lj
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from tts_kernel.data import corpora
from tts_kernel.data.corpora.write import refuse_existing


def convert(
    kind: str, source: Path, target_kind: str, target: Path, audio: str, **options: Any
) -> list[corpora.Account]:
    """Read and write; returns the accounts of both. Audio inside of shards and tars is unpacked beside the target
    first. Raises CorpusError if the target exists and is not an empty folder."""
    refuse_existing(target)
    drop_unfit = options.pop("drop_unfit")
    read, write = getattr(corpora, f"read_{kind}"), getattr(corpora, f"write_{target_kind}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as unpacked:
        if kind in ("cosyvoice2", "emilia"):
            options["audio_folder"] = Path(unpacked)
        imported = read(source, **options)
        if audio == "refer" and imported.utterances.root == Path(unpacked):
            raise corpora.CorpusError(f"{source}: its audio lies inside of other files; use --audio link")
        return [imported.account, write(imported.utterances, target, audio=audio, drop_unfit=drop_unfit)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tts_kernel.data.corpora", description=__doc__.splitlines()[0])
    parser.add_argument("source_kind", choices=corpora.KINDS)
    parser.add_argument("source", type=Path)
    parser.add_argument("target_kind", choices=corpora.KINDS)
    parser.add_argument("target", type=Path, help="a folder that does not exist or is empty")
    parser.add_argument("--audio", choices=("link", "copy", "refer"), default="link", help="how audio gets there")
    parser.add_argument("--allow-outside", action="store_true", help="accept paths that leave the source folder")
    parser.add_argument("--probe", action="store_true", help="open every audio file, drop what is unreadable")
    parser.add_argument("--drop-unfit", action="store_true", help="leave out what the target cannot hold")
    parser.add_argument("--speaker", default="", help="of clips whose source names none")
    parser.add_argument("--language", default="", help="of clips whose source names none")
    given = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.ERROR)  # the accounts say what the warnings would
    places = [given.pop(name) for name in ("source_kind", "source", "target_kind", "target")]
    try:
        accounts = convert(*places, **given)
    except corpora.CorpusError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("\n".join(map(str, accounts)) + "\n")
    return 0 if accounts[-1].kept else 1


if __name__ == "__main__":
    sys.exit(main())
