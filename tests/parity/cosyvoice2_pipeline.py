"""The CosyVoice2 case `pipeline`: its rows are written as shards, and what our pipeline makes of them is compared.

What is recorded as facts is compared here and given back as counts of differences, which `compare` wants to be 0.
"""

from __future__ import annotations

import io
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from tts_kernel.data.pipeline import Counted, Encoder, Lengths, Pipeline, build, count, read_lengths, rules
from tts_kernel.data.pipeline.batches import PipelineDataset
from tts_kernel.data.pipeline.processors import Filter
from tts_kernel.data.sampler import PlannedBatch, Position

Case = dict[str, Any]
Arrays = dict[str, np.ndarray]
WORDS = Encoder(lambda text: [int(word[1:]) for word in text.split()], "words", "words")
SIZED = {"speech_feat": "frames", "text_token": "text_tokens", "speech_token": "speech_tokens"}


def recognise(case: Case, arrays: Arrays) -> Callable[[Case, Arrays], Arrays] | None:
    """The function that computes this case's outputs, or None if it is another one."""
    return pipeline if {"filter_rules", "facts"} <= case.keys() and "out_first_speech_feat" in arrays else None


def pipeline(case: Case, arrays: Arrays) -> Arrays:
    with tempfile.TemporaryDirectory() as folder:
        data_list = write_rows(case, Path(folder))
        lengths = read_lengths(data_list, WORDS)
        outputs = filters(case, lengths) | batches(case, lengths) | sampler(case)
        return outputs | first_batch(case, lengths) | real_iteration(case, lengths)


def write_rows(case: Case, folder: Path) -> Path:
    """The rows of the record by its recipe, `rows_per_file` per shard, one row group each as upstream's writer does."""
    rows, size = case["config"]["rows"], case["config"]["rows_per_file"]
    types = {"large_string": pa.large_string(), "binary": pa.binary()}
    lists = {"list<element: double>": pa.list_(pa.float64()), "list<element: int64>": pa.list_(pa.int64())}
    schema = pa.schema([(name, (types | lists)[kind]) for name, kind in case["facts"]["columns"]])
    paths = []
    for start in range(0, len(rows), size):
        path = folder / f"parquet_{start // size:09d}.tar"
        made = [written_row(row) for row in rows[start : start + size]]
        pq.write_table(pa.table({name: [row[name] for row in made] for name in schema.names}, schema=schema), path)
        paths.append(str(path))
    (folder / "data.list").write_text("\n".join(paths), encoding="utf-8")
    return folder / "data.list"


def written_row(row: dict[str, Any]) -> dict[str, Any]:
    index, rate = row["index"], row["rate"]
    time = np.arange(row["samples"]) / rate
    wave = np.round(300 * np.sin(2 * np.pi * (100 + 10 * index) * time)).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, np.repeat(wave[:, None], row["channels"], axis=1), rate, format="WAV", subtype="PCM_16")

    def vector(name: str) -> np.ndarray:
        return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(192)

    return {
        "utt": row["utt"],
        "audio_data": file.getvalue(),
        "wav": f"{row['utt']}.wav",
        "text": " ".join(f"w{(7 * index + k) % 97}" for k in range(row["text_tokens"])),
        "spk": row["spk"],
        "utt_embedding": vector(row["utt"]),
        "spk_embedding": vector(row["spk"]),
        "speech_token": [(13 * index + 5 * k) % 6561 for k in range(row["speech_tokens"])],
    }


def filters(case: Case, lengths: Lengths) -> Arrays:
    """Kept utterances and the first reason of every drop; what is left after resampling."""
    wrong = 0
    for fact in case["facts"]["filter"].values():
        layout = [("filter", fact["arguments"]), ("batch", {})]
        counted = count(build(layout), lengths)
        kept, drops = rules.filtered(lengths, Filter(**fact["arguments"]))
        wrong += lengths.utterances[kept].tolist() != fact["kept_utts"]
        wrong += {drop.reason: drop.count for drop in drops} != tally(fact["dropped"].values())
        wrong += counted.accounts.kept != fact["left_after_resample"]
        named = [name for account in counted.accounts.each[3:] for drop in account.drops for name in drop.utterances]
        wrong += named != fact["dropped_by_resample"]
    frames = dict(zip(lengths.utterances, lengths.frames, strict=True))
    wrong += any(frames[name] != value for name, value in case["facts"]["frames"].items())
    return {"filter_differences": np.array(wrong)}


def tally(values: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found


def settings(case: Case, fact: dict[str, Any]) -> Pipeline:
    layout = [("filter", case["config"]["filters"][fact["filter"]])]
    layout += [(name, {f"{name}_size": fact[name]}) for name in ("shuffle", "sort") if name in fact]
    return build([*layout, ("batch", fact["batch"])])


def batches(case: Case, lengths: Lengths) -> Arrays:
    """Members in order, frames and shapes after padding; our leading batch is never the reference's empty one."""
    wrong = 0
    for fact in case["facts"]["batches"]:
        counted = count(settings(case, fact), lengths, seed=case["config"]["shuffle_seed"])
        empty: list[list[str]] = [[]] if counted.empty_first else []
        members = [lengths.utterances[counted.batch(number)].tolist() for number in range(len(counted))]
        wrong += empty + members != fact["utts"]
        wrong += [0] * len(empty) + counted.padded_frames().tolist() != fact["frames_after_padding"]
        wrong += "padded" in fact and list(padded(counted)) != fact["padded"]
    return {"batch_differences": np.array(wrong)}


def padded(counted: Counted) -> Iterator[dict[str, Any]]:
    lengths = counted.lengths
    for number in range(len(counted)):
        rows = rules.padded_order(counted.batch(number), lengths.frames)
        found: dict[str, Any] = {"utts": lengths.utterances[rows].tolist()}
        for name, column in SIZED.items():
            sizes = getattr(lengths, column)[rows].tolist()
            found[name] = [len(rows), max(sizes), *([80] if name == "speech_feat" else [])]
            found[f"{name}_len"] = sizes
        yield found


def sampler(case: Case) -> Arrays:
    wrong = 0
    for fact in case["facts"]["sampler"]:
        ours = [
            [
                rules.share_of_shards(
                    fact["shards"],
                    fact["epoch"],
                    rank,
                    fact["ranks"],
                    worker,
                    fact["workers"],
                    fact["shuffle"],
                    fact["partition"],
                )
                for worker in range(max(1, fact["workers"]))
            ]
            for rank in range(fact["ranks"])
        ]
        wrong += ours != fact["indices_by_rank_and_worker"]
    return {"sampler_differences": np.array(wrong)}


def first_batch(case: Case, lengths: Lengths) -> Arrays:
    """The recorded batch, read from the shards."""
    place = {name: row for row, name in enumerate(lengths.utterances)}
    rows = np.array([place[name] for name in case["facts"]["first_batch_utts"]])
    outputs: Arrays = {}
    for by_speaker, name in ((False, "embedding"), (True, "spk_embedding")):
        made = build([("batch", {}), ("padding", {"use_spk_embedding": by_speaker})])
        batch = PipelineDataset(made, lengths, WORDS)[PlannedBatch(rows, Position())]
        outputs[f"out_first_{name}"] = batch.embedding.numpy()
    named = {"text_token": "text", "speech_token": "speech", "speech_feat": "mel"}
    for name, ours in named.items():
        outputs[f"out_first_{name}"] = getattr(batch, ours if ours == "mel" else f"{ours}_tokens").numpy()
        outputs[f"out_first_{name}_len"] = getattr(batch, f"{ours}_lengths").numpy()
    return outputs


def real_iteration(case: Case, lengths: Lengths) -> Arrays:
    """One setting's epoch with its audio, against what was counted for it."""
    fact = next(fact for fact in case["facts"]["batches"] if "padded" in fact)
    counted, data = count(settings(case, fact), lengths), PipelineDataset(settings(case, fact), lengths, WORDS)
    wrong = 0
    for number, shapes in enumerate(fact["padded"]):
        rows = rules.padded_order(counted.batch(number), lengths.frames)
        batch = data[PlannedBatch(rows, Position())]
        wrong += batch.ids != shapes["utts"] or list(batch.mel.shape) != shapes["speech_feat"]
        wrong += batch.speech_lengths.tolist() != shapes["speech_token_len"]
        wrong += batch.text_lengths.tolist() != shapes["text_token_len"]
    return {"iteration_differences": np.array(wrong)}
