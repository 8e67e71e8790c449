"""Linear spectrograms, computed once and kept on the disk: neither a second epoch nor a second run computes any.

A spectrogram has the name of everything that it follows from, the waveform and what it is analysed with, so neither a
recording that changed nor other settings find an old one. They lie in shards (data/features), each of them written
whole or not at all: what is killed while it fills the folder loses the shard that it was at.

    spectrogram/<name>.npy   float32 (frames, bins)
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tts_kernel.audio.spectrogram import LogMel, melotts_mel
from tts_kernel.data.features import FeatureError, Features, ShardWriter
from tts_kernel.data.features.features import FOLDER
from tts_kernel.data.features.store_lock import JOB, WORKERS, locked, remove_unfinished
from tts_kernel.data.spoken.clips import Clips

FORMAT = 1  # of what is stored; raise it when `LogMel.magnitudes` gives other numbers
KIND = "spectrogram"
LIMIT = 20.0  # GB: some 16 hours
SHARD = 256_000_000  # bytes of a shard at most, and of what a kill costs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Filled:
    """What a folder has of a list's spectrograms."""

    there: int  # were there before
    added: int
    left_out: int = 0  # for lack of room; they are computed whenever they are needed
    folder: Path = Path()
    gigabytes: float = 0.0  # that the folder may have

    def __str__(self) -> str:
        text = f"{self.there + self.added:,} spectrograms are kept, {self.added:,} of them new"
        if self.left_out:
            text += (
                f"; {self.left_out:,} are computed anew in every epoch, as {self.folder} may have {self.gigabytes:g} "
                "GB: allow more, or delete it if what it holds is of other recordings"
            )
        return text


class Spectrograms:
    """Reads and fills a folder of up to `gigabytes`. Picklable; where two processes fill it, one waits for the other
    and finds its work done."""

    def __init__(self, folder: Path, gigabytes: float = LIMIT, mel: LogMel | None = None) -> None:
        self.folder, self.gigabytes, self.mel = Path(folder), gigabytes, mel or melotts_mel()
        self.arrays = Features(self.folder)

    @property
    def bins(self) -> int:
        return self.mel.n_fft // 2 + 1

    def name(self, digest: str) -> str:
        """What the spectrogram of a waveform is called; `digest` is the waveform's."""
        mel = self.mel
        own = f"{FORMAT}\n{mel.sample_rate} {mel.n_fft} {mel.hop_length} {mel.guard!r}\n{digest}"
        return hashlib.sha256(own.encode()).hexdigest()[:32]

    def of(self, wave: np.ndarray, digest: str) -> Tensor:
        """The stored one or, where there is none, a new one: (samples,) -> (bins, frames)."""
        path = f"{KIND}/{self.name(digest)}.npy"
        if self.arrays.has([path])[0]:
            try:
                (stored,) = self.arrays.read([path])
                return torch.from_numpy(np.array(stored)).T
            except FeatureError as error:
                log.warning("%s; computed anew", error)
        return self.computed(wave)

    def computed(self, wave: np.ndarray) -> Tensor:
        return self.mel.magnitudes(torch.from_numpy(wave)[None])[0]

    def fill(self, clips: Clips, *, progress: bool = True) -> Filled:
        """Compute what is not there yet, each once, as far as there is room. Raises FeatureError for a recording that
        is another one than was measured."""
        rows = {self.name(digest): row for row, digest in enumerate(clips.digests)}
        with self._alone():
            self.arrays.refresh()
            names = list(rows)
            there = self.arrays.exists(KIND, pa.array(names, pa.large_string()))
            missing = [name for name, has in zip(names, there, strict=True) if not has]
            sizes = np.array([int(clips.frames[rows[name]]) * self.bins * 4 for name in missing], dtype=np.int64)
            fitting = missing[: int((self.used() + sizes.cumsum() <= self.gigabytes * 1e9).sum())]
            with tqdm(total=len(fitting), desc="spectrograms", disable=not (progress and fitting)) as bar:
                for part in _parts(fitting, sizes):
                    with ShardWriter(self.folder / FOLDER, f"{KIND}-{uuid.uuid4().hex[:8]}") as shard:
                        for name in part:
                            shard.add(name, KIND, self.computed(clips.wave(rows[name])).T.numpy())
                            bar.update()
            self.arrays.refresh()
        left_out = len(missing) - len(fitting)
        return Filled(int(there.sum()), len(fitting), left_out, self.folder, self.gigabytes)

    def used(self) -> int:
        """Bytes of all spectrograms in the folder, whatever they are of."""
        frames = self.arrays.lengths(KIND).column("frames").to_numpy()
        return int(frames.sum()) * self.bins * 4

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time, after what a killed one left unfinished is gone."""
        folder = self.folder / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / JOB, fcntl.LOCK_EX, patient=True):
            with locked(folder / WORKERS, fcntl.LOCK_EX) as (_, nobody_writes):
                if nobody_writes:
                    remove_unfinished(folder)
            yield


def _parts(names: Sequence[str], sizes: np.ndarray) -> Iterator[Sequence[str]]:
    """Names of each shard; `sizes` are bytes, of these names and perhaps of more."""
    begun = held = 0
    for number, size in enumerate(sizes[: len(names)].tolist()):
        if number > begun and held + size > SHARD:
            yield names[begun:number]
            begun, held = number, 0
        held += size
    if begun < len(names):
        yield names[begun:]
