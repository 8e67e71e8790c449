"""A manifest as the guides have it, at any size: ids, paths, speakers and lengths like Emilia's Korean part.

    python -m benchmarks.data.generate FOLDER --rows 5483856      writes FOLDER/gpt_pairs_train.jsonl

Content follows from the number of rows and the seed. A tenth of the rows is not a tenth of the file: speakers and
their clips shrink alike, so that smaller sizes keep the shape of the full one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROWS = 5_483_856  # pairs of the guide's corpus
PAIRS_PER_TARGET = 2
CODES_PER_SECOND = 25
MANIFEST = "gpt_pairs_train.jsonl"
_CHUNK = 200_000  # rows made and written at once


@dataclass(frozen=True)
class Clips:
    """The clips behind a manifest, sorted by speaker; all arrays have one entry per clip."""

    ids: pa.Array  # KO_B00012_S00345_W000067
    audio: pa.Array  # KO-B00012/<id>.mp3
    speakers: pa.DictionaryArray  # KO_B00012_S00345
    first: np.ndarray  # where the clips of this clip's speaker begin
    count: np.ndarray  # and how many they are
    seconds: np.ndarray
    text_tokens: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def make_clips(count: int, seed: int = 0) -> Clips:
    """`count` clips of 3 to 30 s, 8.6 s on average, of 1.5 * sqrt(count) speakers (2,484 at the guide's size) whose
    clips follow Zipf's law; each has at least three, so that every target finds two prompts."""
    generator = np.random.default_rng(seed)
    per_speaker = _zipf(count, max(min(int(1.5 * count**0.5), count // 3), 1))
    per_speaker = generator.permutation(per_speaker)
    speaker = np.repeat(np.arange(len(per_speaker)), per_speaker)
    starts = np.cumsum(per_speaker) - per_speaker
    batches = pc.binary_join_element_wise("B", _digits(np.arange(len(per_speaker)) // 20, 5), "")
    names = pc.binary_join_element_wise("KO_", batches, "_S", _digits(np.arange(len(per_speaker)), 5), "")
    folders = pc.binary_join_element_wise("KO-", batches, "/", "")
    ids = pc.binary_join_element_wise(
        names.take(pa.array(speaker)), "_W", _digits(np.arange(count) - starts[speaker], 6), ""
    )
    seconds = 3.0 + generator.gamma(1.3, 4.4, count)
    seconds = np.where(seconds > 30.0, generator.uniform(3.0, 30.0, count), seconds)
    text_tokens = np.maximum(np.rint(seconds * generator.normal(3.5, 0.5, count)), 4)
    return Clips(
        ids=ids,
        audio=pc.binary_join_element_wise(folders.take(pa.array(speaker)), ids, ".mp3", ""),
        speakers=pa.DictionaryArray.from_arrays(pa.array(speaker.astype(np.int32)), names),
        first=starts[speaker],
        count=per_speaker[speaker],
        seconds=seconds,
        text_tokens=text_tokens.astype(np.int64),
        codes=np.rint(seconds * CODES_PER_SECOND).astype(np.int64),
    )


def _zipf(total: int, parts: int) -> np.ndarray:
    """`total` split into `parts`, the k-th in proportion to 1 / (k + 10), at least three each where that fits."""
    least = min(3, total // parts)
    shares = 1.0 / (np.arange(parts) + 10.0)
    counts = least + np.floor(shares / shares.sum() * (total - least * parts)).astype(np.int64)
    counts[0] += total - counts.sum()
    return counts


def _digits(numbers: np.ndarray, width: int) -> pa.Array:
    return pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")


def make_rows(clips: Clips, rows: int, seed: int = 0) -> Iterator[pa.Array]:
    """The manifest's lines, a few hundred thousand at a time: two pairs per target, whose prompts are two other clips
    of its speaker, drawn at random."""
    generator = np.random.default_rng([seed, 1])
    targets = np.repeat(np.arange(len(clips)), PAIRS_PER_TARGET)[:rows]
    place, others = targets - clips.first[targets], clips.count[targets] - 1
    drawn = generator.integers(0, np.maximum(others, 1))  # of the speaker's other clips
    drawn[1::2] = (drawn[0::2][: len(drawn[1::2])] + 1 + generator.integers(0, np.maximum(others[1::2] - 1, 1))) % (
        np.maximum(others[1::2], 1)
    )  # the second prompt is not the first one again
    prompts = clips.first[targets] + (place + 1 + drawn) % clips.count[targets]
    for start in range(0, rows, _CHUNK):
        part = slice(start, min(start + _CHUNK, rows))
        yield _lines(clips, pa.array(targets[part]), pa.array(prompts[part]))


def _lines(clips: Clips, targets: pa.Array, prompts: pa.Array) -> pa.Array:
    target, prompt = clips.ids.take(targets), clips.ids.take(prompts)
    fields: dict[str, tuple[str | pa.Array, ...]] = {
        "id": (target, "__", prompt),
        "target_id": (target,),
        "prompt_id": (prompt,),
        "speaker": (clips.speakers.take(targets).cast(pa.string()),),
        "language": ("ko",),
        "target_text_ids_path": ("text_ids/", target, ".npy"),
        "target_text_len": (pa.array(clips.text_tokens).take(targets),),
        "target_codes_path": ("codes/", target, ".npy"),
        "target_code_len": (pa.array(clips.codes).take(targets),),
        "prompt_condition_path": ("condition/", prompt, ".npy"),
        "prompt_condition_len": (pa.scalar(32),),
        "prompt_emo_vec_path": ("emo_vec/", prompt, ".npy"),
        "target_audio_path": (clips.audio.take(targets),),
        "prompt_audio_path": (clips.audio.take(prompts),),
    }
    pieces: list[str | pa.Array | pa.Scalar] = []
    for name, values in fields.items():
        quote = '"' if name.endswith(("id", "path", "speaker", "language")) else ""
        pieces += [f'{", " if pieces else "{"}"{name}": {quote}', *values, quote]
    texts = [piece if isinstance(piece, str) else piece.cast(pa.string()) for piece in pieces]
    return pc.binary_join_element_wise(*texts, "}\n", "")


def write_manifest(path: Path, rows: int = ROWS, seed: int = 0) -> Clips:
    """Write `rows` pairs as JSON lines; returns the clips behind them. Raises ValueError below three clips."""
    if rows < 3 * PAIRS_PER_TARGET:
        raise ValueError(f"{rows} rows, expected at least {3 * PAIRS_PER_TARGET}: a target needs two other clips")
    clips = make_clips(-(-rows // PAIRS_PER_TARGET), seed)
    write_lines(path, make_rows(clips, rows, seed))
    return clips


def make_file(path: str, rows: int) -> dict[str, int]:
    """`write_manifest` for a process of its own."""
    return {"clips": len(write_manifest(Path(path), rows))}


def write_lines(path: Path, parts: Iterable[pa.Array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        for lines in parts:
            _, offsets, data = lines.buffers()
            out.write(memoryview(data)[: np.frombuffer(offsets, dtype=np.int32)[len(lines)]])


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a pair manifest of the guides' shape.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args()
    write_manifest(options.folder / MANIFEST, options.rows)


if __name__ == "__main__":
    main()
