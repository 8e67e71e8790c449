"""Figures of a MeloTTS run: what it learned, and how a held-out clip is aligned before and after."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tts_kernel.audio.wav import read
from tts_kernel.recovery.history import read_history
from tts_kernel.runs import Run
from tts_kernel.widgets.figures import BLUE, GREEN, ORANGE, make_figure, save_figure
from tts_kernel.widgets.lines import draw, label_steps

SAMPLES = "samples"  # folder in the run's, written at every validation


def learned(run: Run) -> Path:
    """Mel loss, and how steadily the likeliest phone of a frame moves on, as figures/learned.png."""
    history = read_history(run.folder)
    figure, axes = make_figure(11, 3.6, 1, 2)
    losses, steady = axes[0]
    losses.set_title("Mel loss", fontsize=10)
    draw(losses, history["train/mel_loss"], "training", BLUE)
    draw(losses, history["val/mel_loss"], "held-out clips", ORANGE, marks=True)
    steady.set_title("Frames whose likeliest phone goes on as speech does", fontsize=10)
    draw(steady, history["val/monotonic"], "held-out clips", GREEN, marks=True)
    steady.set_ylim(0, 1)
    for axis in (losses, steady):
        label_steps(axis)
        axis.legend(fontsize=8, frameon=False)
    return save_figure(figure, run, "learned")


def alignments(run: Run) -> Path:
    """The probability of every phone for each frame by itself, of one held-out clip, at the first and at the last
    validation, with the path that the search finds, as figures/alignment.png."""
    found = sorted((run.folder / SAMPLES).glob("step_*_alignment.npz"))
    shown = [found[0], found[-1]]
    figure, axes = make_figure(11, 3.6, 1, 2)
    for axis, path in zip(axes[0], shown, strict=True):
        with np.load(path, allow_pickle=False) as arrays:
            scores, way = arrays["scores"], arrays["path"]
        axis.grid(visible=False)
        axis.imshow(scores.T, origin="lower", aspect="auto", interpolation="none", cmap="Blues", vmin=0, vmax=1)
        axis.plot(np.arange(len(way)), way.argmax(axis=1), color=ORANGE, linewidth=1.0)
        step = int(path.name.split("_")[1])
        axis.set_title(f"update {step:,}: each frame by itself (blue), the path (line)", fontsize=10)
        axis.set(xlabel="frame", ylabel="phone, with blanks")
    return save_figure(figure, run, "alignment")


def heard(run: Run) -> dict[str, str]:
    """By name, of each sentence spoken at the last validation: how long it is and how loud."""
    found = sorted((run.folder / SAMPLES).glob("step_*.wav"))
    last = found[-1].name.split("_")[1] if found else ""
    told = {}
    for path in found:
        _, step, name = path.stem.split("_", 2)
        if step == last:
            wave, rate = read(path)
            level = 20.0 * np.log10(max(float(np.sqrt(np.mean(wave**2))), 1e-5))
            told[name] = f"{len(wave) / rate:.2f} s, {level:.0f} dB RMS"
    return told
