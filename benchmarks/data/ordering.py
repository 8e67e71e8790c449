"""Mel-first order of a manifest against a folder of mels, cold and warm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from benchmarks.data.generate import PAIRS_PER_TARGET, make_clips
from benchmarks.data.measure import Figures, Stopwatch, measure
from benchmarks.data.result import MELS, Result, Sizes, below

FRAMES_PER_SECOND = 22_050 / 256
NEW = 1000  # mels that a job added since the last ordering


def make_mels(folder: str, clips: int, mels: int) -> Figures:
    """`mels` .npy files of clips drawn at random: a real header, and a hole of the right size for the values."""
    made = make_clips(clips)
    chosen = np.sort(np.random.default_rng(2).choice(clips, mels, replace=False))
    frames = np.rint(made.seconds[chosen] * FRAMES_PER_SECOND).astype(int)
    os.makedirs(folder, exist_ok=True)
    for clip, length in zip(made.ids.take(chosen).to_pylist(), frames.tolist(), strict=True):
        make_mel(f"{folder}/{clip}.npy", length)
    return {"files": mels}


def make_mel(path: str, frames: int) -> None:
    header = str({"descr": "<f4", "fortran_order": False, "shape": (frames, 80)})
    padded = header + " " * (118 - 1 - len(header)) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode())
        file.truncate(128 + frames * 80 * 4)


def plain(data: str) -> Figures:
    """Each line parsed, its mel looked for and its header read, lines sorted and written again."""
    root = Path(data)
    frames: dict[str, int] = {}
    rows = []
    with Stopwatch() as whole:
        with (root / "gpt_pairs_train.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                clip = row["target_id"]
                if clip not in frames:
                    path = root / "mel" / f"{clip}.npy"
                    frames[clip] = np.load(path, mmap_mode="r").shape[0] if path.is_file() else 0
                if frames[clip]:
                    row["target_mel_path"], row["target_mel_len"] = f"mel/{clip}.npy", frames[clip]
                rows.append(row)
        rows.sort(key=lambda row: "target_mel_path" not in row)
        with (root / "plain.jsonl").open("w", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    (root / "plain.jsonl").unlink()
    return {"seconds": whole.seconds / len(rows)}


def forget(data: str) -> Figures:
    """As if the folder had just been copied here: no import, no order, no mel read."""
    from tts_kernel.data.features.npy_files import SHAPES
    from tts_kernel.data.manifest.cache import places
    from tts_kernel.data.ordering import MEL_MANIFEST

    for source in (Path(data) / "gpt_pairs_train.jsonl", Path(data) / MEL_MANIFEST):
        for place in places(source):
            place.unlink(missing_ok=True)
            place.with_suffix(".json").unlink(missing_ok=True)
    (Path(data) / MEL_MANIFEST).unlink(missing_ok=True)
    (Path(data) / "mel" / SHAPES).unlink(missing_ok=True)
    return {}


def add_mels(data: str, count: int) -> Figures:
    """Mels for targets that have none yet."""
    from tts_kernel.data.manifest import read_manifest

    have = {name.removesuffix(".npy") for name in os.listdir(f"{data}/mel")}
    clips = read_manifest(Path(data) / "gpt_pairs_train.jsonl").strings("target_id").unique().to_pylist()
    missing = [clip for clip in clips if clip not in have][:count]
    for clip in missing:
        make_mel(f"{data}/mel/{clip}.npy", 700)
    return {"files": len(missing)}


def ours(data: str) -> Figures:
    from tts_kernel.data.ordering import order_mel_first

    with Stopwatch() as whole:
        done = order_mel_first(Path(data))
    return {"seconds": whole.seconds, "available": done.stayed + done.added, "added": done.added}


TITLE = "Mel-first order"
METHOD = """{rows:,} rows against a folder of {mels:,} mels (real headers, lengths read from them). Cold: JSONL in,
JSONL out, no import and no earlier order. Warm: both there. The plain way parses, looks for each clip's mel, sorts
and dumps (time scaled from {sampled:,} rows with the same share of mels). The page cache is warm throughout."""


def run(sizes: Sizes) -> list[Result]:
    data, sample = sizes.manifest.parent, sizes.sample_manifest.parent
    clips, sampled = sizes.rows // PAIRS_PER_TARGET, sizes.sampled // PAIRS_PER_TARGET
    mels = min(sizes.mels, clips // 2)
    measure(make_mels, 1, folder=data / "mel", clips=clips, mels=mels)
    measure(make_mels, 1, folder=sample / "mel", clips=sampled, mels=round(sampled * mels / clips))
    loop = measure(plain, sizes.repeats, data=sample)["seconds"] * sizes.rows
    measure(forget, 1, data=data)
    cold = measure(ours, 1, data=data)
    warm = measure(ours, sizes.repeats, data=data)
    new = measure(add_mels, 1, data=data, count=min(NEW, clips - mels))
    grown = measure(ours, 1, data=data)
    assert cold["available"] > 0
    assert grown["added"] >= new["files"]
    full = sizes.full and mels >= MELS
    return [
        below("cold", cold["seconds"], 60, plain=loop, judged=full),
        below("peak memory, cold", cold["peak_mb"], None, "MB"),
        below("warm, no new mel", warm["seconds"], 5, plain=loop, judged=full),
        below(f"warm, {new['files']:,} new mels", grown["seconds"], 5, plain=loop, judged=full),
    ]
