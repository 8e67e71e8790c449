"""Rows of a manifest -> one padded batch, every array checked against what its file should hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from tts_kernel.data.manifest import Manifest
from tts_kernel.data.sampler import PlannedBatch, Position
from tts_kernel.data.speakers import UNKNOWN

Emotion = Literal["mel", "semantic", "stored"]
Speaker = Literal["stored", "semantic"]
MIN_FRAMES = 3  # the conformers halve their input without padding: fewer frames leave none


class FeatureError(ValueError):
    """A feature file that is missing, damaged or not what the manifest and the model expect."""


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
    """Pairs as whole batches: an index is a `PlannedBatch`, so a DataLoader takes it with `batch_size=None`."""

    def __init__(
        self, manifest: Manifest, limits: Limits, speaker_ids: np.ndarray, emotion: Emotion, speaker: Speaker
    ) -> None:
        self.manifest, self.limits, self.speaker_ids = manifest, limits, speaker_ids
        self.emotion, self.speaker = emotion, speaker
        self.table = manifest.table.select([name for name in [*self.columns(), "id"] if name in manifest])

    def columns(self) -> list[str]:
        """The manifest's columns that name files this dataset reads."""
        emotion = {"mel": "target_mel_path", "semantic": "target_semantic_path", "stored": "prompt_emo_vec_path"}
        speaker = {"stored": "prompt_condition_path", "semantic": "prompt_semantic_path"}
        return ["target_text_ids_path", "target_codes_path", speaker[self.speaker], emotion[self.emotion]]

    def __getitem__(self, planned: PlannedBatch) -> Batch:
        rows = planned.rows
        table = self.table.take(rows)
        limits = self.limits

        def paths(column: str) -> list[Path]:
            names = table.column(column).to_pylist()
            for row, name in zip(rows, names, strict=True):
                if name is None:
                    raise FeatureError(f"{self.manifest.path}:{row + 1}: no {column}, which this training reads")
            return [self.manifest.root / name for name in names]

        text = [
            load_ids(path, limits.num_text_tokens, limits.max_text_tokens, "text token")
            for path in paths("target_text_ids_path")
        ]
        codes = [load_ids(path, limits.num_codes, limits.max_codes, "code") for path in paths("target_codes_path")]
        batch = Batch(
            ids=table.column("id").to_pylist(),
            text_tokens=pad_sequence(text, batch_first=True),
            text_lengths=_lengths(text),
            codes=pad_sequence(codes, batch_first=True),
            code_lengths=_lengths(codes),
            speaker_ids=torch.from_numpy(self.speaker_ids[rows]),
            position=planned.after,
        )
        return self._with_emotion(self._with_speaker(batch, paths), paths)

    def _with_speaker(self, batch: Batch, paths: Callable[[str], list[Path]]) -> Batch:
        if self.speaker == "stored":
            count, width = self.limits.latents
            latents = [load_frames(path, width, exactly=count) for path in paths("prompt_condition_path")]
            return replace(batch, latents=torch.stack(latents))
        features = [load_frames(path, self.limits.semantic_bins) for path in paths("prompt_semantic_path")]
        return replace(
            batch, speaker_features=pad_sequence(features, batch_first=True), speaker_lengths=_lengths(features)
        )

    def _with_emotion(self, batch: Batch, paths: Callable[[str], list[Path]]) -> Batch:
        if self.emotion == "stored":
            vectors = [load_vector(path, self.limits.latents[1]) for path in paths("prompt_emo_vec_path")]
            return replace(batch, emotion_vector=torch.stack(vectors))
        column = "target_mel_path" if self.emotion == "mel" else "target_semantic_path"
        features = [load_frames(path, self.limits.emotion_bins) for path in paths(column)]
        return replace(
            batch, emotion_features=pad_sequence(features, batch_first=True), emotion_lengths=_lengths(features)
        )


def labels(mapping: dict[str, int], manifest: Manifest) -> np.ndarray:
    """(rows,) class of each row's speaker, -1 outside the mapping."""
    speakers = manifest.strings("speaker").combine_chunks().dictionary_encode()
    names = speakers.dictionary.to_pylist()
    classes = np.array([mapping.get(name, UNKNOWN) for name in names], dtype=np.int64)
    return classes[speakers.indices.to_numpy()]


def _lengths(rows: list[Tensor]) -> Tensor:
    return torch.tensor([len(row) for row in rows])


def load_array(path: Path, kind: str) -> np.ndarray:
    """An .npy file whose dtype is of `kind` ("f" or "i"), finite. Raises FeatureError."""
    try:
        with path.open("rb") as file:  # np.load would also open an archive, and name no array
            array = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise FeatureError(f"{path}: does not exist; extract it, or remove its rows from the manifest") from None
    except (ValueError, EOFError, OSError) as error:
        raise FeatureError(f"{path}: not a readable .npy ({error}); delete it and extract it again") from error
    if array.dtype.kind not in {"f": "f", "i": "iu"}[kind]:
        expected = {"f": "floating point", "i": "integers"}[kind]
        raise FeatureError(f"{path}: holds {array.dtype}, expected {expected}")
    if kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise FeatureError(f"{path}: {bad} of {array.size} values are NaN or infinite; delete it and extract it again")
    return array


def load_ids(path: Path, below: int, at_most: int, what: str) -> Tensor:
    """(n,) int64 with 0 <= id < below and 1 <= n <= at_most."""
    array = load_array(path, "i")
    if array.ndim != 1 or not 1 <= len(array) <= at_most:
        raise FeatureError(f"{path}: shape {list(array.shape)}, expected 1 to {at_most} {what}s in one dimension")
    if array.min() < 0 or array.max() >= below:
        found = array.max() if array.max() >= below else array.min()
        raise FeatureError(f"{path}: {what} {found} lies outside the model's vocabulary of {below}")
    return torch.from_numpy(array.astype(np.int64))


def load_frames(path: Path, bins: int, exactly: int | None = None) -> Tensor:
    """(frames, bins) float32."""
    array = load_array(path, "f")
    wanted = f"[{exactly}, {bins}]" if exactly else f"[at least {MIN_FRAMES} frames, {bins}]"
    frames = array.shape[0] if array.ndim == 2 else 0
    if array.ndim != 2 or array.shape[1] != bins or (frames != exactly if exactly else frames < MIN_FRAMES):
        raise FeatureError(f"{path}: shape {list(array.shape)}, expected {wanted}")
    return torch.from_numpy(array.astype(np.float32))


def load_vector(path: Path, width: int) -> Tensor:
    """(width,) float32, also where it was stored as (1, width)."""
    array = load_array(path, "f").squeeze()
    if array.shape != (width,):
        raise FeatureError(f"{path}: shape {list(array.shape)}, expected [{width}]")
    return torch.from_numpy(array.astype(np.float32))
