"""Semantic units: a clip as a sequence of discrete codes, what the GPT predicts.

`SemanticCodec` is the interface; the published codec (w2v-BERT and a vector quantiser) fulfils it with weights that
the user names. `KMeansUnits` fulfils it without any weights, for the demo corpus: k-means over cepstra, loudness and
pitch, so that its codes carry phones, prosody and some of the speaker.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from tts_kernel.audio.codebook import fit_centres, load_arrays, nearest_centres, save_arrays
from tts_kernel.audio.wav import Hz, resample

SAMPLE_RATE: Hz = 22_050
HOP = 882  # samples: 25 frames a second
WINDOW = 2 * HOP  # samples: 80 ms, four periods at the lowest pitch
N_FFT, N_MELS, N_CEPSTRA = 2048, 40, 17
PITCH_MIN, PITCH_MAX = 50.0, 500.0  # Hz
VOICED = 0.5  # normalised autocorrelation from which a frame counts as voiced
QUIET = 1e-4  # RMS below which a frame is silence: -80 dB, one step of 16-bit audio is -90 dB
STATICS = N_CEPSTRA + 3  # cepstra, log energy, log pitch, voicing
FEATURE_DIM = 2 * STATICS  # and their slopes
LIMIT = 5.0  # standardised features are cut here, so that one odd frame cannot own a code


@runtime_checkable
class SemanticCodec(Protocol):
    """Audio -> continuous features (the conditioners read them) -> codes (the GPT predicts them)."""

    codebook_size: int
    feature_dim: int
    frame_rate: float  # Hz

    def features(self, wav: np.ndarray, sample_rate: Hz) -> np.ndarray:
        """(samples,) -> (frames, feature_dim) float32."""
        ...

    def encode(self, features: np.ndarray) -> np.ndarray:
        """(frames, feature_dim) -> (frames,) int64 in [0, codebook_size)."""
        ...


class UnitsError(ValueError):
    """Units that cannot be fitted, opened or applied."""


class KMeansUnits:
    """k-means over standardised `acoustic_features`; a `SemanticCodec`. Made by `fit` or `load`, never changed."""

    feature_dim: int = FEATURE_DIM
    frame_rate: float = SAMPLE_RATE / HOP  # 25 Hz

    def __init__(self, mean: np.ndarray, std: np.ndarray, centres: np.ndarray) -> None:
        """`mean`, `std`: (feature_dim,) of the corpus; `centres`: (codebook_size, feature_dim), in weighted space."""
        if mean.shape != (FEATURE_DIM,) or std.shape != (FEATURE_DIM,) or centres.shape[1:] != (FEATURE_DIM,):
            raise UnitsError(
                f"units have shapes {mean.shape}, {std.shape}, {centres.shape}; expected ({FEATURE_DIM},), "
                f"({FEATURE_DIM},), (codebook size, {FEATURE_DIM}): fit them again"
            )
        self.mean, self.std, self.centres = mean, std, centres
        self.codebook_size: int = len(centres)

    @classmethod
    def fit(cls, clips: Sequence[np.ndarray], codebook_size: int = 128, seed: int = 1) -> KMeansUnits:
        """Units of a corpus given as the `acoustic_features` of its clips, each (frames, feature_dim).

        Same clips and seed, same units. Raises UnitsError if there are fewer frames than codes."""
        frames = np.concatenate(list(clips)) if len(clips) else np.zeros((0, FEATURE_DIM), np.float32)
        if len(frames) < codebook_size:
            raise UnitsError(
                f"{len(frames)} frames cannot fill {codebook_size} codes; give more clips or ask for fewer codes"
            )
        mean = frames.mean(axis=0, dtype=np.float64).astype(np.float32)
        std = frames.std(axis=0, dtype=np.float64).astype(np.float32) + np.float32(1e-6)
        points = _standardise(frames, mean, std) * _weights()
        return cls(mean, std, fit_centres(points, codebook_size, iterations=40, seed=seed))

    def features(self, wav: np.ndarray, sample_rate: Hz) -> np.ndarray:
        """(samples,) in [-1, 1] -> (frames, feature_dim) float32, about unit scale, within +-`LIMIT`."""
        return self.standardise(acoustic_features(wav, sample_rate))

    def standardise(self, acoustic: np.ndarray) -> np.ndarray:
        """(frames, feature_dim) of `acoustic_features` -> the same shape, float32, by the corpus's mean and spread."""
        return _standardise(acoustic, self.mean, self.std)

    def encode(self, features: np.ndarray) -> np.ndarray:
        """(frames, feature_dim) -> (frames,) int64, the nearest centre of every frame."""
        if features.ndim != 2 or features.shape[1] != FEATURE_DIM:
            raise UnitsError(f"features have shape {features.shape}; expected (frames, {FEATURE_DIM}) from `features`")
        return nearest_centres(features.astype(np.float64) * _weights(), self.centres)

    def save(self, path: Path) -> None:
        """Write the units as .npz, whole or not at all."""
        save_arrays(path, mean=self.mean, std=self.std, centres=self.centres)

    @classmethod
    def load(cls, path: Path) -> KMeansUnits:
        """Read what `save` wrote. Raises UnitsError, naming the file, if it is missing or something else."""
        try:
            return cls(*load_arrays(path, "mean", "std", "centres"))
        except ValueError as error:
            raise UnitsError(f"{path}: not a file of units ({error}); fit and save them again") from error


def acoustic_features(wav: np.ndarray, sample_rate: Hz) -> np.ndarray:
    """(samples,) in [-1, 1] -> (frames, feature_dim) float32, not standardised; one frame per 40 ms, at least one.

    Columns: cepstra 1 to 17, log RMS, log pitch (drawn through unvoiced frames), voicing in [0, 1]; then the slope of
    each, per frame. Always finite, on digital silence too. Raises UnitsError if there are no samples."""
    if wav.ndim != 1 or len(wav) == 0:
        raise UnitsError(f"a clip of shape {wav.shape} has no features; expected (samples,) with at least one")
    wav = resample(np.asarray(wav, dtype=np.float32), sample_rate, SAMPLE_RATE).astype(np.float64)
    frames = _frames(wav)
    rms = np.sqrt((frames**2).mean(axis=1))
    pitch, voicing = _pitch(frames, rms)
    statics = np.column_stack([_cepstra(frames), np.log(rms + QUIET), _through_unvoiced(pitch, voicing), voicing])
    return np.concatenate([statics, _slope(statics)], axis=1).astype(np.float32)


def _frames(wav: np.ndarray) -> np.ndarray:
    """(samples,) -> (frames, WINDOW); frame i is centred on its own 40 ms, the clip's ends are padded with silence."""
    count = max(1, len(wav) // HOP)
    side = (WINDOW - HOP) // 2
    padded = np.pad(wav, (side, max(0, count * HOP - len(wav)) + side))
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:count]


def _cepstra(frames: np.ndarray) -> np.ndarray:
    """(frames, WINDOW) -> (frames, N_CEPSTRA): cosine transform of the log-mel, without its mean (the energy)."""
    from tts_kernel.audio.spectrogram import mel_filters  # brings torch; the demo's units need it only here

    filters = mel_filters(SAMPLE_RATE, N_FFT, N_MELS, f_min=60.0, f_max=8_000.0, scale="htk").numpy().astype(np.float64)
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), N_FFT)) ** 2
    log_mel = np.log(power @ filters.T + 1e-4)  # about the power of 16-bit rounding noise in one band
    order, band = np.arange(1, N_CEPSTRA + 1)[:, None], np.arange(N_MELS)[None]
    return log_mel @ (np.sqrt(2.0 / N_MELS) * np.cos(np.pi / N_MELS * (band + 0.5) * order)).T


def _pitch(frames: np.ndarray, rms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frames, WINDOW) -> pitch in Hz and voicing in [0, 1], each (frames,), from the highest autocorrelation peak.
    Source: Boersma 1993 (the autocorrelation is divided by the window's own, so it does not favour short lags)."""
    window = np.hanning(WINDOW)
    size = 2 * N_FFT  # a power of two above 2 * WINDOW: no wrap-around
    centred = (frames - frames.mean(axis=1, keepdims=True)) * window
    shortest, longest = int(SAMPLE_RATE / PITCH_MAX), int(SAMPLE_RATE / PITCH_MIN)
    lags = np.arange(shortest, longest + 1)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, size)) ** 2, size)
    energy = correlation[:, :1]
    peaks = correlation[:, lags] / of_window[lags] * of_window[0] / np.maximum(energy, 1e-12)
    best = (peaks - 0.01 * np.log2(lags / shortest)).argmax(axis=1)  # prefer the octave above when both fit
    voicing = np.clip(peaks[np.arange(len(peaks)), best], 0.0, 1.0)
    return SAMPLE_RATE / lags[best], np.where(rms > 10 * QUIET, voicing, 0.0)


def _through_unvoiced(pitch: np.ndarray, voicing: np.ndarray) -> np.ndarray:
    """Natural log of the pitch, (frames,), interpolated where the frame is unvoiced; flat 150 Hz if all of it is."""
    voiced = np.flatnonzero(voicing >= VOICED)
    if len(voiced) == 0:
        return np.full(len(pitch), np.log(150.0))
    return np.interp(np.arange(len(pitch)), voiced, np.log(pitch[voiced]))


def _slope(values: np.ndarray) -> np.ndarray:
    """(frames, dim) -> the same shape: least-squares slope over five frames, the ends held."""
    padded = np.pad(values, ((2, 2), (0, 0)), mode="edge")
    return (2.0 * (padded[4:] - padded[:-4]) + (padded[3:-1] - padded[1:-3])) / 10.0


def _standardise(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return np.clip((features - mean) / std, -LIMIT, LIMIT).astype(np.float32)


def _weights() -> np.ndarray:
    """(feature_dim,): what a dimension counts for in the distance. Twenty cepstra would outvote the prosody, and
    slopes would spend codes on transitions."""
    weights = np.ones(FEATURE_DIM, dtype=np.float32)
    weights[N_CEPSTRA : N_CEPSTRA + 2] = 1.5  # energy, pitch
    weights[STATICS:] = 0.3
    return weights
