"""The embedded demo corpus as CosyVoice2's shards, made on first use and kept: one voice to learn, seven others.

data.list, cv.list     every voice's shards, to train on and held out
others/{train,cv}/     data.list and a shard of the seven voices of a base model
voice/{train,cv}/      the same of the voice that an adapter learns
bpe.model              the text tokenizer
stand_ins.npz          what made speech tokens and embeddings (data/voices/stand_ins.py)
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from tts_kernel.audio import wav as audio
from tts_kernel.audio.spectrogram import cosyvoice2_mel, cosyvoice2_training_mel
from tts_kernel.audio.wav import resample_sinc
from tts_kernel.data.corpora import Utterances
from tts_kernel.data.demo import corpus
from tts_kernel.data.manifest import read_manifest
from tts_kernel.data.pipeline.lengths import RATE
from tts_kernel.data.voices.prepare import prepare
from tts_kernel.data.voices.stand_ins import CODES, StandIns
from tts_kernel.runs import cache_folder

log = logging.getLogger(__name__)

VOICE = "f5"  # who is learned
_SPLITS = {"train": "gpt_pairs_train.jsonl", "cv": "gpt_pairs_val.jsonl"}
_SHAPED_BY = (
    "data/corpora/cosyvoice2",
    "data/voices/demo",
    "data/voices/extracted",
    "data/voices/prepare",
    "data/voices/stand_ins",
    "audio/codebook",
    "audio/spectrogram",
)


def open_demo() -> Path:
    """The demo's folder in the cache, made on first use (about 20 s after the speech itself). Two processes may call
    this at once."""
    speech = corpus.open_corpus(cache_folder())
    folder = cache_folder() / f"demo-cosyvoice2-{_fingerprint(speech)}"
    if (folder / "data.list").is_file():
        return folder
    log.info("demo: speech tokens and speaker embeddings, once, in about 20 s; kept in %s", folder)
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        make_demo(speech, building, folder)
        try:
            os.rename(building, folder)
        except OSError:
            if not (folder / "data.list").is_file():
                raise
            log.info("demo: another process was faster, its folder is used")
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def make_demo(speech: Path, building: Path, final: Path, voice: str = VOICE, codes: int = CODES) -> None:
    """Write the demo of the corpus `speech` into `building`, which is to be renamed to `final`."""
    building.mkdir(parents=True)
    splits = {name: clips_of(speech, manifest) for name, manifest in _SPLITS.items()}
    others = splits["train"].where(_of(splits["train"], voice, False))
    extractor = StandIns.fit(_mels(others), codes)
    extractor.save(building / "stand_ins.npz")
    shutil.copyfile(speech / "bpe.model", building / "bpe.model")
    for group, of_voice in (("others", False), ("voice", True)):
        for split, clips in splits.items():
            prepare(clips.where(_of(clips, voice, of_voice)), building / group / split, extractor)
    for split, name in (("cv", "cv.list"), ("train", "data.list")):
        shards = [path for group in ("others", "voice") for path in sorted((building / group / split).glob("*.tar"))]
        text = "".join(f"{final / path.relative_to(building)}\n" for path in shards)
        (building / name).write_text(text, encoding="utf-8")
    for path in [*building.glob("*/*/*.list"), *building.glob("*/*/*.json")]:
        named = path.read_text(encoding="utf-8").replace(str(building.absolute()), str(final.absolute()))
        path.write_text(named, encoding="utf-8")


def clips_of(speech: Path, manifest: str) -> Utterances:
    """The clips of one manifest of the speech corpus, each once."""
    pairs = read_manifest(speech / manifest)
    columns = {"id": "target_id", "audio": "target_audio_path", "text": "text", "speaker": "speaker"}
    values = {name: pairs.strings(column).to_pylist() for name, column in (columns | {"language": "language"}).items()}
    _, first = np.unique(values["id"], return_index=True)
    return Utterances.of(speech, **{name: [column[row] for row in first] for name, column in values.items()})


def _of(clips: Utterances, voice: str, wanted: bool) -> np.ndarray:
    """(clips,) bool: whose the clip is."""
    return (np.array(clips.strings("speaker").to_pylist()) == voice) == wanted


def _mels(clips: Utterances) -> list[np.ndarray]:
    mel = cosyvoice2_mel()
    return [
        cosyvoice2_training_mel(resample_sinc(*audio.read(path), RATE), mel)
        for path in tqdm(clips.paths(), desc="mels", unit="clip")
    ]


def _fingerprint(speech: Path) -> str:
    """Of the corpus and of what is made of it."""
    digest = hashlib.sha256(json.dumps([speech.name, VOICE]).encode())
    package = Path(__file__).parents[2]
    for source in _SHAPED_BY:
        digest.update((package / f"{source}.py").read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]
