"""Stand-ins for the published extractors, for the demo: a codebook over log-mels and statistics of a voice.

They fill the same columns with the same shapes. What they make fits only models that were trained on it, never the
published weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tts_kernel.audio.codebook import fit_centres, load_arrays, nearest_centres, save_arrays
from tts_kernel.audio.spectrogram import cosyvoice2_mel, cosyvoice2_training_mel
from tts_kernel.audio.wav import Hz, resample_sinc
from tts_kernel.data.pipeline.lengths import EMBEDDING, FRAMES_PER_TOKEN, RATE

CODES = 256
_STATISTICS = 160  # mean and spread of each of 80 bands
_PROJECTION_SEED = 192


class StandIns:
    """k-means over pairs of mel frames less the clip's mean, 25 a second; a voice as its mel's mean and spread through
    a fixed projection. Made by `fit` or `load`, never changed."""

    def __init__(self, centres: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> None:
        """`centres` (codes, 80); `mean`, `spread` (160,) of the statistics over a corpus."""
        if centres.ndim != 2 or centres.shape[1] != 80 or mean.shape != (_STATISTICS,) or spread.shape != mean.shape:
            shapes = f"{centres.shape}, {mean.shape}, {spread.shape}"
            raise ValueError(f"stand-ins have shapes {shapes}; expected (codes, 80), (160,), (160,): fit them again")
        self.centres, self.mean, self.spread = centres, mean, spread
        random = np.random.default_rng(_PROJECTION_SEED)
        self._projection = (random.standard_normal((_STATISTICS, EMBEDDING)) / np.sqrt(_STATISTICS)).astype(np.float32)
        self._mel = cosyvoice2_mel()

    @classmethod
    def fit(cls, mels: Sequence[np.ndarray], codes: int = CODES, seed: int = 1) -> StandIns:
        """From the training mels of a corpus, each (frames, 80). Same mels and seed, same stand-ins. Raises ValueError
        if there are fewer tokens than codes."""
        points = np.concatenate([_points(mel) for mel in mels])
        if len(points) < codes:
            raise ValueError(f"{len(points)} tokens cannot fill {codes} codes; give more clips or ask for fewer codes")
        statistics = np.stack([_statistics(mel) for mel in mels])
        centres = fit_centres(points, codes, iterations=25, seed=seed)
        return cls(centres, statistics.mean(axis=0), statistics.std(axis=0) + 1e-3)

    def tokens(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        """(samples,) in [-1, 1] -> (ceil(seconds * 25),) int64."""
        return self.tokens_of_mel(self._mel_of(wav, rate))

    def embedding(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        """(samples,) in [-1, 1] -> (192,) float32, not normalised."""
        return self.embedding_of_mel(self._mel_of(wav, rate))

    def tokens_of_mel(self, mel: np.ndarray) -> np.ndarray:
        """(frames, 80) -> (frames // 2,) int64."""
        return nearest_centres(_points(mel), self.centres)

    def embedding_of_mel(self, mel: np.ndarray) -> np.ndarray:
        """(frames, 80) -> (192,) float32."""
        return (((_statistics(mel) - self.mean) / self.spread) @ self._projection).astype(np.float32)

    def _mel_of(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        return cosyvoice2_training_mel(resample_sinc(wav, rate, RATE), self._mel)

    def save(self, path: Path) -> None:
        """Write them as .npz, whole or not at all."""
        save_arrays(path, centres=self.centres, mean=self.mean, spread=self.spread)

    @classmethod
    def load(cls, path: Path) -> StandIns:
        """Read what `save` wrote. Raises ValueError, naming the file, if it is missing or something else."""
        try:
            return cls(*load_arrays(path, "centres", "mean", "spread"))
        except ValueError as error:
            raise ValueError(f"{path}: not a file of stand-ins ({error}); fit and save them again") from error


def _points(mel: np.ndarray) -> np.ndarray:
    """(frames, 80) -> (frames // 2, 80) float32: pairs of frames averaged, less the clip's mean: the voice and the
    microphone go, the sounds stay."""
    pairs = mel[: len(mel) // FRAMES_PER_TOKEN * FRAMES_PER_TOKEN].reshape(-1, FRAMES_PER_TOKEN, mel.shape[1])
    return (pairs.mean(axis=1) - mel.mean(axis=0)).astype(np.float32)


def _statistics(mel: np.ndarray) -> np.ndarray:
    """(frames, 80) -> (160,) float32: mean and spread of each band over the louder half of the frames, which speak."""
    level = mel.mean(axis=1)
    spoken = mel[level >= np.median(level)]
    return np.concatenate([spoken.mean(axis=0), spoken.std(axis=0)]).astype(np.float32)
