"""A corpus -> `data.list` and shards with speech tokens and speaker embeddings, with an account of every clip."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from tts_kernel.audio import wav as audio
from tts_kernel.audio.wav import AudioError, Hz
from tts_kernel.data.corpora import Account, CorpusError, Utterances, write_cosyvoice2
from tts_kernel.data.corpora.write import refuse_existing
from tts_kernel.data.pipeline.lengths import EMBEDDING
from tts_kernel.data.voices.extracted import Extracted, Extractor, claimed, content_of, keep_parts, read_parts

log = logging.getLogger(__name__)

LOWEST: Hz = 16_000  # below it the pipeline drops a clip
_VECTOR, _TOKENS = pa.list_(pa.float64()), pa.list_(pa.int64())  # as upstream writes them


def prepare(
    utterances: Utterances, folder: Path, extractor: Extractor, *, shard_size: int = 1000, workers: int = 2
) -> Account:
    """Write `folder/data.list` and its shards; `folder` must not exist or be empty. A speaker's embedding is the mean
    of their utterances'. A run that ended before its shards were whole goes on where it was (data/voices/extracted.py).

    Dropped, each with its reason: audio that cannot be read or holds NaN, a rate below 16 kHz, what gives no speech
    tokens, clips without a speaker. Raises CorpusError where nothing is left, where something lies in the way, and for
    clips that are parts of longer files."""
    folder = Path(folder)
    refuse_existing(folder)
    if shard_size < 1 or workers < 1:
        raise CorpusError(f"shard_size {shard_size} and workers {workers}: expected at least 1 of either")
    if utterances.has("start").any():
        raise CorpusError("clips that are parts of longer files: write a Kaldi folder first, which cuts them out")
    account = Account(str(utterances.root), read=len(utterances))
    with claimed(folder) as work:
        found = list(_all(utterances, extractor, workers, work))
        for clip in found:
            if clip.reason:
                account.drop(clip.reason, 1, [f"{clip.name}: {clip.detail}"])
        kept = np.flatnonzero([not clip.reason for clip in found])
        account.kept = len(kept)
        if account.dropped:
            log.warning("%s", account)
        if not len(kept):
            raise CorpusError(f"{account}\nnothing is left to write")
        chosen = [found[place] for place in kept]
        rows = utterances.take(kept)
        vectors = np.stack([clip.embedding for clip in chosen]).astype(np.float64)
        means = _means(rows.strings("speaker").to_pylist(), vectors)
        rows = rows.with_column("utt_embedding", pa.array(list(vectors), _VECTOR))
        rows = rows.with_column("spk_embedding", pa.array(list(means), _VECTOR))
        rows = rows.with_column("speech_token", pa.array([clip.tokens for clip in chosen], _TOKENS))
        write_cosyvoice2(rows, folder, shard_size=shard_size)
        shutil.rmtree(work)
    return account


def _all(utterances: Utterances, extractor: Extractor, workers: int, work: Path) -> Iterator[Extracted]:
    """Of every clip in order: what was kept of it, if its file is the same, or what is extracted now."""
    known = read_parts(work, extractor)
    if known:
        log.info("%s clips were extracted before", f"{len(known):,}")
    names, speakers = utterances.strings("id").to_pylist(), utterances.strings("speaker").to_pylist()
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(
            lambda name, path: _extract(name, path, known.get(name), extractor), names, utterances.paths()
        )
        bar = tqdm(keep_parts(work, results, known), total=len(names), desc="voices", unit="clip")
        for clip, speaker in zip(bar, speakers, strict=True):
            nobody = "" if speaker or clip.reason else "whose voice is it? Name one with --speaker"
            yield replace(clip, reason="no speaker", detail=nobody) if nobody else clip


def _extract(name: str, path: Path, known: Extracted | None, extractor: Extractor) -> Extracted:
    nothing = Extracted(name, "", np.zeros(0, np.int64), np.zeros(0, np.float32))
    try:
        content = content_of(path)
        if known is not None and known.content == content:
            return known
        wav, rate = audio.read(path)
    except (AudioError, OSError) as error:
        return replace(nothing, reason="unreadable audio", detail=str(error))
    if rate < LOWEST:
        return replace(nothing, reason="sample rate too low", detail=f"{rate:,} Hz, expected {LOWEST:,} at least")
    try:
        tokens, embedding = extractor.tokens(wav, rate), extractor.embedding(wav, rate)
    except ValueError as error:  # too short for a window
        return replace(nothing, reason="no features", detail=str(error))
    if not len(tokens):
        detail = f"{len(wav) / rate:.1f} s; the speech tokenizer takes 30 s at most"
        return replace(nothing, reason="no speech tokens", detail=detail)
    if embedding.shape != (EMBEDDING,) or not np.isfinite(embedding).all():
        detail = f"shape {embedding.shape}, expected ({EMBEDDING},) of finite values"
        return replace(nothing, reason="no embedding", detail=detail)
    return Extracted(name, content, tokens, embedding)


def _means(speakers: list[str], vectors: np.ndarray) -> np.ndarray:
    """(rows, 192) -> the same shape: each row's speaker's mean."""
    names, numbers = np.unique(speakers, return_inverse=True)
    sums = np.zeros((len(names), vectors.shape[1]))
    np.add.at(sums, numbers, vectors)
    return (sums / np.bincount(numbers)[:, None])[numbers]
