"""The embedded demo: the neutral clips of the demo corpus as lists, and a small text encoder made like BGE-M3."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

from tts_kernel.data.demo.corpus import open_corpus
from tts_kernel.data.demo.sentences import SENTENCES
from tts_kernel.recipes.melotts.settings import Settings
from tts_kernel.runs import cache_folder
from tts_kernel.text.bge_m3_demo import make_demo_encoder

CODES = {"ko": "KR", "en": "EN", "zh": "ZH", "ja": "JP"}
WIDTH, HEADS = 64, 4  # of the text encoder
FORMAT = 1  # of the folder; raise it when what is made here changes
_SPLITS = {"gpt_pairs_train.jsonl": "train_list.txt", "gpt_pairs_val.jsonl": "val_list.txt"}


def fill_in(settings: Settings) -> Settings:
    """Settings without `data` get the demo's lists, text encoder and small networks."""
    if settings.data:
        return settings
    folder = open_demo()
    return replace(settings, data=str(folder), encoder=settings.encoder or str(folder / "bge-m3"), model="demo")


def open_demo() -> Path:
    """train_list.txt, val_list.txt, wavs/ and bge-m3/, made on first use (about 20 s more than the corpus) and kept."""
    corpus = open_corpus(cache_folder())
    own = hashlib.sha256(f"{FORMAT} {corpus.name} {WIDTH} {HEADS}".encode()).hexdigest()[:12]
    folder = cache_folder() / f"demo-melotts-{own}"
    if (folder / "bge-m3").is_dir():
        return folder
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        (building / "wavs").mkdir(parents=True)
        for source, target in _SPLITS.items():
            lines = _lines(corpus, source, building / "wavs")
            (building / target).write_text("".join(lines), encoding="utf-8")
        texts = [text for spoken in SENTENCES.values() for text in spoken]
        make_demo_encoder(building / "bge-m3", texts, width=WIDTH, heads=HEADS)
        try:
            os.rename(building, folder)
        except OSError:
            if not (folder / "bge-m3").is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _lines(corpus: Path, manifest: str, wavs: Path) -> list[str]:
    """Of each neutral clip that is a target in the manifest, once; its recording is copied."""
    lines: dict[str, str] = {}
    for line in (corpus / manifest).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        name = f"{row['target_id']}.wav"
        if row["style"] == "neutral" and name not in lines:
            shutil.copyfile(corpus / row["target_audio_path"], wavs / name)
            lines[name] = f"wavs/{name}|{row['text']}|{row['speaker']}|{CODES[row['language']]}\n"
    return [lines[name] for name in sorted(lines)]
