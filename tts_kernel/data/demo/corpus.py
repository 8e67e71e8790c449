"""The embedded corpus: a few hundred clips of synthetic speech in the layout of a real corpus, and its documentation.

Eight voices speak everyday sentences, half of them Korean, the rest English, Mandarin and Japanese in kana, in four
styles (neutral, happy, sad, angry) that differ in rate, pitch, range and loudness. A third of every voice's clips
in every style is held out; their sentences are known from other clips, their sound is not.

A corpus is one folder. Every path inside a manifest is relative to the manifest's folder.

    gpt_pairs_train.jsonl   prompt/target pairs, one JSON object per line
    gpt_pairs_val.jsonl     the same for held-out clips
    audio/<speaker>/<clip>.wav   22,050 Hz, 16 bit (a real corpus may bring mp3 and its own folders)
    features/mel-*.tar      shards of mels (data/features/shards.py): float32 (frames, 80), 86.1 frames a second, by
                            audio.spectrogram.indextts2_mel. A manifest names one as mel/<clip>.npy; data/features
                            reads it from here, or from a file of that name where a folder has single files
    codes/<clip>.npy        int64 (code frames,), 25 a second: what the GPT predicts
    semantic/<clip>.npy     float32 (code frames, feature dim): what the conditioners read
    text_ids/<clip>.npy     int64 (tokens,), without start and stop
    bpe.model               SentencePiece tokenizer; ids 0 and 1 are start and stop
    units.npz               audio.units.KMeansUnits: here the codes and semantic features come from k-means over cepstra
    corpus.json             fingerprint, counts, hours; written last
    condition/<clip>.npy, emo_vec/<clip>.npy   not here: they need a model, a recipe adds them

A pair says: speak the target's text with the prompt's voice and the target's emotion. Its fields:

    id                      "<target>__<prompt>", unique
    target_id, prompt_id    two different clips of one speaker, both from the same split
    speaker, language       language is ko, en, zh or ja
    style, text             of the target; ours, readers of a real corpus must not need them
    target_text_ids_path, target_text_len          tokens
    target_codes_path, target_code_len             code frames
    target_mel_path, target_mel_len                mel frames
    target_semantic_path, target_semantic_len      code frames
    prompt_semantic_path, prompt_semantic_len      code frames
    prompt_condition_path, prompt_condition_len    speaker latents of the prompt (IndexTTS-2: 32; the demo's model: 8)
    prompt_emo_vec_path     emotion vector of the *target*: the prompt is neutral whenever the speaker has another
                            neutral clip, so the style can only come from here
    target_audio_path, prompt_audio_path

Speech by eSpeak NG (GPL-3, the extra `demo`), in processes of its own; see data/demo/speech.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from tts_kernel.audio import wav as audio
from tts_kernel.audio.units import KMeansUnits, acoustic_features
from tts_kernel.audio.wav import Hz
from tts_kernel.data.demo.sentences import ESPEAK_LANGUAGE, SENTENCES, SPEAKERS, STYLES, Clip, plan
from tts_kernel.data.extract import extract_mels
from tts_kernel.data.features import Features
from tts_kernel.data.features.shards import FORMAT as SHARD_FORMAT
from tts_kernel.data.files import inside, save_array
from tts_kernel.text.tokenizer import train_tokenizer

SAMPLE_RATE: Hz = 22_050
FORMAT = 2  # of the folder; raise it when a reader has to know


class DemoCorpusError(RuntimeError):
    """The demo corpus cannot be made; the message says what is missing."""


def open_corpus(cache_root: Path) -> Path:
    """Folder of the full demo corpus under `cache_root`, made on first use (about 20 s) and kept.

    Its name carries the fingerprint of everything that shapes it, so a changed sentence or a changed mel makes a new
    folder, and two processes may call this at once. Raises DemoCorpusError if espeakng-loader is not installed."""
    folder = Path(cache_root) / f"demo-corpus-{fingerprint()[:12]}"
    return folder if (folder / "corpus.json").is_file() else make_corpus(folder)


def make_corpus(
    folder: Path,
    *,
    seed: int = 1,
    speakers: int = len(SPEAKERS),
    sentences: int = 48,
    clips_per_style: int = 20,
    pairs_per_target: int = 2,
    codebook_size: int = 128,
    vocab_size: int = 384,
    condition_len: int = 8,
    processes: int = 2,
) -> Path:
    """Make a corpus in `folder` and return it. The content follows from the arguments alone, `processes` aside.

    Each speaker says `clips_per_style` sentences in each style, a third of them held out. The
    corpus is built next to `folder` and renamed at the end; where another process was faster with the same corpus, its
    copy is kept.
    Raises DemoCorpusError if espeakng-loader is missing, speech fails, or `folder` holds something else; ValueError
    if a size is out of range.
    """
    options = {
        "seed": seed,
        "speakers": speakers,
        "sentences": sentences,
        "clips_per_style": clips_per_style,
        "pairs_per_target": pairs_per_target,
        "codebook_size": codebook_size,
        "vocab_size": vocab_size,
        "condition_len": condition_len,
    }
    _check(options | {"processes": processes})
    if importlib.util.find_spec("espeakng_loader") is None:
        raise DemoCorpusError('the demo corpus needs espeakng-loader, found none: pip install "tts_kernel[demo]"')
    folder = Path(folder)
    if folder.exists():
        return _existing(folder, fingerprint(**options))
    clips = plan(seed=seed, speakers=speakers, sentences=sentences, clips_per_style=clips_per_style)

    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        for name in ("codes", "semantic", "text_ids"):
            (building / name).mkdir(parents=True)
        _speak(clips, building, processes)
        report = extract_mels([(clip.id, Path(clip.audio_path)) for clip in clips], building)
        if len(report.failures):
            raise DemoCorpusError(f"mels failed: {report.failures.slice(0, 3).to_pylist()}")
        _write_codes(clips, building, codebook_size, seed)
        # The tokenizer may read held-out text, as a public one has; no clip of it is in training.
        chosen = sorted({(clip.language, clip.text) for clip in clips})
        tokenizer = train_tokenizer([text for _, text in chosen], building / "bpe.model", vocab_size)
        for clip in clips:
            save_array(building / "text_ids" / f"{clip.id}.npy", np.array(tokenizer.encode(clip.text), dtype=np.int64))
        pairs = {}
        for split in ("train", "val"):
            members = [clip for clip in clips if clip.held_out == (split == "val")]
            rows = _pairs(members, building, pairs_per_target, condition_len, seed)
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (building / f"gpt_pairs_{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
            pairs[split] = len(rows)
        _write_summary(clips, building, options, pairs)
        _publish(building, folder, fingerprint(**options))
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def fingerprint(**options: int) -> str:
    """Hash of what determines a corpus: `make_corpus`'s arguments, the code that makes it and its libraries.

    Without arguments: the defaults."""
    defaults = {key: value for key, value in (make_corpus.__kwdefaults__ or {}).items() if key != "processes"}
    digest = hashlib.sha256(json.dumps([FORMAT, SHARD_FORMAT, defaults | options], sort_keys=True).encode())
    package = Path(__file__).parents[2]
    sources = ("audio/wav", "audio/spectrogram", "audio/clip_mel", "audio/codebook", "audio/units", "text/tokenizer")
    for source in (*sources, "data/demo/speech", "data/demo/sentences", "data/demo/corpus"):
        digest.update((package / f"{source}.py").read_bytes().replace(b"\r\n", b"\n"))
    for library in ("espeakng-loader", "numpy", "scikit-learn", "sentencepiece", "torch", "torchaudio"):
        if library == "espeakng-loader" and importlib.util.find_spec("espeakng_loader") is None:
            raise DemoCorpusError('the demo corpus needs espeakng-loader, found none: pip install "tts_kernel[demo]"')
        digest.update(f"{library}=={version(library)}\n".encode())
    return digest.hexdigest()


def _check(options: dict[str, int]) -> None:
    """Raises ValueError listing every size that is out of range, or a sentence eSpeak would not read."""
    total = sum(len(texts) for texts in SENTENCES.values())
    ranges = {
        "seed": (0, 2**32 - 1),
        "speakers": (1, len(SPEAKERS)),
        "sentences": (4, total),
        "clips_per_style": (3, options["sentences"]),
        "pairs_per_target": (1, 100),
        "codebook_size": (2, 8192),
        "vocab_size": (8, 32_000),
        "condition_len": (1, 1024),
        "processes": (1, 64),
    }
    problems = [
        f"{key} is {options[key]}, expected {low} to {high}"
        for key, (low, high) in ranges.items()
        if not low <= options[key] <= high
    ]
    for language in ("ko", "ja"):
        for text in SENTENCES[language]:
            if any("\u3400" <= letter <= "\u9fff" or "\uf900" <= letter <= "\ufaff" for letter in text):
                problems.append(f"{text!r} has Chinese characters; eSpeak reads them as such, write kana or hangul")
    if problems:
        raise ValueError("; ".join(problems))


def _speak(clips: Sequence[Clip], folder: Path, processes: int) -> None:
    """Write every clip's wav, with `processes` eSpeak programs side by side."""
    package_root = Path(__file__).parents[3]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(package_root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "OPENBLAS_NUM_THREADS": "1",  # its thread pool has no work there and would be forked with every job
    }

    with tempfile.TemporaryDirectory() as jobs_folder, tqdm(total=len(clips), desc="speech", unit="clip") as bar:

        def run(part: int) -> None:
            jobs = Path(jobs_folder) / f"{part}.jsonl"
            lines = [json.dumps(_job(clip), ensure_ascii=False) + "\n" for clip in clips[part::processes]]
            jobs.write_text("".join(lines), encoding="utf-8")
            errors = Path(jobs_folder) / f"{part}.err"
            command = [sys.executable, "-m", "tts_kernel.data.demo.speech", str(jobs), str(folder)]
            with (
                errors.open("w", encoding="utf-8") as stderr,
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment) as program,
            ):
                for _ in program.stdout or ():
                    bar.update()
            if program.returncode != 0:
                reason = errors.read_text(encoding="utf-8", errors="replace").strip()
                raise DemoCorpusError(f"eSpeak NG failed with exit code {program.returncode}: {reason[-2000:]}")

        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(run, range(processes)))


def _job(clip: Clip) -> dict[str, Any]:
    language = ESPEAK_LANGUAGE[clip.language]
    spoken = {"path": clip.audio_path, "text": clip.text, "language": language, "variant": clip.speaker}
    return spoken | asdict(STYLES[clip.style])


def _write_codes(clips: Sequence[Clip], folder: Path, codebook_size: int, seed: int) -> None:
    """Fit the units on the training clips; write semantic features and codes of all."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the last bit of a sum may follow the number of threads; one is also the fastest here
        raw = [
            acoustic_features(*audio.read(folder / clip.audio_path, SAMPLE_RATE))
            for clip in tqdm(clips, desc="features", unit="clip")
        ]
        training = [features for clip, features in zip(clips, raw, strict=True) if not clip.held_out]
        units = KMeansUnits.fit(training, codebook_size, seed)
        units.save(folder / "units.npz")
        for clip, unscaled in zip(clips, raw, strict=True):
            features = units.standardise(unscaled)
            save_array(folder / "semantic" / f"{clip.id}.npy", features)
            save_array(folder / "codes" / f"{clip.id}.npy", units.encode(features))


def _pairs(
    clips: Sequence[Clip], folder: Path, pairs_per_target: int, condition_len: int, seed: int
) -> list[dict[str, Any]]:
    """Rows of one split, in a seeded order (a trainer that reads in order must not meet one speaker at a time)."""
    rng = np.random.default_rng(seed + 1)
    features = Features(folder)
    kinds = ("mel", "codes", "semantic", "text_ids")
    arrays = zip(*(features.read_kind(kind, [clip.id for clip in clips]) for kind in kinds), strict=True)
    lengths = {clip.id: dict(zip(kinds, map(len, of), strict=True)) for clip, of in zip(clips, arrays, strict=True)}
    rows = []
    for target in clips:
        others = [clip for clip in clips if clip.speaker == target.speaker and clip.id != target.id]
        neutral = [clip for clip in others if clip.style == "neutral"]
        candidates = neutral or others
        for index in rng.permutation(len(candidates))[:pairs_per_target]:
            rows.append(_row(target, candidates[index], lengths, condition_len))
    return [rows[index] for index in rng.permutation(len(rows))]


def _row(target: Clip, prompt: Clip, lengths: dict[str, dict[str, int]], condition_len: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": f"{target.id}__{prompt.id}",
        "target_id": target.id,
        "prompt_id": prompt.id,
        "speaker": target.speaker,
        "language": target.language,
        "style": target.style,
        "text": target.text,
        "target_text_ids_path": f"text_ids/{target.id}.npy",
        "target_text_len": lengths[target.id]["text_ids"],
        "target_codes_path": f"codes/{target.id}.npy",
        "target_code_len": lengths[target.id]["codes"],
        "prompt_condition_path": f"condition/{prompt.id}.npy",
        "prompt_condition_len": condition_len,
        "prompt_emo_vec_path": f"emo_vec/{target.id}.npy",
        "target_audio_path": target.audio_path,
        "prompt_audio_path": prompt.audio_path,
        "target_mel_path": f"mel/{target.id}.npy",
        "target_mel_len": lengths[target.id]["mel"],
        "target_semantic_path": f"semantic/{target.id}.npy",
        "prompt_semantic_path": f"semantic/{prompt.id}.npy",
        "prompt_semantic_len": lengths[prompt.id]["semantic"],
        "target_semantic_len": lengths[target.id]["semantic"],
    }
    return row


def _write_summary(clips: Sequence[Clip], folder: Path, options: dict[str, int], pairs: dict[str, int]) -> None:
    seconds = {"train": 0.0, "val": 0.0}
    for clip in clips:
        samples, rate = audio.read(inside(folder, clip.audio_path))
        seconds["val" if clip.held_out else "train"] += len(samples) / rate
    summary = {
        "format": FORMAT,
        "fingerprint": fingerprint(**options),
        "options": options,
        "speakers": sorted({clip.speaker for clip in clips}),
        "styles": list(STYLES),
        "languages": sorted({clip.language for clip in clips}),
        "clips": {"train": sum(not clip.held_out for clip in clips), "val": sum(clip.held_out for clip in clips)},
        "pairs": pairs,
        "hours": {split: round(value / 3600.0, 4) for split, value in seconds.items()},
        "espeakng_loader": version("espeakng-loader"),
        "licence": "Sentences written for tts_kernel, under its licence. Speech synthesised with eSpeak NG, "
        "a separate program under GPL-3.",
    }
    (folder / "corpus.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _publish(building: Path, folder: Path, expected: str) -> None:
    """Give the finished corpus its name; if another process was faster, theirs stays."""
    try:
        os.rename(building, folder)  # refuses a folder that is not empty
    except OSError:
        if not folder.exists():
            raise
        _existing(folder, expected)


def _existing(folder: Path, expected: str) -> Path:
    """`folder` if it already is the corpus that was asked for."""
    summary = folder / "corpus.json"
    found = json.loads(summary.read_text(encoding="utf-8")).get("fingerprint") if summary.is_file() else None
    if found != expected:
        raise DemoCorpusError(
            f"{folder}: exists and is not this corpus (fingerprint {str(found)[:12]}, expected {expected[:12]}); "
            "remove it or name another folder"
        )
    return folder
