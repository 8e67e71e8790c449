"""What a voice gives back, of whichever family its models are, and how the parts of a long text meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tts_kernel.audio.wav import Hz, Seconds
from tts_kernel.models.weights import reason
from tts_kernel.training.speed import choose_device

if TYPE_CHECKING:
    from tts_kernel.text.phones import Phones

PAUSE: Seconds = 0.15  # between two parts, beside the silence that a model makes itself
FADE: Seconds = 0.005  # at both ends of a part, so that it meets the pause without a click


class SynthesisError(ValueError):
    """A text, a voice or settings that cannot be spoken, or models that do not speak together."""


@dataclass(frozen=True)
class Speech:
    wav: np.ndarray  # (samples,) float32 in [-1, 1]
    sample_rate: Hz
    took: Seconds
    cut: tuple[str, ...] = ()  # CosyVoice2: parts that met the limit of speech tokens instead of ending by themselves
    seed: int | None = None  # MeloTTS: with which the same is said again
    sentences: tuple[Phones, ...] = ()  # MeloTTS: as they were read: numbers in words, the language of every phone
    left_out: tuple[str, ...] = ()  # MeloTTS: characters without a sound, such as emoji

    @property
    def seconds(self) -> Seconds:
        return len(self.wav) / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Time that it took per time that it lasts: below 1 is quicker than it is spoken."""
        return self.took / self.seconds


def fade(wav: np.ndarray, sample_rate: Hz, *, begins: bool = True, ends: bool = True) -> np.ndarray:
    """(samples,) of a part, in place: from silence where it begins, to silence where it ends."""
    rise = np.linspace(0.0, 1.0, min(int(FADE * sample_rate), len(wav)), dtype=np.float32)
    if begins:
        wav[: len(rise)] *= rise
    if ends:
        wav[len(wav) - len(rise) :] *= rise[::-1]
    return wav


def open_device(name: torch.device | str) -> torch.device:
    """ "auto" is the GPU where there is one; else what torch calls so. Raises SynthesisError for a name that torch does
    not know and for a device that is not there."""
    if name == "auto":
        return choose_device("auto")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise SynthesisError(f"device is {name!r} ({reason(error)}); use auto, cpu, cuda or cuda:<number>") from error
