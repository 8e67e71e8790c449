"""Figures of a run, from its files alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tts_kernel.audio.wav import write
from tts_kernel.runs import Run
from tts_kernel.training.shown import SAMPLES, sample_file
from tts_kernel.widgets import voice


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    samples = tmp_path / SAMPLES
    samples.mkdir()
    lines = []
    for step in (0, 5, 10):
        lines.append(
            {"step": step, "time": 0.0, "val/loss": 4.0, "val/mel_loss": 4.0 - step / 10, "val/longest_phone": 0.2}
        )
        lines.append({"step": step, "time": 0.0, "train/mel_loss": 4.0 - step / 10})
        way = np.eye(12, 6, dtype=np.float32)
        np.savez(samples / f"step_{step:06d}_alignment.npz", likely=way / 2, path=way)
        write(samples / f"step_{step:06d}_0_kr.wav", np.full(44_100 + 441 * step, 0.1), 44_100)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_figures_are_drawn_from_the_runs_files(run: Run) -> None:
    for path in (voice.learned(run), voice.alignments(run)):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_samples_has_figures_that_say_so(run: Run) -> None:
    for path in (run.folder / SAMPLES).iterdir():
        path.unlink()
    assert voice.alignments(run).read_bytes().startswith(b"\x89PNG")
    assert voice.heard(run) == {}


def test_what_comes_last_is_told_by_its_number(run: Run) -> None:
    for step in (999_999, 1_000_000):
        write(sample_file(run.folder, step, "0_kr.wav"), np.full(44_100 * (step - 999_998), 0.1), 44_100)
    assert voice.heard(run) == {"0_kr": "2.00 s, -20 dB RMS"}


def test_what_was_spoken_last_is_measured(run: Run) -> None:
    assert voice.heard(run) == {"0_kr": "1.10 s, -20 dB RMS"}
