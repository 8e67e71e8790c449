"""Rows of a manifest -> one padded batch, every array checked against what its file should hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tts_kernel.data.features import FeatureError, Features
from tts_kernel.data.manifest import Manifest
from tts_kernel.data.sampler import PlannedBatch, Position
from tts_kernel.data.speakers import UNKNOWN

Emotion = Literal["mel", "semantic", "stored"]
Speaker = Literal["stored", "semantic"]
MIN_FRAMES = 3  # the conformers halve their input without padding: fewer frames leave none


@dataclass(frozen=True)
class Batch:
    """One batch, padded with zeros behind each row's length; half precision as stored, until `to` a device. Exactly one
    of the two emotion forms and one of the two speaker forms is there."""

    ids: list[str]
    text_tokens: Tensor  # (batch, tokens) int64
    text_lengths: Tensor  # (batch,)
    codes: Tensor  # (batch, frames) int64
    code_lengths: Tensor  # (batch,)
    speaker_ids: Tensor  # (batch,) int64, -1 where unknown
    latents: Tensor | None = None  # (batch, n, model_dim) stored speaker condition of the prompt
    speaker_features: Tensor | None = None  # (batch, frames, dim) semantic features of the prompt
    speaker_lengths: Tensor | None = None
    emotion_vector: Tensor | None = None  # (batch, model_dim) stored
    emotion_features: Tensor | None = None  # (batch, frames, bins) mel or semantic features of the target
    emotion_lengths: Tensor | None = None
    position: Position | None = None  # where the sampler goes on after this batch
    idle: bool = False  # another process has these rows; this one only keeps it company

    def facts(self) -> list[dict[str, Any]]:
        """Id and lengths of each row, for a report."""
        columns = (self.ids, self.text_lengths.tolist(), self.code_lengths.tolist())
        return [{"id": name, "text_tokens": text, "codes": codes} for name, text, codes in zip(*columns, strict=True)]

    def split(self, parts: int) -> list[Batch]:
        """The same rows in at most `parts` batches, each padded to its own longest row."""
        size = -(-len(self.ids) // parts)
        return [self._rows(slice(start, start + size)) for start in range(0, len(self.ids), size)]

    def _rows(self, rows: slice) -> Batch:
        cut: dict[str, Any] = {"ids": self.ids[rows]}
        for item in fields(self):
            if isinstance(value := getattr(self, item.name), Tensor):
                cut[item.name] = value[rows]
        for name, lengths in _PADDED.items():
            if cut.get(name) is not None:
                cut[name] = cut[name][:, : int(cut[lengths].max())]
        return replace(self, **cut)

    def to(self, device: torch.device) -> Batch:
        """On the device, where half precision becomes float32."""
        moved: dict[str, Any] = {}
        for item in fields(self):
            if isinstance(value := getattr(self, item.name), Tensor):
                value = value.to(device, non_blocking=True)
                moved[item.name] = value.float() if value.dtype == torch.float16 else value
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        pinned = {
            item.name: getattr(self, item.name).pin_memory()
            for item in fields(self)
            if isinstance(getattr(self, item.name), Tensor)
        }
        return replace(self, **pinned)


_PADDED = {
    "text_tokens": "text_lengths",
    "codes": "code_lengths",
    "speaker_features": "speaker_lengths",
    "emotion_features": "emotion_lengths",
}


@dataclass(frozen=True)
class Limits:
    """What the model can take: the checks that a file must pass."""

    num_text_tokens: int  # token ids lie below
    num_codes: int  # codes lie below
    max_text_tokens: int
    max_codes: int
    latents: tuple[int, int]  # (condition_num_latent, model_dim)
    semantic_bins: int
    emotion_bins: int


class PairDataset(Dataset[Batch]):
    """Pairs as whole batches: an index is a `PlannedBatch`, so a DataLoader takes it with `batch_size=None`. Goes to
    worker processes of any start method; they share the pages of the manifest and the features."""

    def __init__(
        self,
        manifest: Manifest,
        limits: Limits,
        speaker_ids: np.ndarray,
        emotion: Emotion,
        speaker: Speaker,
        allow_outside: bool = False,  # read paths that leave the manifest's folder
    ) -> None:
        self.limits, self.speaker_ids = limits, speaker_ids
        self.emotion, self.speaker = emotion, speaker
        self.manifest = manifest
        self.pairs = manifest.select([*self.columns(), "id"])  # what goes to a worker
        self.features = Features(manifest.root, allow_outside=allow_outside)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"manifest": self.pairs}

    def columns(self) -> list[str]:
        """The manifest's columns that name files this dataset reads."""
        emotion = {"mel": "target_mel_path", "semantic": "target_semantic_path", "stored": "prompt_emo_vec_path"}
        speaker = {"stored": "prompt_condition_path", "semantic": "prompt_semantic_path"}
        return ["target_text_ids_path", "target_codes_path", speaker[self.speaker], emotion[self.emotion]]

    def __getitem__(self, planned: PlannedBatch) -> Batch:
        rows, limits, emotion = planned.rows, self.limits, self.emotion
        pairs = self.pairs.take(rows)
        names = [self._paths(pairs, column, rows) for column in self.columns()]
        arrays = iter(self.features.read([name for column in names for name in column]))
        text, codes, speaker, other = (
            Named(self.manifest.root, column, list(islice(arrays, len(rows)))) for column in names
        )
        text_tokens, text_lengths = text.ids(limits.num_text_tokens, limits.max_text_tokens, "text token")
        code_tokens, code_lengths = codes.ids(limits.num_codes, limits.max_codes, "code")
        batch = Batch(
            ids=pairs.strings("id").to_pylist(),
            text_tokens=text_tokens,
            text_lengths=text_lengths,
            codes=code_tokens,
            code_lengths=code_lengths,
            speaker_ids=torch.from_numpy(self.speaker_ids[rows].astype(np.int64)),
            position=planned.after,
            idle=planned.idle,
        )
        if self.speaker == "stored":
            batch = replace(batch, latents=speaker.frames(limits.latents[1], exactly=limits.latents[0])[0])
        else:
            features, lengths = speaker.frames(limits.semantic_bins)
            batch = replace(batch, speaker_features=features, speaker_lengths=lengths)
        if emotion == "stored":
            return replace(batch, emotion_vector=other.vectors(limits.latents[1]))
        features, lengths = other.frames(limits.emotion_bins)
        return replace(batch, emotion_features=features, emotion_lengths=lengths)

    def _paths(self, pairs: Manifest, column: str, rows: np.ndarray) -> list[str]:
        filled = pairs.has(column)
        if not filled.all():
            line = self.manifest.line(rows[int(np.argmin(filled))])
            raise FeatureError(f"{self.manifest.path}:{line}: no {column}, which this training reads")
        return pairs.strings(column).to_pylist()


def missing_features(data: PairDataset, rows: np.ndarray) -> list[str]:
    """`file:line: what is missing` for every feature of these rows that is neither packed nor in a file."""
    problems = []
    pairs = data.manifest.take(rows)
    for column in data.columns():
        filled = np.flatnonzero(pairs.has(column))
        names = dict(zip(filled, pairs.strings(column).take(pa.array(filled)).to_pylist(), strict=True))
        for row in filled[~data.features.has(list(names.values()))]:
            where = f"{data.manifest.path}:{data.manifest.line(rows[row])}"
            problems.append(f"{where}: {column}: {names[row]} does not exist")
    return problems


def labels(mapping: dict[str, int], manifest: Manifest) -> np.ndarray:
    """(rows,) class of each row's speaker, -1 outside the mapping."""
    names, speakers = manifest.categories("speaker")
    return np.array([mapping.get(name, UNKNOWN) for name in names], dtype=np.int32)[speakers]


@dataclass(frozen=True)
class Named:
    """Arrays of one kind for the rows of a batch, checked and copied once into a padded tensor. Each method raises
    FeatureError naming the file, what it holds and what was expected."""

    root: Path
    names: list[str]
    arrays: list[np.ndarray]

    def ids(self, below: int, at_most: int, what: str) -> tuple[Tensor, Tensor]:
        """(batch, n) int64 with 0 <= id < below, and (batch,) lengths, each 1 to at_most."""
        for row, array in enumerate(self.arrays):
            self._check_kind(row, "iu", "integers")
            if array.ndim != 1 or not 1 <= len(array) <= at_most:
                self._refuse(row, f"shape {list(array.shape)}, expected 1 to {at_most} {what}s in one dimension")
        padded, lengths = self._padded(np.dtype(np.int64))
        if padded.min() < 0 or padded.max() >= below:
            row, place = np.argwhere((padded < 0) | (padded >= below))[0]
            self._refuse(row, f"{what} {padded[row, place]} lies outside the model's vocabulary of {below}")
        return torch.from_numpy(padded), lengths

    def frames(self, bins: int, exactly: int | None = None) -> tuple[Tensor, Tensor]:
        """(batch, frames, bins), float16 where all are stored so, else float32; and (batch,) lengths."""
        wanted = f"[{exactly}, {bins}]" if exactly else f"[at least {MIN_FRAMES} frames, {bins}]"
        for row, array in enumerate(self.arrays):
            self._check_kind(row, "f", "floating point")
            count = len(array) if array.ndim == 2 and array.shape[1] == bins else 0
            if count != exactly if exactly else count < MIN_FRAMES:
                self._refuse(row, f"shape {list(array.shape)}, expected {wanted}")
        return self._finite(*self._padded(self._float(), bins))

    def vectors(self, width: int) -> Tensor:
        """(batch, width), also where they were stored as (1, width)."""
        for row, array in enumerate(self.arrays):
            self._check_kind(row, "f", "floating point")
            if array.squeeze().shape != (width,):
                self._refuse(row, f"shape {list(array.shape)}, expected [{width}]")
        flat = Named(self.root, self.names, [array.reshape(width) for array in self.arrays])
        return flat._finite(*flat._padded(flat._float()))[0]

    def _float(self) -> np.dtype:
        """Half precision stays so until the batch is on its device: half the bytes to copy."""
        return np.dtype(np.float16 if all(array.dtype == np.float16 for array in self.arrays) else np.float32)

    def _padded(self, dtype: np.dtype, *rest: int) -> tuple[np.ndarray, Tensor]:
        lengths = [len(array) for array in self.arrays]
        padded = np.zeros((len(lengths), max(lengths), *rest), dtype)
        for row, array in zip(padded, self.arrays, strict=True):
            row[: len(array)] = array
        return padded, torch.tensor(lengths)

    def _finite(self, padded: np.ndarray, lengths: Tensor) -> tuple[Tensor, Tensor]:
        values = torch.from_numpy(padded)
        if not math.isfinite(values.sum(dtype=torch.float32)):  # one NaN or infinity makes a sum of them
            good = torch.isfinite(values).reshape(len(values), -1)
            row = int(good.all(dim=1).int().argmin())
            bad, size = int((~good[row]).sum()), self.arrays[row].size
            if bad:
                self._refuse(row, f"{bad} of {size} values are NaN or infinite; extract it again")
        return values, lengths

    def _check_kind(self, row: int, kinds: str, expected: str) -> None:
        if self.arrays[row].dtype.kind not in kinds:
            self._refuse(row, f"holds {self.arrays[row].dtype}, expected {expected}")

    def _refuse(self, row: int, problem: str) -> NoReturn:
        raise FeatureError(f"{self.root / self.names[row]}: {problem}")
