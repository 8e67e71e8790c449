"""Padded batches per second from a loader, against .npy files and one Python object per row."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.generate import PAIRS_PER_TARGET, make_clips, make_rows, write_lines
from benchmarks.data.manifest import Pair, parse_lines
from benchmarks.data.measure import Figures, Stopwatch, compare, measure
from benchmarks.data.ordering import FRAMES_PER_SECOND
from benchmarks.data.result import Result, Sizes, more
from benchmarks.data.sampling import plan_of
from benchmarks.data.store import LATENTS, WIDTH, make_arrays

MEL_MANIFEST = "gpt_pairs_train_mel.jsonl"
BATCH_SIZE = 16
WARM_UP = 10  # batches before the clock starts: workers, caches
CLIPS = 4000  # at most, each with a mel: 0.4 MB of files
BATCHES = 300


def make_data(data: str, half: str, clips: int) -> Figures:
    """`data` as the guide's tools write it (float32), then packed as it is; `half` the same packed as float16."""
    from tts_kernel.data.features.pack import pack
    from tts_kernel.data.ordering import order_mel_first

    made, root = make_clips(clips), Path(data)
    make_arrays(data, clips, "float32")
    generator = np.random.default_rng(5)
    (root / "mel").mkdir()
    for clip, seconds in zip(made.ids.to_pylist(), made.seconds, strict=True):
        frames = round(seconds * FRAMES_PER_SECOND)
        np.save(root / "mel" / f"{clip}.npy", generator.standard_normal((frames, 80), dtype=np.float32))
    write_lines(root / "gpt_pairs_train.jsonl", make_rows(made, clips * PAIRS_PER_TARGET))
    order_mel_first(root)
    shutil.copytree(root, half, copy_function=os.link)
    pack(root)
    pack(Path(half), half=("mel", "condition"))
    return {"files": clips * 5}


def per_second(batches: Iterable[Any], count: int) -> Figures:
    found = iter(batches)
    for _ in islice(found, WARM_UP):
        pass
    with Stopwatch() as whole:
        done = sum(1 for _ in islice(found, count))
    assert done == count, f"only {done} batches"
    return {"per_second": done / whole.seconds}


class Rows:
    """The plain way: a record per row, four .npy files per item."""

    def __init__(self, pairs: list[Pair], emotion: Callable[[Pair], Path]) -> None:
        self.pairs, self.emotion = pairs, emotion

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> dict[str, Any]:
        import torch

        pair = self.pairs[number]
        return {
            "id": pair.id,
            "text": torch.from_numpy(np.load(pair.text_ids_path).astype(np.int64, copy=False)),
            "codes": torch.from_numpy(np.load(pair.codes_path).astype(np.int64, copy=False)),
            "condition": torch.from_numpy(np.load(pair.condition_path).astype(np.float32, copy=False)),
            "emotion": torch.from_numpy(np.load(self.emotion(pair)).astype(np.float32, copy=False)),
        }


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    batch: dict[str, Any] = {"ids": [row["id"] for row in rows]}
    for name in ("text", "codes", "emotion"):
        batch[name] = pad_sequence([row[name] for row in rows], batch_first=True)
        batch[f"{name}_lengths"] = torch.tensor([len(row[name]) for row in rows])
    return batch | {"condition": torch.stack([row["condition"] for row in rows])}


def plain_mel(pair: Pair) -> Path:
    assert pair.mel_path is not None
    return pair.mel_path


def plain_vector(pair: Pair) -> Path:
    return pair.emo_vec_path


def plain(data: str, emotion: str, workers: int, count: int) -> Figures:
    import torch
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    torch.set_num_threads(1)
    pairs = parse_lines(Path(data) / MEL_MANIFEST)
    rows = Rows(pairs, plain_mel if emotion == "mel" else plain_vector)
    loader: DataLoader[Any] = DataLoader(rows, BATCH_SIZE, shuffle=True, num_workers=workers, collate_fn=collate)  # type: ignore[arg-type]
    return per_second(loader, count)


def ours(data: str, emotion: str, workers: int, count: int) -> Figures:
    import torch

    from tts_kernel.data.batch import Limits, PairDataset
    from tts_kernel.data.loader import BatchLoader, LoaderSettings
    from tts_kernel.data.manifest import read_manifest
    from tts_kernel.data.sampler import Position

    torch.set_num_threads(1)
    manifest = read_manifest(Path(data) / MEL_MANIFEST)
    limits = Limits(12_000, 8194, 600, 1815, (LATENTS, WIDTH), 1024, 80)
    speakers = np.zeros(len(manifest), dtype=np.int64)
    rows = PairDataset(manifest, limits, speakers, "mel" if emotion == "mel" else "stored", speaker="stored")
    return per_second(
        BatchLoader(rows, plan_of(manifest), LoaderSettings(num_workers=workers)).batches(Position()), count
    )


TITLE = "Loading"
METHOD = """Padded batches of 16 from a `DataLoader`, every file in the page cache, one torch thread per process. The
plain way is the guide's: a record per row, four .npy per item (float32), shuffled, padded in the collate function,
unchecked. Ours takes the same rows from the packed store in buckets of equal length, and checks every array's type,
shape, range and finiteness. Stages 1 and 3 read text, codes, condition and emotion vector; stage 2 a mel instead of
the vector."""


def run(sizes: Sizes) -> list[Result]:
    clips = min(sizes.clips, CLIPS)
    count = min(BATCHES, clips * PAIRS_PER_TARGET // BATCH_SIZE - WARM_UP)
    data, half = (sizes.folder / "loading" / name for name in ("single", "half"))
    measure(make_data, 1, data=data, half=half, clips=clips)
    results = []
    for stage, emotion in (("stages 1 and 3", "stored"), ("stage 2", "mel")):
        for workers in (0, min(2, os.cpu_count() or 1)):
            common = {"emotion": emotion, "workers": workers, "count": count}
            what = f"batches, {stage}, {workers} workers"
            loop, planned = (run["per_second"] for run in compare([plain, ours], sizes.repeats, data=data, **common))
            smaller = measure(ours, sizes.repeats, data=half, **common)["per_second"]
            results.append(more(what, loop, planned, at_least=2.5))
            results.append(more(f"{what}, stored as float16", loop, smaller))
    return results
