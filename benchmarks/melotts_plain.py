"""MeloTTS's training loop as it is usually written, on our networks: what the recipe's loop is measured against.

Its batches come from fixed buckets (data/buckets.py, compared in parity case training_facts). Spectrograms and the text
encoder's features are files of `torch.save`, one each for every clip; the recording is decoded whenever it is used. The
batch is padded as a whole, and the alignment fills a path of ones. In every step each discriminator hears recordings
and synthetic voices in calls of their own, once to learn from them and once more for the generator, which leaves
gradients in the discriminators that nothing uses; three AdamW as torch makes them; every parameter's norm read by
itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tts_kernel.audio.spectrogram import LogMel, melotts_mel
from tts_kernel.data.buckets import BucketPlan
from tts_kernel.data.sampler import Position
from tts_kernel.data.spoken import SpokenBatch
from tts_kernel.data.spoken.clips import HOP
from tts_kernel.data.spoken.sounds import waveform
from tts_kernel.data.spoken.store import Sentence
from tts_kernel.models.melotts import synthesizer
from tts_kernel.models.melotts.losses import (
    discriminator_loss,
    duration_discriminator_loss,
    duration_generator_loss,
    feature_loss,
    generator_loss,
    judge_durations,
    kl_loss,
    mel_loss,
)
from tts_kernel.models.melotts.synthesizer import Training, segments
from tts_kernel.recipes.melotts.model import Networks
from tts_kernel.recipes.melotts.objective import text_of
from tts_kernel.recipes.melotts.train import BETAS, EPS, Prepared

SPECTROGRAM, FEATURES = ".spec.pt", ".bert.pt"
ALIGNMENT_NOISE = 0.01


@dataclass(frozen=True)
class Step:
    """One update that a loop has taken."""

    cpu: float  # seconds of `time.process_time` when it was done
    clock: float  # of `time.perf_counter`
    clips: int = 0
    frames: int = 0  # of these, without padding
    padded: int = 0  # with padding
    losses: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One clip, read."""

    number: int
    spectrogram: Tensor  # (bins, frames)
    features: Tensor  # (width, phones)
    wave: Tensor  # (samples,)


def write_files(prepared: Prepared) -> None:
    """The two files beside every recording, as a first epoch leaves them."""
    data = prepared.corpus.data(prepared.corpus.train, gigabytes=0.0)
    for number, path in enumerate(prepared.corpus.train.paths):
        spoken = data.spoken(number)
        torch.save(spoken.spectrogram.contiguous(), path.with_suffix(SPECTROGRAM))
        torch.save(torch.from_numpy(spoken.sentence.features), path.with_suffix(FEATURES))


class Rows(Dataset[Row]):
    """One clip at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __getitem__(self, number: int) -> Row:
        path = self.paths[number]
        spectrogram = torch.load(path.with_suffix(SPECTROGRAM), weights_only=True)
        features = torch.load(path.with_suffix(FEATURES), weights_only=True)
        return Row(number, spectrogram, features, torch.from_numpy(waveform(path)))


class Collate:
    """Rows -> one batch, longest first, each kind padded to its longest row."""

    def __init__(self, prepared: Prepared) -> None:
        clips, store = prepared.corpus.train, prepared.corpus.store
        self.ids, self.speakers = clips.ids, [prepared.corpus.speakers[name] for name in clips.speakers]
        self.sentences: list[Sentence] = [store.sentence(name) for name in clips.sentences]

    def __call__(self, rows: list[Row]) -> SpokenBatch:
        rows = sorted(rows, key=lambda row: row.spectrogram.shape[1], reverse=True)
        said = [self.sentences[row.number] for row in rows]
        tokens = torch.tensor([len(sentence.phones) for sentence in said])
        frames = torch.tensor([row.spectrogram.shape[1] for row in rows])
        size, most, longest = len(rows), int(tokens.max()), int(frames.max())
        ids = torch.zeros(3, size, most, dtype=torch.long)
        features = torch.zeros(size, len(rows[0].features), most)
        spectrograms = torch.zeros(size, len(rows[0].spectrogram), longest)
        waves = torch.zeros(size, 1, longest * HOP)
        for place, (row, sentence) in enumerate(zip(rows, said, strict=True)):
            for kind, values in zip(ids, (sentence.phones, sentence.tones, sentence.languages), strict=True):
                kind[place, : len(values)] = torch.from_numpy(values)
            features[place, :, : row.features.shape[1]] = row.features
            spectrograms[place, :, : row.spectrogram.shape[1]] = row.spectrogram
            samples = row.spectrogram.shape[1] * HOP
            waves[place, 0, :samples] = row.wave[:samples]
        speakers = torch.tensor([self.speakers[row.number] for row in rows])
        names = [self.ids[row.number] for row in rows]
        return SpokenBatch(names, *ids, tokens, features, spectrograms, frames, waves, speakers)


class Loop:
    """The three networks and the three optimisers."""

    def __init__(self, networks: Networks, prepared: Prepared) -> None:
        self.networks, self.settings, self.mel = networks, prepared.settings, melotts_mel()
        networks.G.reference_padding = True
        rate = prepared.settings.learning_rate
        self.optimizers = {
            name: torch.optim.AdamW(part.parameters(), rate, betas=BETAS, eps=EPS)
            for name, part in networks.parts().items()
        }

    def step(self, batch: SpokenBatch) -> dict[str, float]:
        """One update of each network; its losses."""
        said, recorded = self.say(batch)
        losses = self.judge(said, recorded)
        for name in losses:
            self.take(name, losses[name])
        pleased = self.please(batch, said, recorded)
        weights = {"mel": self.settings.c_mel, "kl": self.settings.c_kl}
        self.take("G", torch.stack([weights.get(name, 1.0) * value for name, value in pleased.items()]).sum())
        return {name: value.item() for name, value in {**losses, **pleased}.items()}

    def say(self, batch: SpokenBatch) -> tuple[Training, Tensor]:
        lengths, speakers = batch.frame_lengths, batch.speakers
        with mock.patch.object(synthesizer, "monotonic_durations", plain_durations):
            said = self.networks.G(
                text_of(batch), batch.spectrograms, lengths, speakers, alignment_noise=ALIGNMENT_NOISE
            )
        return said, segments(batch.waves, said.starts * HOP, said.audio.shape[2])

    def judge(self, said: Training, recorded: Tensor) -> dict[str, Tensor]:
        """What the discriminators learn from, by network."""
        assert self.networks.DUR is not None
        durations = judge_durations(self.networks.DUR, said, for_generator=False, reference=True)
        real, synthetic = self.networks.D(recorded), self.networks.D(said.audio.detach())
        return {
            "DUR": duration_discriminator_loss(*durations, said.prior.mask, reference=True)[0],
            "D": discriminator_loss(real, synthetic)[0],
        }

    def please(self, batch: SpokenBatch, said: Training, recorded: Tensor) -> dict[str, Tensor]:
        """What the generator learns from, before the weights."""
        assert self.networks.DUR is not None
        _, predicted = judge_durations(self.networks.DUR, said, for_generator=True, reference=True)
        real, synthetic = self.networks.D(recorded), self.networks.D(said.audio)
        return {
            "mel": mel_of(self.mel, batch, said),
            "kl": kl_loss(said.z_p, said.posterior.log_deviation, said.m_p, said.logs_p, said.frame_mask),
            "dur": said.duration_loss.sum(),
            "adv": generator_loss(synthetic)[0],
            "fm": feature_loss(real, synthetic),
            "dur_adv": duration_generator_loss(predicted, said.prior.mask, reference=True),
        }

    def take(self, name: str, loss: Tensor) -> None:
        """One optimiser's step."""
        self.optimizers[name].zero_grad()
        loss.backward()
        gradient_norm(self.networks.parts()[name])
        self.optimizers[name].step()


def mel_of(mel: LogMel, batch: SpokenBatch, said: Training) -> Tensor:
    """The mel loss of the segments, out of the whole batch's mels."""
    spoken = mel(said.audio[:, 0])
    return mel_loss(segments(mel.of_magnitudes(batch.spectrograms), said.starts, spoken.shape[2]), spoken)


def gradient_norm(network: nn.Module) -> float:
    total = 0.0
    for parameter in network.parameters():
        if parameter.grad is not None:
            total += parameter.grad.norm().item() ** 2
    return total**0.5


def train(prepared: Prepared, networks: Networks, epoch: int) -> list[Step]:
    """One epoch of the clips that a bucket holds; those that fill its last batch count as others do. The first of what
    is returned is no update, but when they begin: after a forward pass that warms up, as the recipe's validation."""
    clips, loop, done = prepared.corpus.train, Loop(networks.train(), prepared), list[Step]()
    plan = BucketPlan(np.arange(len(clips)), clips.frames, prepared.settings.batch_size)
    order = [planned.rows.tolist() for planned in plan.epoch(Position(epoch))]
    batches = DataLoader(Rows(clips.paths), batch_sampler=order, collate_fn=Collate(prepared))  # type: ignore[arg-type]
    with torch.no_grad():
        loop.say(next(iter(batches)))
    done.append(Step(time.process_time(), time.perf_counter()))
    for batch in batches:
        losses = loop.step(batch)
        count, frames = len(batch.ids), int(batch.frame_lengths.sum())
        padded = count * batch.spectrograms.shape[2]
        done.append(Step(time.process_time(), time.perf_counter(), count, frames, padded, losses))
    return done


def plain_durations(scores: Tensor, token_lengths: Tensor, frame_lengths: Tensor) -> Tensor:
    """As `alignment.monotonic_durations`, out of a path of ones and zeros (batch, frames, tokens)."""
    values = np.array(scores.detach().numpy(), dtype=np.float32)
    path = np.zeros(values.shape, dtype=np.int32)
    _compiled()(path, values, token_lengths.numpy().astype(np.int32), frame_lengths.numpy().astype(np.int32))
    return torch.from_numpy(path).to(scores.dtype).sum(dim=1).long()


def search(path: np.ndarray, values: np.ndarray, tokens: np.ndarray, frames: np.ndarray) -> None:
    """Glow-TTS's algorithm 1 (arXiv 2005.11129), totals in place of the scores. Written for numba."""
    for row in range(len(values)):
        width, length, total = tokens[row], frames[row], values[row]
        for frame in range(length):
            for token in range(max(0, width + frame - length), min(width, frame + 1)):
                stay = -1e9 if token == frame else total[frame - 1, token]
                move = -1e9
                if token:
                    move = total[frame - 1, token - 1]
                elif frame == 0:
                    move = 0.0
                total[frame, token] += max(stay, move)
        token = width - 1
        for frame in range(length - 1, -1, -1):
            path[row, frame, token] = 1
            if token and (token == frame or total[frame - 1, token] < total[frame - 1, token - 1]):
                token -= 1


@cache
def _compiled() -> Callable[..., None]:
    from numba import njit

    return njit(nogil=True)(search)
