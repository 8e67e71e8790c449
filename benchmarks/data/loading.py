"""Padded batches per second from a loader, against .npy files and one Python object per row."""

from __future__ import annotations

import os
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
from benchmarks.data.store import LATENTS, WIDTH

BATCH_SIZE = 16
WARM_UP = 10  # batches before the clock starts: workers, caches
MELS = 3000  # clips with a mel, at most: 0.24 MB each


def make_manifests(data: str, clips: int, batches: int) -> Figures:
    """Beside the arrays of benchmarks/data/store.py: a manifest, a mel for its first clips, and their manifest."""
    from tts_kernel.data.ordering import order_mel_first
    from tts_kernel.data.pack import pack

    made, root = make_clips(clips), Path(data)
    write_lines(root / "gpt_pairs_train.jsonl", make_rows(made, clips * PAIRS_PER_TARGET))
    generator = np.random.default_rng(5)
    (root / "mel").mkdir(exist_ok=True)
    for clip, seconds in zip(made.ids.to_pylist()[:MELS], made.seconds[:MELS], strict=True):
        frames = round(seconds * FRAMES_PER_SECOND)
        np.save(root / "mel" / f"{clip}.npy", generator.standard_normal((frames, 80), dtype=np.float32))
    pack(root)
    order_mel_first(root)
    return {"batches": batches}


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
            "text": torch.from_numpy(np.load(pair.text_ids_path)).long(),
            "codes": torch.from_numpy(np.load(pair.codes_path)).long(),
            "condition": torch.from_numpy(np.load(pair.condition_path)).float(),
            "emotion": torch.from_numpy(np.load(self.emotion(pair))).float(),
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
    name = "gpt_pairs_train_mel.jsonl" if emotion == "mel" else "gpt_pairs_train.jsonl"
    pairs = parse_lines(Path(data) / name)
    if emotion == "mel":
        pairs = [pair for pair in pairs if pair.mel_path is not None]
    rows = Rows(pairs, plain_mel if emotion == "mel" else plain_vector)
    loader: DataLoader[Any] = DataLoader(rows, BATCH_SIZE, shuffle=True, num_workers=workers, collate_fn=collate)  # type: ignore[arg-type]
    return per_second(loader, count)


def ours(data: str, emotion: str, workers: int, count: int) -> Figures:
    import torch

    from tts_kernel.data.batch import Limits, PairDataset
    from tts_kernel.data.loader import BatchLoader, LoaderSettings
    from tts_kernel.data.manifest import read_manifest
    from tts_kernel.data.ordering import available_prefix
    from tts_kernel.data.sampler import BatchPlan, Position

    torch.set_num_threads(1)
    name = "gpt_pairs_train_mel.jsonl" if emotion == "mel" else "gpt_pairs_train.jsonl"
    manifest = read_manifest(Path(data) / name)
    available = available_prefix(manifest) if emotion == "mel" else len(manifest)
    lengths = manifest.numbers("target_text_len") + manifest.numbers("target_code_len")
    plan = BatchPlan(np.arange(len(manifest)), lengths, available=available, batch_size=BATCH_SIZE)
    limits = Limits(12_000, 8194, 600, 1815, (LATENTS, WIDTH), 1024, 80)
    speakers = np.zeros(len(manifest), dtype=np.int64)
    rows = PairDataset(manifest, limits, speakers, "mel" if emotion == "mel" else "stored", speaker="stored")
    return per_second(BatchLoader(rows, plan, LoaderSettings(num_workers=workers)).batches(Position()), count)


TITLE = "Loading"
METHOD = """Padded batches of 16 from a `DataLoader`, every file in the page cache, one torch thread per process. The
plain way keeps a record per row, reads four .npy per item, shuffles, and pads in its collate function; ours takes the
same rows from the packed store in buckets of equal length, and checks every array's type, shape, range and
finiteness. With stored conditions: text, codes, condition, emotion vector; with mels: text, codes, condition, mel."""


def run(sizes: Sizes) -> list[Result]:
    data = sizes.folder / "store"
    count = min(300, min(sizes.clips, MELS) * PAIRS_PER_TARGET // BATCH_SIZE - WARM_UP)
    measure(make_manifests, 1, data=data, clips=sizes.clips, batches=count)
    results = []
    for what, emotion in (("stored conditions", "stored"), ("mels", "mel")):
        for workers in (0, min(2, os.cpu_count() or 1)):
            common = {"data": data, "emotion": emotion, "workers": workers, "count": count}
            loop, planned = (run["per_second"] for run in compare([plain, ours], sizes.repeats, **common))
            results.append(more(f"batches, {what}, {workers} workers", loop, planned, at_least=2.5))
    return results
