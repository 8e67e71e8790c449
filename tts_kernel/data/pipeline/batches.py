"""Planned rows -> one padded batch: audio decoded, brought to 24 kHz, its mel, tokens and embeddings beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from tts_kernel.audio.spectrogram import cosyvoice2_mel, cosyvoice2_training_mel
from tts_kernel.audio.wav import resample_sinc
from tts_kernel.data.pipeline.lengths import FRAMES_PER_TOKEN, RATE, Lengths
from tts_kernel.data.pipeline.processors import Padding, ParseEmbedding, Pipeline, PipelineError
from tts_kernel.data.pipeline.shards import VECTORS, RowReader
from tts_kernel.data.pipeline.text import Encoder
from tts_kernel.data.planned import each_tensor
from tts_kernel.data.sampler import PlannedBatch, Position


@dataclass(frozen=True)
class VoiceBatch:
    """One batch, longest first, padded with zeros behind each row's length."""

    ids: list[str]
    speakers: list[str]
    text_tokens: Tensor  # (batch, tokens) int64
    text_lengths: Tensor  # (batch,) int64
    speech_tokens: Tensor  # (batch, tokens) int64, 25 a second
    speech_lengths: Tensor  # (batch,) int64
    mel: Tensor  # (batch, frames, 80), two frames per speech token
    mel_lengths: Tensor  # (batch,) int64
    embedding: Tensor  # (batch, 192) the utterance's, or the speaker's where the pipeline says so
    position: Position | None = None  # where the plan goes on after this batch
    idle: bool = False  # another process has these rows; this one only keeps it company

    def facts(self) -> list[dict[str, Any]]:
        """Id and lengths of each row, for a report."""
        columns = (self.ids, self.text_lengths.tolist(), self.speech_lengths.tolist())
        rows = zip(*columns, strict=True)
        return [{"id": name, "text_tokens": text, "speech_tokens": said} for name, text, said in rows]

    def split(self, parts: int) -> list[VoiceBatch]:
        """The same rows in at most `parts` batches, each padded to its own longest row."""
        size = -(-len(self.ids) // parts)
        return [self._rows(slice(start, start + size)) for start in range(0, len(self.ids), size)]

    def _rows(self, rows: slice) -> VoiceBatch:
        names = [item.name for item in fields(self) if item.name not in ("position", "idle")]
        cut = {name: getattr(self, name)[rows] for name in names}
        for name, lengths in (("text_tokens", "text"), ("speech_tokens", "speech"), ("mel", "mel")):
            cut[name] = cut[name][:, : int(cut[f"{lengths}_lengths"].max())]
        return replace(self, **cut)

    def to(self, device: torch.device) -> VoiceBatch:
        moved: VoiceBatch = each_tensor(self, lambda tensor: tensor.to(device, non_blocking=True))
        return moved

    def pin_memory(self) -> VoiceBatch:
        pinned: VoiceBatch = each_tensor(self, Tensor.pin_memory)
        return pinned


@dataclass(frozen=True)
class Spoken:
    """One utterance as a batch needs it."""

    name: str
    speaker: str
    text_tokens: np.ndarray  # (tokens,) int64
    speech_tokens: np.ndarray  # (tokens,) int64
    mel: np.ndarray  # (2 * speech tokens, 80) float32
    utt_embedding: np.ndarray  # (192,) float32
    spk_embedding: np.ndarray  # (192,) float32


class PipelineDataset(Dataset[VoiceBatch]):
    """Utterances as whole batches: an index is a `PlannedBatch`, so a DataLoader takes it with `batch_size=None`."""

    def __init__(self, pipeline: Pipeline, lengths: Lengths, encoder: Encoder) -> None:
        self.pipeline, self.lengths, self.encoder = pipeline, lengths, encoder
        self.reader, self.mel = RowReader(lengths.paths), cosyvoice2_mel()
        padding, embedding = pipeline.of(Padding), pipeline.of(ParseEmbedding)
        assert padding is not None  # `build` has seen to both
        assert embedding is not None
        self.by_speaker, self.normalize = padding.use_spk_embedding, embedding.normalize

    def __getitem__(self, planned: PlannedBatch) -> VoiceBatch:
        rows = [self.spoken(int(row)) for row in planned.rows]
        return replace(collate(rows, self.by_speaker), position=planned.after, idle=planned.idle)

    def spoken(self, row: int) -> Spoken:
        """One row of the lengths, decoded. Raises PipelineError naming the utterance whose audio is not what its header
        says, or not finite."""
        lengths = self.lengths
        values = self.reader.row(int(lengths.shards[row]), int(lengths.rows[row]))
        where = f"{lengths.paths[lengths.shards[row]]}: {values['utt']}"
        wav = decode(values["audio_data"], where)
        expected = (int(lengths.samples[row]), int(lengths.rates[row]))
        if (len(wav[0]), wav[1]) != expected:
            found = f"{len(wav[0]):,} samples at {wav[1]:,} Hz, the header says {expected[0]:,} at {expected[1]:,}"
            raise PipelineError(f"{where}: its audio has {found}; batches were made by it, decode the clip again")
        mel = cosyvoice2_training_mel(at_24k(*wav), self.mel)
        tokens = int(lengths.frames[row]) // FRAMES_PER_TOKEN
        vectors = {name: self._embedding(values[name]) for name in VECTORS}
        return Spoken(
            name=values["utt"],
            speaker=values["spk"],
            text_tokens=np.array(self.encoder.encode(values["text"]), dtype=np.int64),
            speech_tokens=values["speech_token"][:tokens],
            mel=mel[: FRAMES_PER_TOKEN * tokens],
            **vectors,
        )

    def _embedding(self, value: np.ndarray) -> np.ndarray:
        """(192,) -> the same shape; to unit length where the pipeline says so."""
        return value / max(float(np.linalg.norm(value)), 1e-12) if self.normalize else value


def decode(data: bytes, where: str) -> tuple[np.ndarray, int]:
    """The bytes of an audio file -> (samples,) float32, channels averaged, and the rate in Hz. Raises PipelineError."""
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise PipelineError(f"{where}: its audio cannot be decoded ({error}); decode the clip again") from error
    wav = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not np.isfinite(wav).all():
        bad = int((~np.isfinite(wav)).sum())
        raise PipelineError(f"{where}: {bad:,} of {len(wav):,} samples are NaN or infinite; decode the clip again")
    return wav, rate


def at_24k(wav: np.ndarray, rate: int) -> np.ndarray:
    """(samples,) -> (ceil(samples * 24000 / rate),), divided by its peak where that exceeds 1."""
    wav = resample_sinc(wav, rate, RATE)
    peak = float(np.abs(wav).max(initial=0.0))
    return wav / np.float32(peak) if peak > 1.0 else wav


def collate(rows: Sequence[Spoken], by_speaker: bool) -> VoiceBatch:
    """Rows in this order; padding is zeros."""

    def padded(name: str) -> tuple[Tensor, Tensor]:
        arrays = [torch.from_numpy(getattr(row, name)) for row in rows]
        return pad_sequence(arrays, batch_first=True), torch.tensor([len(array) for array in arrays])

    (text, text_lengths), (speech, speech_lengths) = padded("text_tokens"), padded("speech_tokens")
    mel, mel_lengths = padded("mel")
    vectors = np.stack([row.spk_embedding if by_speaker else row.utt_embedding for row in rows])
    return VoiceBatch(
        ids=[row.name for row in rows],
        speakers=[row.speaker for row in rows],
        text_tokens=text,
        text_lengths=text_lengths,
        speech_tokens=speech,
        speech_lengths=speech_lengths,
        mel=mel,
        mel_lengths=mel_lengths,
        embedding=torch.from_numpy(vectors),
    )
