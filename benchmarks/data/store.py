"""Random reads of whole clips: the packed store against one .npy per array."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.data.generate import ROWS, make_clips
from benchmarks.data.measure import Figures, Stopwatch, compare, measure
from benchmarks.data.result import Result, Sizes, below, more

KINDS = ("text_ids", "codes", "condition", "emo_vec")
LATENTS, WIDTH = 32, 1280  # of the guide's GPT


def make_arrays(data: str, clips: int, condition_dtype: str = "float16") -> Figures:
    """Four .npy files per clip, of the guide's shapes."""
    generator = np.random.default_rng(3)
    made = make_clips(clips)
    condition = generator.standard_normal((LATENTS, WIDTH)).astype(condition_dtype)
    vector = generator.standard_normal(WIDTH, dtype=np.float32)
    for kind in KINDS:
        os.makedirs(f"{data}/{kind}", exist_ok=True)
    for number, (clip, tokens, codes) in enumerate(
        zip(made.ids.to_pylist(), made.text_tokens.tolist(), made.codes.tolist(), strict=True)
    ):
        condition[0, 0] = vector[0] = number % 1000  # so that no two clips are equal
        np.save(f"{data}/text_ids/{clip}.npy", generator.integers(2, 12_000, tokens))
        np.save(f"{data}/codes/{clip}.npy", generator.integers(0, 8192, codes))
        np.save(f"{data}/condition/{clip}.npy", condition)
        np.save(f"{data}/emo_vec/{clip}.npy", vector)
    return {"files": clips * len(KINDS)}


def pack_arrays(data: str) -> Figures:
    from tts_kernel.data.features.pack import pack

    with Stopwatch() as whole:
        pack(Path(data))
    return {"seconds": whole.seconds}


def drop_caches(folders: list[Path], whole_system: bool) -> None:
    """Take these folders' files out of the page cache; with `whole_system` (root) also names and inodes, which a folder
    of millions of files never finds cached."""
    os.sync()  # only clean pages can go
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    if whole_system:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


def orders(data: str, seed: int) -> list[str]:
    clips = sorted(name.removesuffix(".npy") for name in os.listdir(f"{data}/codes"))
    return [clips[number] for number in np.random.default_rng(seed).permutation(len(clips))]


def use(arrays: Iterator[np.ndarray] | list[np.ndarray], room: np.ndarray) -> None:
    """Copy every value once, as a batch does: a mapped array is not read before that."""
    for array in arrays:
        values = array.reshape(-1).view(np.uint8)
        room[: len(values)] = values


def plain(data: str, cold: bool, whole_system: bool) -> Figures:
    clips, room = orders(data, 4), np.empty(1 << 20, dtype=np.uint8)
    if cold:
        drop_caches([Path(data) / kind for kind in KINDS], whole_system)
    else:
        for clip in clips:
            use((np.load(f"{data}/{kind}/{clip}.npy") for kind in KINDS), room)
    with Stopwatch() as whole:
        for clip in clips:
            use((np.load(f"{data}/{kind}/{clip}.npy") for kind in KINDS), room)
    return {"per_second": len(clips) / whole.seconds}


def ours(data: str, cold: bool, whole_system: bool, at_once: int = 1) -> Figures:
    from tts_kernel.data.features import Features

    clips, room = orders(data, 4), np.empty(1 << 20, dtype=np.uint8)
    features = Features(Path(data))
    if cold:
        drop_caches([Path(data) / "features"], whole_system)
    else:
        for clip in clips:
            use(features.read([f"{kind}/{clip}.npy" for kind in KINDS]), room)
    with Stopwatch() as whole:
        for first in range(0, len(clips), at_once):
            wanted = clips[first : first + at_once]
            use(features.read([f"{kind}/{clip}.npy" for kind in KINDS for clip in wanted]), room)
    return {"per_second": len(clips) / whole.seconds}


def on_disk(folders: list[Path]) -> tuple[int, float]:
    """Files, and the disk space they take in MB."""
    found = [path.stat() for folder in folders for path in folder.rglob("*") if path.is_file()]
    return len(found), sum(stat.st_blocks * 512 for stat in found) / 1e6


def packed_files(store: Path, clips: int) -> int:
    """Files of a store of so many clips: two per shard of `pack`'s default size, and what a store has once."""
    from tts_kernel.data.features.pack import pack

    shards = len(list(store.rglob("*.tar")))
    others = sum(path.is_file() for path in store.rglob("*")) - 2 * shards
    assert shards == len(list(store.glob("*.arrow"))), "a shard has more than one file beside it"
    return 2 * -(-clips // inspect.signature(pack).parameters["clips_per_shard"].default) + others


TITLE = "Feature store"
METHOD = """{clips:,} clips x 4 arrays (text ids, codes, condition [32, 1280] float16, emotion vector), every clip
once in random order, every value copied once as a batch does. Cold: pages dropped by `posix_fadvise`, names and
inodes still cached, which favours .npy; with `--drop-caches` these are dropped as well, as in a folder of millions of
files."""


def run(sizes: Sizes) -> list[Result]:
    data = sizes.folder / "store"
    measure(make_arrays, 1, data=data, clips=sizes.clips)
    packing = measure(pack_arrays, 1, data=data)
    common = {"data": data, "whole_system": sizes.drop_caches}
    cold = [figures["per_second"] for figures in compare([plain, ours], sizes.repeats, cold=True, **common)]
    warm = [figures["per_second"] for figures in compare([plain, ours], sizes.repeats, cold=False, **common)]
    batch = measure(ours, sizes.repeats, cold=False, at_once=16, **common)["per_second"]
    files, space = on_disk([data / kind for kind in KINDS])
    _, packed = on_disk([data / "features"])
    return [
        more("clips, warm", warm[0], warm[1], at_least=2.5),
        more("clips, cold", cold[0], cold[1], at_least=1.5),
        more("clips, warm, 16 per call", warm[0], batch),
        below("packing the .npy files", sizes.clips / packing["seconds"], None, "clips/s"),
        below("disk space", packed, None, "MB", plain=space),
        below(
            "files for 5.48 M clips (computed)",
            packed_files(data / "features", ROWS),
            5000,
            "",
            plain=files / sizes.clips * ROWS,
        ),
    ]
