from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tts_kernel.audio.wav import write
from tts_kernel.training.metrics import MetricLog
from tts_kernel.training.shown import SAMPLES, sample_file, samples_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / SAMPLES).mkdir()
    for step in (0, 30):
        leave(tmp_path, step)
    return tmp_path


def leave(folder: Path, step: int) -> None:
    figure = Figure(figsize=(2, 1), dpi=50)
    FigureCanvasAgg(figure)
    for name in ("mels.png", "alignment.png", "other.png"):
        figure.savefig(sample_file(folder, step, name))
    np.savez(sample_file(folder, step, "alignment.npz"), path=np.eye(2))
    write(sample_file(folder, step, "0_kr.wav"), np.full(800 + step, 0.1, np.float32), 8_000)


def board(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "audio": 0}).Reload()


def test_the_samples_of_a_step_are_its_pictures_and_sounds(run: Path) -> None:
    assert list(samples_of(run, 30)) == ["0_kr.wav", "alignment.png", "mels.png", "other.png"]
    assert samples_of(run, 3) == {}
    assert samples_of(run / "nowhere", 30) == {}


def test_what_a_validation_left_is_in_the_event_file_as_it_is(run: Path) -> None:
    with MetricLog(run) as metrics:
        for step in (0, 30):
            metrics.write(step, {"val/loss": 1.0})
    read = board(run)
    assert set(read.Tags()["images"]) == {"gen/mel", "all/attn", "gen/other"}
    assert read.Tags()["audio"] == ["gen/audio_0_kr"]
    for tag, name in (("gen/mel", "mels.png"), ("all/attn", "alignment.png")):
        shown = read.Images(tag)
        assert [event.step for event in shown] == [0, 30]
        assert (shown[1].width, shown[1].height) == (100, 50)
        assert shown[1].encoded_image_string == sample_file(run, 30, name).read_bytes()
    sounds = read.Audio("gen/audio_0_kr")
    assert [(event.step, event.sample_rate, event.length_frames) for event in sounds] == [
        (0, 8_000, 800),
        (30, 8_000, 830),
    ]
    assert sounds[1].encoded_audio_string == sample_file(run, 30, "0_kr.wav").read_bytes()


def test_only_a_validation_shows_what_it_left(run: Path) -> None:
    with MetricLog(run) as metrics:
        metrics.write(30, {"train/loss": 1.0})
    assert board(run).Tags()["images"] == []


def test_a_run_without_samples_logs_its_validations(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as metrics:
        metrics.write(3, {"val/loss": 1.0})
    assert board(tmp_path).Tags()["scalars"] == ["val/loss"]


def test_a_resume_takes_back_what_was_shown_after_it(run: Path) -> None:
    with MetricLog(run) as metrics:
        for step in (0, 30):
            metrics.write(step, {"val/loss": 1.0})
        metrics.take_back(10)
    assert [event.step for event in board(run).Images("gen/mel")] == [0]
