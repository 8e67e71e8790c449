"""Figures of a MeloTTS run: what it learned, and how a held-out clip is aligned before and after."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tts_kernel.audio.wav import read
from tts_kernel.recovery.history import read_history
from tts_kernel.runs import Run
from tts_kernel.training.shown import SAMPLES, samples_of, step_of
from tts_kernel.widgets.figures import BLUE, GREEN, ORANGE, make_figure, save_figure
from tts_kernel.widgets.lines import draw, label_steps


def learned(run: Run) -> Path:
    """Mel loss, and which share of a clip its longest phone takes, as figures/learned.png."""
    history = read_history(run.folder)
    figure, axes = make_figure(11, 3.6, 1, 2)
    losses, longest = axes[0]
    losses.set_title("Mel loss", fontsize=10)
    draw(losses, history["train/mel_loss"], "training", BLUE)
    draw(losses, history["val/mel_loss"], "held-out clips", ORANGE, marks=True)
    longest.set_title("Share of a clip that its longest phone takes", fontsize=10)
    draw(longest, history["val/longest_phone"], "held-out clips", GREEN, marks=True)
    longest.set_ylim(bottom=0.0)
    for axis in (losses, longest):
        label_steps(axis)
        axis.legend(fontsize=8, frameon=False)
    return save_figure(figure, run, "learned")


def alignments(run: Run) -> Path:
    """The probability of every phone at each frame of one held-out clip, at the first and at the last validation, with
    the path that the search finds, as figures/alignment.png."""
    found = sorted((run.folder / SAMPLES).glob("step_*_alignment.npz"), key=step_of)
    figure, axes = make_figure(11, 3.6, 1, 2)
    if not found:
        axes[0][0].set_title("no alignments: the run's setting samples is 0", fontsize=10)
    for axis, path in zip(axes[0], [found[0], found[-1]] if found else [], strict=False):
        with np.load(path, allow_pickle=False) as arrays:
            likely, way = arrays["likely"], arrays["path"]
        axis.grid(visible=False)
        axis.imshow(likely.T, origin="lower", aspect="auto", interpolation="none", cmap="Blues", vmin=0, vmax=1)
        axis.plot(np.arange(len(way)), way.argmax(axis=1), color=ORANGE, linewidth=1.0)
        axis.set_title(f"update {step_of(path):,}: probability (blue), likeliest path (line)", fontsize=10)
        axis.set(xlabel="frame", ylabel="phone, with blanks")
    return save_figure(figure, run, "alignment")


def heard(run: Run) -> dict[str, str]:
    """By name, of each sentence spoken at the last validation: how long it is and how loud."""
    last = max(map(step_of, (run.folder / SAMPLES).glob("step_*.wav")), default=0)
    told = {}
    for name, path in samples_of(run.folder, last).items():
        if path.suffix == ".wav":
            wave, rate = read(path)
            level = 20.0 * np.log10(max(float(np.sqrt(np.mean(wave**2))), 1e-5))
            told[name.removesuffix(".wav")] = f"{len(wave) / rate:.2f} s, {level:.0f} dB RMS"
    return told
