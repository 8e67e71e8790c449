"""A folder of clips: two speakers, 22,050 Hz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 22_050


def make_clips(folder: Path, each: int = 3) -> Path:
    """`<speaker>/<clip>.wav` and `.txt`, of 1 s and more."""
    for number, speaker in enumerate(("kim", "lee")):
        (folder / speaker).mkdir(parents=True)
        for clip in range(each):
            time = np.arange(RATE + 3000 * clip) / RATE
            wav = 0.2 * np.sin(2 * np.pi * (120 + 90 * number + 10 * clip) * time)
            soundfile.write(folder / speaker / f"{speaker}{clip}.wav", wav, RATE)
            (folder / speaker / f"{speaker}{clip}.txt").write_text(f"clip {clip} of {speaker}", encoding="utf-8")
    return folder
