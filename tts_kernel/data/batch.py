"""Rows of a manifest -> one padded batch, every array checked against what its file should hold."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
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
    """One batch, padded with zeros behind each row's length. Exactly one of the two emotion forms and one of the two
    speaker forms is there."""

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

    def to(self, device: torch.device) -> Batch:
        moved = {
            item.name: getattr(self, item.name).to(device, non_blocking=True)
            for item in fields(self)
            if isinstance(getattr(self, item.name), Tensor)
        }
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        pinned = {
            item.name: getattr(self, item.name).pin_memory()
            for item in fields(self)
            if isinstance(getattr(self, item.name), Tensor)
        }
        return replace(self, **pinned)


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
        self, manifest: Manifest, limits: Limits, speaker_ids: np.ndarray, emotion: Emotion, speaker: Speaker
    ) -> None:
        self.limits, self.speaker_ids = limits, speaker_ids
        self.emotion, self.speaker = emotion, speaker
        self.manifest = manifest
        self.pairs = manifest.select([*self.columns(), "id"])  # what goes to a worker
        self.features = Features(manifest.root)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"manifest": self.pairs}

    def columns(self) -> list[str]:
        """The manifest's columns that name files this dataset reads."""
        emotion = {"mel": "target_mel_path", "semantic": "target_semantic_path", "stored": "prompt_emo_vec_path"}
        speaker = {"stored": "prompt_condition_path", "semantic": "prompt_semantic_path"}
        return ["target_text_ids_path", "target_codes_path", speaker[self.speaker], emotion[self.emotion]]

    def __getitem__(self, planned: PlannedBatch) -> Batch:
        rows, limits = planned.rows, self.limits
        pairs = self.pairs.take(rows)
        names = [self._paths(pairs, column, rows) for column in self.columns()]
        arrays = self.features.read([name for column in names for name in column])
        found = [
            [(f"{self.manifest.root}/{name}", array) for name, array in zip(column, arrays[start:], strict=False)]
            for column, start in zip(names, range(0, len(arrays), len(rows)), strict=True)
        ]
        text = [as_ids(*item, limits.num_text_tokens, limits.max_text_tokens, "text token") for item in found[0]]
        codes = [as_ids(*item, limits.num_codes, limits.max_codes, "code") for item in found[1]]
        batch = Batch(
            ids=pairs.strings("id").to_pylist(),
            text_tokens=pad_sequence(text, batch_first=True),
            text_lengths=_lengths(text),
            codes=pad_sequence(codes, batch_first=True),
            code_lengths=_lengths(codes),
            speaker_ids=torch.from_numpy(self.speaker_ids[rows].astype(np.int64)),
            position=planned.after,
        )
        return self._with_emotion(self._with_speaker(batch, found[2]), found[3])

    def _paths(self, pairs: Manifest, column: str, rows: np.ndarray) -> list[str]:
        filled = pairs.has(column)
        if not filled.all():
            line = self.manifest.line(rows[int(np.argmin(filled))])
            raise FeatureError(f"{self.manifest.path}:{line}: no {column}, which this training reads")
        return pairs.strings(column).to_pylist()

    def _with_speaker(self, batch: Batch, found: list[tuple[str, np.ndarray]]) -> Batch:
        if self.speaker == "stored":
            count, width = self.limits.latents
            return replace(batch, latents=torch.stack([as_frames(*item, width, exactly=count) for item in found]))
        features = [as_frames(*item, self.limits.semantic_bins) for item in found]
        return replace(
            batch, speaker_features=pad_sequence(features, batch_first=True), speaker_lengths=_lengths(features)
        )

    def _with_emotion(self, batch: Batch, found: list[tuple[str, np.ndarray]]) -> Batch:
        if self.emotion == "stored":
            return replace(batch, emotion_vector=torch.stack([as_vector(*i, self.limits.latents[1]) for i in found]))
        features = [as_frames(*item, self.limits.emotion_bins) for item in found]
        return replace(
            batch, emotion_features=pad_sequence(features, batch_first=True), emotion_lengths=_lengths(features)
        )


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


def _lengths(rows: list[Tensor]) -> Tensor:
    return torch.tensor([len(row) for row in rows])


def as_kind(name: str, array: np.ndarray, kind: str) -> np.ndarray:
    """An array whose dtype is of `kind` ("f" or "i"), finite. Raises FeatureError."""
    if array.dtype.kind not in {"f": "f", "i": "iu"}[kind]:
        expected = {"f": "floating point", "i": "integers"}[kind]
        raise FeatureError(f"{name}: holds {array.dtype}, expected {expected}")
    if kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise FeatureError(f"{name}: {bad} of {array.size} values are NaN or infinite; extract it again")
    return array


def as_ids(name: str, array: np.ndarray, below: int, at_most: int, what: str) -> Tensor:
    """(n,) int64 with 0 <= id < below and 1 <= n <= at_most."""
    as_kind(name, array, "i")
    if array.ndim != 1 or not 1 <= len(array) <= at_most:
        raise FeatureError(f"{name}: shape {list(array.shape)}, expected 1 to {at_most} {what}s in one dimension")
    if array.min() < 0 or array.max() >= below:
        found = array.max() if array.max() >= below else array.min()
        raise FeatureError(f"{name}: {what} {found} lies outside the model's vocabulary of {below}")
    return torch.from_numpy(array.astype(np.int64))


def as_frames(name: str, array: np.ndarray, bins: int, exactly: int | None = None) -> Tensor:
    """(frames, bins) float32."""
    as_kind(name, array, "f")
    wanted = f"[{exactly}, {bins}]" if exactly else f"[at least {MIN_FRAMES} frames, {bins}]"
    frames = array.shape[0] if array.ndim == 2 else 0
    if array.ndim != 2 or array.shape[1] != bins or (frames != exactly if exactly else frames < MIN_FRAMES):
        raise FeatureError(f"{name}: shape {list(array.shape)}, expected {wanted}")
    return torch.from_numpy(array.astype(np.float32))


def as_vector(name: str, array: np.ndarray, width: int) -> Tensor:
    """(width,) float32, also where it was stored as (1, width)."""
    array = as_kind(name, array, "f").squeeze()
    if array.shape != (width,):
        raise FeatureError(f"{name}: shape {list(array.shape)}, expected [{width}]")
    return torch.from_numpy(array.astype(np.float32))
