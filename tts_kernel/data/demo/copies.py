"""A copy of a data folder that can be changed clip by clip, its manifests kept in step; the original stays as it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tts_kernel.audio import wav as audio
from tts_kernel.audio.wav import Hz
from tts_kernel.data.features.features import FOLDER, Features
from tts_kernel.data.files import inside, save_array
from tts_kernel.text.tokenizer import TextTokenizer

Row = dict[str, Any]
MANIFESTS = {"train": "gpt_pairs_train.jsonl", "validation": "gpt_pairs_val.jsonl"}


class DemoCopy:
    """The demo corpus in another folder. Its rows are Python objects: it is small."""

    def __init__(self, original: Path, folder: Path) -> None:
        """Copy `original` into `folder`, which must not exist. Files that stay as they are share their bytes."""
        self.folder = folder
        ignore = shutil.ignore_patterns(".*", FOLDER, *MANIFESTS.values())
        shutil.copytree(original, folder, copy_function=_link, ignore=ignore)
        self.rows = {
            split: [json.loads(line) for line in (original / name).read_text(encoding="utf-8").splitlines()]
            for split, name in MANIFESTS.items()
        }
        self._unpack(Features(original))
        self.tail: list[bytes] = []  # lines of the training manifest after its rows
        self.tokenizer = TextTokenizer(folder / "bpe.model")
        self._taken: set[str] = set()

    def _unpack(self, features: Features) -> None:
        """Write what is packed in the original as files, which can be changed one by one."""
        paths = {row[name] for rows in self.rows.values() for row in rows for name in row if name.startswith("target_")}
        packed = [path for path in map(str, paths) if path.endswith(".npy") and not inside(self.folder, path).exists()]
        for path, array in zip(packed, features.read(packed), strict=True):
            inside(self.folder, path).parent.mkdir(parents=True, exist_ok=True)
            save_array(inside(self.folder, path), array)

    def take(self, split: str = "train", suits: Callable[[Row], bool] = lambda row: True) -> str:
        """A clip that no one has taken yet, the first target that suits. Raises ValueError if there is none left."""
        for row in self.rows[split]:
            if row["target_id"] not in self._taken and suits(row):
                self._taken.add(row["target_id"])
                return row["target_id"]
        raise ValueError(f"{self.folder}: no suitable clip is left in {split}; use a larger corpus")

    def of(self, clip: str) -> Iterator[tuple[str, Row]]:
        """Every row whose target is `clip`, with its split."""
        return ((split, row) for split, rows in self.rows.items() for row in rows if row["target_id"] == clip)

    def row(self, clip: str) -> Row:
        """The first row whose target is `clip`."""
        return next(row for _, row in self.of(clip))

    def in_order(self, *clips: str) -> list[str]:
        """These training clips as they appear in the manifest."""
        return [clip for clip in dict.fromkeys(row["target_id"] for row in self.rows["train"]) if clip in clips]

    def change(self, clip: str, **values: Any) -> None:
        """Set fields of every row whose target is `clip`; None removes one."""
        for _, row in self.of(clip):
            row.update(values)
            for name in [name for name, value in values.items() if value is None]:
                del row[name]

    def file(self, clip: str, kind: str) -> Path:
        """Where a file of a clip is: kind is audio, mel, codes, semantic or text_ids."""
        return inside(self.folder, self.row(clip)[f"target_{kind}_path"])

    def damage(self, clip: str, kind: str, change: Callable[[bytes], bytes] | None = None) -> None:
        """Change the bytes of a file of a clip, or remove it."""
        path = self.file(clip, kind)
        data = path.read_bytes()
        path.unlink()  # the original keeps its own name for these bytes
        if change:
            path.write_bytes(change(data))

    def array(self, clip: str, kind: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Change the values of a feature of a clip, and leave the manifest as it is."""
        path = self.file(clip, kind)
        save_array(path, change(np.load(path, allow_pickle=False)))

    def sound(self, clip: str, change: Callable[[np.ndarray], np.ndarray], rate: Hz | None = None) -> None:
        """Change the samples of a clip, (samples,) in [-1, 1] at 22,050 Hz, and leave its mel as it is; `rate` is that
        of the result."""
        path = self.file(clip, "audio")
        samples, usual = audio.read(path)
        audio.write(path, change(samples), rate or usual)

    def follow_sound(self, clip: str) -> None:
        """Make the mel of a clip anew from its audio."""
        from tts_kernel.audio.spectrogram import indextts2_mel

        mel = indextts2_mel()
        values = mel.of_clip(audio.read(self.file(clip, "audio"), mel.sample_rate)[0])
        save_array(self.file(clip, "mel"), values)
        self.change(clip, target_mel_len=len(values))

    def text(self, clip: str, text: str) -> None:
        """Change the text of a clip, and its token ids with it."""
        ids = np.array(self.tokenizer.encode(text), dtype=np.int64)
        save_array(self.file(clip, "text_ids"), ids)
        self.change(clip, text=text, target_text_len=len(ids))

    def prompt(self, row: Row, clip: str) -> None:
        """Give a row another prompt, a clip of the corpus or one that is not there."""
        there = next((other for _, other in self.of(clip)), None)
        length = there["target_semantic_len"] if there else row["prompt_semantic_len"]
        path = there["target_audio_path"] if there else f"audio/{row['speaker']}/{clip}.wav"
        row |= {
            "prompt_id": clip,
            "prompt_audio_path": path,
            "prompt_condition_path": f"condition/{clip}.npy",
            "prompt_semantic_path": f"semantic/{clip}.npy",
            "prompt_semantic_len": length,
        }

    def line_number(self, row: Row) -> str:
        """`file:line` of a training row as it will be written."""
        return f"{MANIFESTS['train']}:{next(at for at, other in enumerate(self.rows['train'], 1) if other is row)}"

    def write(self) -> None:
        """Write the manifests."""
        for split, name in MANIFESTS.items():
            lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in self.rows[split]]
            tail = self.tail if split == "train" else []
            (self.folder / name).write_bytes(b"".join([*lines, *tail]))


def _link(source: str, target: str) -> None:
    """A second name for the same file where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
