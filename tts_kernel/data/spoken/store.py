"""What is computed once for every sentence: its phones, and the text encoder's features of its tokens.

A folder with shards (data/features). A sentence has the name of everything that its phones follow from, so neither
another symbol table nor another encoder finds old ones:

    phones/<sentence>.npy   int64 (phones, 4): rows of the model's phone, tone and language embeddings, blanks included,
                            and the number of the text encoder's token that the phone belongs to
    read/<sentence>.npy     uint8: the normalised text, UTF-8, by which the features are found
    bge_m3/<text>.npy       float32 (tokens, width)
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from tts_kernel.data.features import Features, ShardWriter
from tts_kernel.data.features.features import FOLDER
from tts_kernel.text.bge_m3 import BGEM3, KIND, EncoderError, cache_features
from tts_kernel.text.phones import TextError, to_ids, to_phones, word2ph
from tts_kernel.text.symbols import Symbols, UnknownSymbolError

FORMAT = 2  # of what is stored; raise it when the same sentence would have other phones
PHONES, READ = "phones", "read"


@dataclass(frozen=True)
class Sentence:
    """One text as the model reads it, blanks between phones included."""

    phones: np.ndarray  # (phones,) int64
    tones: np.ndarray  # (phones,) int64
    languages: np.ndarray  # (phones,) int64
    features: np.ndarray  # (width, phones) float32


class SpokenStore:
    """Reads and fills the folder. Picklable; two processes may fill it at once."""

    def __init__(self, folder: Path, encoder: BGEM3, symbols: Symbols) -> None:
        self.folder, self.encoder, self.symbols = Path(folder), encoder, symbols
        self.arrays = Features(self.folder)
        self._own = hashlib.sha256(f"{FORMAT}\n{encoder.fingerprint}\n{symbols.names}".encode()).hexdigest()

    def name(self, text: str, language: str) -> str:
        """What a sentence is called in the store."""
        return hashlib.sha256(f"{self._own}\n{language}\n{text}".encode()).hexdigest()[:32]

    def fill(self, sentences: Sequence[tuple[str, str]], *, progress: bool = True) -> dict[tuple[str, str], str]:
        """Compute what is not there yet of these (text, language), each once; why one cannot be said, by sentence."""
        names = {sentence: self.name(*sentence) for sentence in dict.fromkeys(sentences)}
        there = self.arrays.exists(PHONES, pa.array(list(names.values()), pa.large_string()))
        missing = [sentence for sentence, has in zip(names, there, strict=True) if not has]
        problems: dict[tuple[str, str], str] = {}
        if missing:
            with self._shard(PHONES) as shard:
                for sentence in tqdm(missing, desc="phones", unit="sentence", disable=not progress):
                    try:
                        ids, read = self._phones(*sentence)
                    except (TextError, UnknownSymbolError, EncoderError) as error:
                        problems[sentence] = str(error)
                        continue
                    shard.add(names[sentence], PHONES, ids)
                    shard.add(names[sentence], READ, np.frombuffer(read.encode(), dtype=np.uint8))
            self.arrays.refresh()
        usable = [name for sentence, name in names.items() if sentence not in problems]
        texts = [self._text(array) for array in self.arrays.read_kind(READ, usable)]
        if cache_features(self.encoder, texts, self.arrays, self._shard(KIND), progress=progress):
            self.arrays.refresh()
        return problems

    def lengths(self, names: Sequence[str]) -> np.ndarray:
        """(sentences,) phones of each, blanks included."""
        return np.array([len(array) for array in self.arrays.read_kind(PHONES, names)], dtype=np.int64)

    def sentence(self, name: str) -> Sentence:
        """Raises FeatureError for one that `fill` has not met."""
        ids, text = self.arrays.read([f"{PHONES}/{name}.npy", f"{READ}/{name}.npy"])
        (hidden,) = self.arrays.read_kind(KIND, [self.encoder.key(self._text(text))])
        phones, tones, languages, tokens = np.ascontiguousarray(ids.T)
        return Sentence(phones, tones, languages, np.ascontiguousarray(hidden[tokens].T, dtype=np.float32))

    def _phones(self, text: str, language: str) -> tuple[np.ndarray, str]:
        said = to_phones(text, language or None, symbols=self.symbols)
        ids = to_ids(said, self.symbols)
        counts = word2ph(said, self.encoder.tokens(said.text).places)
        tokens = np.repeat(np.arange(len(counts)), counts)
        return np.stack([ids.phones, ids.tones, ids.languages, tokens], axis=1).astype(np.int64), said.text

    def _shard(self, kind: str) -> ShardWriter:
        return ShardWriter(self.folder / FOLDER, f"{kind}-{uuid.uuid4().hex[:8]}")

    @staticmethod
    def _text(array: np.ndarray) -> str:
        return array.tobytes().decode()
