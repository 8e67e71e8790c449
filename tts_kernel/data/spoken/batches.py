"""Planned rows -> one padded batch: sentences, linear spectrograms, and the waveforms that they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from tts_kernel.data.planned import each_tensor
from tts_kernel.data.sampler import PlannedBatch, Position
from tts_kernel.data.spoken.clips import Clips
from tts_kernel.data.spoken.spectrograms import Spectrograms
from tts_kernel.data.spoken.store import Sentence, SpokenStore


@dataclass(frozen=True)
class SpokenBatch:
    """One batch, padded with zeros behind each row's length."""

    ids: list[str]
    phones: Tensor  # (batch, tokens) int64, blanks included
    tones: Tensor  # (batch, tokens) int64
    languages: Tensor  # (batch, tokens) int64
    token_lengths: Tensor  # (batch,) int64
    features: Tensor  # (batch, width, tokens) of the text encoder
    spectrograms: Tensor  # (batch, bins, frames), linear magnitudes
    frame_lengths: Tensor  # (batch,) int64
    waves: Tensor  # (batch, 1, frames * 512), 44.1 kHz
    speakers: Tensor  # (batch,) int64
    position: Position | None = None  # where the plan goes on after this batch
    idle: bool = False  # another process has these rows; this one only keeps it company

    def facts(self) -> list[dict[str, Any]]:
        """Id and lengths of each row, for a report."""
        rows = zip(self.ids, self.token_lengths.tolist(), self.frame_lengths.tolist(), strict=True)
        return [{"id": name, "tokens": tokens, "frames": frames} for name, tokens, frames in rows]

    def split(self, parts: int) -> list[SpokenBatch]:
        """The same rows in at most `parts` batches, each padded as the whole is."""
        size = -(-len(self.ids) // parts)
        names = [item.name for item in fields(self) if item.name not in ("position", "idle")]
        return [
            replace(self, **{name: getattr(self, name)[start : start + size] for name in names})
            for start in range(0, len(self.ids), size)
        ]

    def to(self, device: torch.device) -> SpokenBatch:
        moved: SpokenBatch = each_tensor(self, lambda tensor: tensor.to(device, non_blocking=True))
        return moved

    def pin_memory(self) -> SpokenBatch:
        pinned: SpokenBatch = each_tensor(self, Tensor.pin_memory)
        return pinned


@dataclass(frozen=True)
class Spoken:
    """One clip as a batch needs it."""

    name: str
    speaker: int
    sentence: Sentence
    wave: np.ndarray  # (frames * 512,) float32
    spectrogram: Tensor  # (bins, frames)

    @property
    def nbytes(self) -> int:
        return self.wave.nbytes + self.spectrogram.nbytes + self.sentence.features.nbytes


class SpokenDataset(Dataset[SpokenBatch]):
    """Clips as whole batches: an index is a `PlannedBatch`. What has been decoded stays in memory while there is room,
    `gigabytes` of it; workers keep their own."""

    def __init__(
        self,
        clips: Clips,
        store: SpokenStore,
        speakers: Mapping[str, int],
        spectrograms: Spectrograms,
        gigabytes: float,
    ) -> None:
        self.clips, self.store, self.speakers = clips, store, dict(speakers)
        self.spectrograms = spectrograms
        self.left = gigabytes * 1e9
        self.kept: dict[int, Spoken] = {}

    def __getitem__(self, planned: PlannedBatch) -> SpokenBatch:
        rows = [self.spoken(int(row)) for row in planned.rows]
        return replace(collate(rows), position=planned.after, idle=planned.idle)

    def spoken(self, row: int) -> Spoken:
        """One clip. Raises FeatureError for a recording that is not what it was when it was measured."""
        if row in self.kept:
            return self.kept[row]
        clips = self.clips
        wave = clips.wave(row)
        found = Spoken(
            clips.ids[row],
            self.speakers[clips.speakers[row]],
            self.store.sentence(clips.sentences[row]),
            wave,
            self.spectrograms.of(wave, clips.digests[row]),
        )
        if found.nbytes <= self.left:
            self.kept[row] = found
            self.left -= found.nbytes
        return found


def collate(rows: Sequence[Spoken]) -> SpokenBatch:
    """Rows in this order; padding is zeros."""

    def padded(arrays: Sequence[np.ndarray]) -> Tensor:
        return pad_sequence([torch.from_numpy(np.ascontiguousarray(array)) for array in arrays], batch_first=True)

    sentences = [row.sentence for row in rows]
    frames = [row.spectrogram.shape[1] for row in rows]
    spectrograms = torch.zeros(len(rows), len(rows[0].spectrogram), max(frames))
    for place, row in zip(spectrograms, rows, strict=True):
        place[:, : row.spectrogram.shape[1]] = row.spectrogram
    return SpokenBatch(
        ids=[row.name for row in rows],
        phones=padded([said.phones for said in sentences]),
        tones=padded([said.tones for said in sentences]),
        languages=padded([said.languages for said in sentences]),
        token_lengths=torch.tensor([len(said.phones) for said in sentences]),
        features=padded([said.features.T for said in sentences]).transpose(1, 2).contiguous(),
        spectrograms=spectrograms,
        frame_lengths=torch.tensor(frames),
        waves=padded([row.wave for row in rows])[:, None],
        speakers=torch.tensor([row.speaker for row in rows]),
    )
