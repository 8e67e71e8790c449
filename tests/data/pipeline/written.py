"""Shards as upstream's tools write them, with a sine for audio and words for tokens."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from tts_kernel.data.pipeline import Encoder, Lengths, Pipeline, build, read_lengths

WORDS = Encoder(lambda text: [len(word) for word in text.split()], "words", "words")
SCHEMA = pa.schema(
    [
        ("utt", pa.large_string()),
        ("audio_data", pa.binary()),
        ("wav", pa.large_string()),
        ("text", pa.large_string()),
        ("spk", pa.large_string()),
        ("utt_embedding", pa.list_(pa.float64())),
        ("spk_embedding", pa.list_(pa.float64())),
        ("speech_token", pa.list_(pa.int64())),
    ]
)


def encoded(wav: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wav, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def row(name: str, seconds: float = 2.0, rate: int = 24_000, words: int = 8, **changes: Any) -> dict[str, Any]:
    """One row; `changes` replace columns."""
    samples = round(seconds * rate)
    number = sum(name.encode())
    wav = 0.1 * np.sin(2 * np.pi * (100 + number) * np.arange(samples) / rate)
    tokens = math.ceil(math.ceil(samples * 24_000 / rate) / 960)
    made = {
        "utt": name,
        "audio_data": encoded(wav, rate),
        "wav": f"{name}.wav",
        "text": " ".join("x" * (1 + at % 5) for at in range(words)),
        "spk": "somebody",
        "utt_embedding": np.random.default_rng(number).standard_normal(192),
        "spk_embedding": np.ones(192),
        "speech_token": [(number + at) % 200 for at in range(tokens)],
    }
    return made | changes


def rows(count: int, **options: Any) -> list[dict[str, Any]]:
    """Of 1 to 4 s, in no order of length."""
    return [row(f"u{number:02d}", 1.0 + (number * 7 % 11) * 0.3, **options) for number in range(count)]


def write_shards(folder: Path, *shards: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> Path:
    """A parquet file per list of rows, named in data.list, whose path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number, each in enumerate(shards):
        columns = {name: [item[name] for item in each] for name in schema.names}
        names.append(f"parquet_{number:09d}.tar")
        pq.write_table(pa.table(columns, schema=schema), folder / names[-1])
    (folder / "data.list").write_text("".join(f"{folder / name}\n" for name in names), encoding="utf-8")
    return folder / "data.list"


def lengths_of(folder: Path, *shards: list[dict[str, Any]]) -> Lengths:
    return read_lengths(write_shards(folder, *shards), WORDS)


def pipeline(frames: int = 400, **limits: Any) -> Pipeline:
    """Filter, shuffle 500, sort 500, dynamic batches."""
    layout: list[tuple[str, dict[str, Any]]] = [("filter", limits), ("shuffle", {"shuffle_size": 500})]
    layout += [("sort", {"sort_size": 500}), ("batch", {"batch_type": "dynamic", "max_frames_in_batch": frames})]
    return build(layout)
