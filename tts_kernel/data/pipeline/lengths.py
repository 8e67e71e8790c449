"""What counting needs of every utterance, as columns: no audio and no tokens, only how many of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from tts_kernel.audio.wav import Hz

RATE: Hz = 24_000
TOKEN_SAMPLES = 960  # samples at 24 kHz: one speech token, two mel frames
FRAMES_PER_TOKEN = 2
TOKENS_PER_SECOND = 25
EMBEDDING = 192  # width of a speaker embedding, which is CAM++'s
UNREADABLE = -1  # samples of audio that cannot be read
ABSENT = -1  # reject tokens where there is no such column


@dataclass(frozen=True)
class Lengths:
    """One row per utterance, in reading order; all arrays are (rows,)."""

    utterances: np.ndarray  # names, objects
    speakers: np.ndarray  # int32, number in `speaker_names`
    samples: np.ndarray  # int64 per channel at the file's rate, -1 where the audio cannot be read
    rates: np.ndarray  # int32, Hz
    text_tokens: np.ndarray  # int32
    speech_tokens: np.ndarray  # int32
    reject_tokens: np.ndarray  # int32, of the column reject_speech_token, -1 without one
    shards: np.ndarray  # int32, number in `paths`
    rows: np.ndarray  # int64, within the shard
    speaker_names: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.utterances)

    def take(self, rows: np.ndarray) -> Lengths:
        """The rows at these positions, or where a mask is true."""
        taken = {
            item.name: getattr(self, item.name)[rows]
            for item in fields(self)
            if isinstance(getattr(self, item.name), np.ndarray)
        }
        return Lengths(**taken, speaker_names=self.speaker_names, paths=self.paths)

    @property
    def tens(self) -> np.ndarray:
        """float64, length in frames of 10 ms, before resampling and padding; in the reference's order of evaluation."""
        return self.samples / np.maximum(self.rates, 1) * 100

    @property
    def audio_frames(self) -> np.ndarray:
        """int64, mel frames of the audio padded to whole tokens: 2 * ceil(samples at 24 kHz / 960)."""
        resampled = -(self.samples * -RATE // np.maximum(self.rates, 1))
        return FRAMES_PER_TOKEN * -(-resampled // TOKEN_SAMPLES)

    @property
    def frames(self) -> np.ndarray:
        """int64, mel frames in a batch: twice the speech tokens, of which there are no more than the audio has."""
        return np.minimum(self.audio_frames, FRAMES_PER_TOKEN * self.speech_tokens.astype(np.int64))

    @property
    def trimmed(self) -> np.ndarray:
        """int64, tokens by which the two differ: above 0 where the mel is cut, below where the tokens are."""
        return self.audio_frames // FRAMES_PER_TOKEN - self.speech_tokens

    @property
    def seconds(self) -> np.ndarray:
        return self.samples / np.maximum(self.rates, 1)


def lengths_of_statistics(
    utterances: int, median_seconds: float, spread: float, letters_per_second: float, seed: int = 0
) -> Lengths:
    """A corpus of one speaker known by its statistics alone: log-normal durations with this median and spread (the
    standard deviation of the logarithm), cut at 1 and 30 s; text tokens in proportion with some scatter; 24 kHz."""
    random = np.random.default_rng(seed)
    seconds = np.clip(median_seconds * np.exp(spread * random.standard_normal(utterances)), 1.0, 30.0)
    samples = (seconds * RATE).astype(np.int64)
    text = np.maximum(1, seconds * letters_per_second * np.exp(0.15 * random.standard_normal(utterances)))
    return Lengths(
        utterances=np.array([f"utterance_{number:04d}" for number in range(utterances)], dtype=object),
        speakers=np.zeros(utterances, np.int32),
        samples=samples,
        rates=np.full(utterances, RATE, np.int32),
        text_tokens=text.round().astype(np.int32),
        speech_tokens=(-(-samples // TOKEN_SAMPLES)).astype(np.int32),
        reject_tokens=np.full(utterances, ABSENT, np.int32),
        shards=np.zeros(utterances, np.int32),
        rows=np.arange(utterances),
        speaker_names=("the voice",),
    )
