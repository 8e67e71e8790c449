"""Planned rows -> one padded batch: sentences, linear spectrograms, and the waveforms that they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from tts_kernel.audio.spectrogram import melotts_mel
from tts_kernel.data.features import FeatureError
from tts_kernel.data.planned import each_tensor
from tts_kernel.data.sampler import PlannedBatch, Position
from tts_kernel.data.spoken.clips import HOP, Clips
from tts_kernel.data.spoken.sounds import waveform
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

    def __init__(self, clips: Clips, store: SpokenStore, speakers: Mapping[str, int], gigabytes: float) -> None:
        self.clips, self.store, self.speakers = clips, store, dict(speakers)
        self.mel = melotts_mel()
        self.left = gigabytes * 1e9
        self.kept: dict[int, Spoken] = {}

    def __getitem__(self, planned: PlannedBatch) -> SpokenBatch:
        rows = [self.spoken(int(row)) for row in planned.rows]
        return replace(collate(rows), position=planned.after, idle=planned.idle)

    def spoken(self, row: int) -> Spoken:
        """One clip. Raises FeatureError for a recording that is not as long as it was when it was measured."""
        if row in self.kept:
            return self.kept[row]
        clips, samples = self.clips, int(self.clips.frames[row]) * HOP
        wave = _decoded(clips.paths[row])
        if len(wave) // HOP != clips.frames[row]:
            raise FeatureError(
                f"{clips.paths[row]}: {len(wave):,} samples at 44.1 kHz, {samples:,} or a little more when it was "
                "measured; start again"
            )
        wave = wave[:samples]
        found = Spoken(
            clips.ids[row],
            self.speakers[clips.speakers[row]],
            self.store.sentence(clips.sentences[row]),
            wave,
            self.mel.magnitudes(torch.from_numpy(wave)[None])[0],
        )
        if found.nbytes <= self.left:
            self.kept[row] = found
            self.left -= found.nbytes
        return found


def _decoded(path: Path) -> np.ndarray:
    try:
        return waveform(path)
    except (OSError, ValueError) as error:
        raise FeatureError(f"{error}; it could be read when the run began") from error


def collate(rows: Sequence[Spoken]) -> SpokenBatch:
    """Rows in this order; padding is zeros."""

    def padded(arrays: Sequence[np.ndarray]) -> Tensor:
        return pad_sequence([torch.from_numpy(np.ascontiguousarray(array)) for array in arrays], batch_first=True)

    sentences = [row.sentence for row in rows]
    spectrograms = pad_sequence([row.spectrogram.T for row in rows], batch_first=True)
    return SpokenBatch(
        ids=[row.name for row in rows],
        phones=padded([said.phones for said in sentences]),
        tones=padded([said.tones for said in sentences]),
        languages=padded([said.languages for said in sentences]),
        token_lengths=torch.tensor([len(said.phones) for said in sentences]),
        features=padded([said.features.T for said in sentences]).transpose(1, 2).contiguous(),
        spectrograms=spectrograms.transpose(1, 2).contiguous(),
        frame_lengths=torch.tensor([row.spectrogram.shape[1] for row in rows]),
        waves=padded([row.wave for row in rows])[:, None],
        speakers=torch.tensor([row.speaker for row in rows]),
    )
