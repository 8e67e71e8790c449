from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tts_kernel.recovery import guide_log
from tts_kernel.recovery.history import History, read_history

TAIL = (
    "lr=2.00e-05 | 120.0steps/min 8.0samples/s 0.50s/step ETA:1.2h | grad_norm=1.25 (clipped 0.50) GPU=9.1GB data=1.5%"
)


def train(step: int, loss: float, epoch: int = 1) -> str:
    return f"[Train] epoch={epoch} step={step} text_loss={loss:.4f} mel_loss={loss + 1:.4f} mel_top1=0.0789 {TAIL}"


def validate(step: int, loss: float) -> str:
    return f"[Val] epoch=1 step={step} text_loss={loss:.4f} mel_loss={loss + 1:.4f} mel_top1=0.0712 | val_time=0.52min"


def read(tmp_path: Path, *lines: str) -> History:
    (tmp_path / "train.log").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return read_history(tmp_path)


def points(history: History, metric: str) -> list[tuple[int, float]]:
    return list(zip(history[metric].steps.tolist(), history[metric].values.tolist(), strict=True))


def test_every_value_of_a_line_gets_its_house_name(tmp_path: Path) -> None:
    history = read(tmp_path, "[Info] Loading", train(100, 2.5), validate(100, 2.75), train(200, 2.25))
    assert points(history, "train/text_loss") == [(100, 2.5), (200, 2.25)]
    assert points(history, "train/mel_loss") == [(100, 3.5), (200, 3.25)]
    assert points(history, "val/text_loss") == [(100, 2.75)]
    assert points(history, "train/lr") == [(100, 2e-5), (200, 2e-5)]
    assert points(history, "train/grad_norm") == [(100, 1.25), (200, 1.25)]
    assert points(history, "train/steps_per_second") == [(100, 2.0), (200, 2.0)]
    assert points(history, "train/pairs_per_second") == [(100, 8.0), (200, 8.0)]
    assert not any("epoch" in name or "step=" in name or "GPU" in name for name in history.metrics)
    assert not history.problems


@pytest.mark.parametrize("block", [1, 3, 50_000])
def test_lines_that_are_not_alike_are_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(guide_log, "_BLOCK", block)
    short = "[Train] epoch=1 step=300 text_loss=nan mel_loss=4.5 speaker_acc=0.25"
    broken = "[Train] epoch=1 step= text_loss=1.0"
    history = read(tmp_path, train(100, 2.5), train(200, 2.25), short, broken, train(400, 2.0))
    np.testing.assert_equal(points(history, "train/text_loss"), [(100, 2.5), (200, 2.25), (300, np.nan), (400, 2.0)])
    assert points(history, "train/speaker_acc") == [(300, 0.25)]
    assert [problem.split(": ")[0].rpartition(":")[2] for problem in history.problems] == ["4"]


def test_a_resume_takes_back_what_it_repeats(tmp_path: Path) -> None:
    before = [train(step, 2.0) for step in range(100, 1000, 100)]
    resumed = "[Info] Resumed from output/latest.pth at epoch 0, step 550."
    history = read(tmp_path, *before, validate(900, 3.0), resumed, *(train(step, 1.0) for step in (600, 700)))
    assert points(history, "train/text_loss") == [(step, 2.0) for step in range(100, 600, 100)] + [
        (600, 1.0),
        (700, 1.0),
    ]
    assert len(history["val/text_loss"]) == 0
    assert history.resumes == (550,)


def test_a_restart_that_says_nothing_is_seen_by_its_steps(tmp_path: Path) -> None:
    """Steps that go back; the first line of the new session counts."""
    history = read(
        tmp_path, *(train(step, 2.0) for step in (100, 200, 300)), *(train(step, 1.0) for step in (200, 300))
    )
    assert points(history, "train/text_loss") == [(100, 2.0), (200, 1.0), (300, 1.0)]
    assert history.resumes == (199,)


def test_lines_of_another_logger_have_their_times(tmp_path: Path) -> None:
    stamped = [f"2025-01-31 09:00:{10 * number:02d},500 INFO {train(100 * number, 2.0)}" for number in range(1, 4)]
    assert np.diff(read(tmp_path, *stamped)["train/text_loss"].times).tolist() == [10.0, 10.0]
