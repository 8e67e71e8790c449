"""Prepare a corpus for CosyVoice2 and print what became of its clips. Started again after it was stopped, it goes on.

python -m tts_kernel.data.voices folder clips data/voice --speaker me \
    --speech-tokenizer CosyVoice2-0.5B/speech_tokenizer_v2.onnx --campplus CosyVoice2-0.5B/campplus.onnx
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from pathlib import Path

from tts_kernel.data import corpora
from tts_kernel.data.corpora.write import refuse_existing
from tts_kernel.data.voices import Extractor, OnnxExtractor, StandIns, prepare


def run(kind: str, source: Path, target: Path, extractor: Extractor, speaker: str, **options: int) -> str:
    """Read, extract and write; returns both accounts in words. `options` are those of `prepare`."""
    refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    unpacked = target.with_name(f".{target.name}.{os.getpid()}.unpacked")  # `prepare` removes it if this process dies
    try:
        inside = {"audio_folder": unpacked} if kind in ("cosyvoice2", "emilia") else {}
        imported = getattr(corpora, f"read_{kind}")(source, speaker=speaker, **inside)
        account = prepare(imported.utterances, target, extractor, **options)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return f"{imported.account}\n{account}\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tts_kernel.data.voices", description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=corpora.KINDS, help="layout of the corpus")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, help="a folder that does not exist or is empty")
    parser.add_argument("--speech-tokenizer", type=Path, help="speech_tokenizer_v2.onnx")
    parser.add_argument("--campplus", type=Path, help="campplus.onnx")
    parser.add_argument("--stand-ins", type=Path, help="stand_ins.npz of a demo, for its models, instead of the two")
    parser.add_argument("--speaker", default="", help="of clips whose source names none")
    parser.add_argument("--shard-size", type=int, default=1000, help="clips per shard")
    parser.add_argument("--workers", type=int, default=2, help="clips at once")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR)  # the accounts say what the warnings would
    if (given.speech_tokenizer is None) != (given.campplus is None) or (given.campplus is None) == (
        given.stand_ins is None
    ):
        parser.error("name --speech-tokenizer and --campplus, or --stand-ins")
    try:
        extractor: Extractor
        if given.stand_ins:
            extractor = StandIns.load(given.stand_ins)
        else:
            extractor = OnnxExtractor(given.speech_tokenizer, given.campplus)
        options = {"shard_size": given.shard_size, "workers": given.workers}
        sys.stdout.write(run(given.kind, given.source, given.target, extractor, given.speaker, **options))
    except (ValueError, OSError) as error:  # CorpusError and OnnxError among them; a full disk
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
