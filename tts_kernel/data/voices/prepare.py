"""A corpus -> `data.list` and shards with speech tokens and speaker embeddings, with an account of every clip."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from tts_kernel.audio import wav as audio
from tts_kernel.audio.wav import AudioError, Hz
from tts_kernel.data.corpora import Account, CorpusError, Utterances, write_cosyvoice2
from tts_kernel.data.pipeline.lengths import EMBEDDING

log = logging.getLogger(__name__)

LOWEST: Hz = 16_000  # below it the pipeline drops a clip
_VECTOR, _TOKENS = pa.list_(pa.float64()), pa.list_(pa.int64())  # as upstream writes them


class Extractor(Protocol):
    """What fills the columns of a shard; called by several threads at once."""

    def tokens(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        """(samples,) in [-1, 1] -> (tokens,) int64, 25 a second; empty where it cannot."""
        ...

    def embedding(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        """(samples,) in [-1, 1] -> (192,) float32."""
        ...


@dataclass(frozen=True)
class _Extracted:
    tokens: np.ndarray
    embedding: np.ndarray
    reason: str = ""  # why there is nothing
    detail: str = ""


def prepare(
    utterances: Utterances, folder: Path, extractor: Extractor, *, shard_size: int = 1000, workers: int = 2
) -> Account:
    """Write `folder/data.list` and its shards; `folder` must not exist or be empty. A speaker's embedding is the mean
    of their utterances'. Dropped, each with its reason: audio that cannot be read or holds NaN, a rate below 16 kHz,
    what gives no speech tokens, clips without a speaker. Raises CorpusError where nothing is left, or where something
    lies in the way."""
    account = Account(str(utterances.root), read=len(utterances))
    names = utterances.strings("id").to_pylist()
    found: list[_Extracted] = []
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda path: _extract(path, extractor), utterances.paths())
        found.extend(_with_speaker(tqdm(results, total=len(names), desc="voices", unit="clip"), utterances))
    for name, result in zip(names, found, strict=True):
        if result.reason:
            account.drop(result.reason, 1, [f"{name}: {result.detail}"])
    kept = np.flatnonzero([not result.reason for result in found])
    account.kept = len(kept)
    if account.dropped:
        log.warning("%s", account)
    if not len(kept):
        raise CorpusError(f"{account}\nnothing is left to write")
    chosen = [found[place] for place in kept]
    rows = utterances.take(kept)
    vectors = np.stack([result.embedding for result in chosen]).astype(np.float64)
    means = _means(rows.strings("speaker").to_pylist(), vectors)
    rows = rows.with_column("utt_embedding", pa.array(list(vectors), _VECTOR))
    rows = rows.with_column("spk_embedding", pa.array(list(means), _VECTOR))
    rows = rows.with_column("speech_token", pa.array([result.tokens for result in chosen], _TOKENS))
    write_cosyvoice2(rows, folder, shard_size=shard_size)
    return account


def _with_speaker(results: Iterator[_Extracted], utterances: Utterances) -> Iterator[_Extracted]:
    for result, speaker in zip(results, utterances.strings("speaker").to_pylist(), strict=True):
        if speaker or result.reason:
            yield result
        else:
            yield _nothing("no speaker", "whose voice is it? Name one with --speaker")


def _extract(path: Path, extractor: Extractor) -> _Extracted:
    try:
        wav, rate = audio.read(path)
    except (AudioError, FileNotFoundError) as error:
        return _nothing("unreadable audio", str(error))
    if rate < LOWEST:
        return _nothing("sample rate too low", f"{rate:,} Hz, expected {LOWEST:,} at least")
    try:
        tokens, embedding = extractor.tokens(wav, rate), extractor.embedding(wav, rate)
    except ValueError as error:  # too short for a window
        return _nothing("no features", str(error))
    if not len(tokens):
        return _nothing("no speech tokens", f"{len(wav) / rate:.1f} s; the speech tokenizer takes 30 s at most")
    if embedding.shape != (EMBEDDING,) or not np.isfinite(embedding).all():
        return _nothing("no embedding", f"shape {embedding.shape}, expected ({EMBEDDING},) of finite values")
    return _Extracted(tokens, embedding)


def _nothing(reason: str, detail: str) -> _Extracted:
    return _Extracted(np.zeros(0, np.int64), np.zeros(0, np.float32), reason, detail)


def _means(speakers: list[str], vectors: np.ndarray) -> np.ndarray:
    """(rows, 192) -> the same shape: each row's speaker's mean."""
    names, numbers = np.unique(speakers, return_inverse=True)
    sums = np.zeros((len(names), vectors.shape[1]))
    np.add.at(sums, numbers, vectors)
    return (sums / np.bincount(numbers)[:, None])[numbers]
