"""Extractors for tests of the jobs: quick to import where they are sent to, and telling about themselves."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def double(wav: np.ndarray) -> np.ndarray:
    return 2.0 * wav


def twelve_times(wav: np.ndarray) -> np.ndarray:
    return np.tile(wav, 12)


def level_and_length(wav: np.ndarray) -> dict[str, np.ndarray]:
    return {"level": np.abs(wav).max()[None], "length": np.array([len(wav)])}


def broken(wav: np.ndarray) -> np.ndarray:
    raise TypeError("our own bug")


@dataclass(frozen=True)
class Numbered:
    """The number of a clip whose samples are all number / 1000. Each call adds `number pid` to a file."""

    calls: Path
    seconds: float = 0.0  # that a clip takes
    deadly: int = -1  # clip that kills its worker

    def __call__(self, wav: np.ndarray) -> np.ndarray:
        number = round(1_000 * float(np.median(wav)))
        with self.calls.open("a") as out:
            out.write(f"{number} {os.getpid()}\n")
        if number == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return np.array([number])
