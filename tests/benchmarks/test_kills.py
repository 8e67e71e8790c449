"""Sessions that save are killed over and over. The long version is `python -m benchmarks.training.kills`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.data.measure import ROOT
from benchmarks.training.kills import LostError, Seen, check, check_metrics, check_tidy
from tts_kernel.runs import Run
from tts_kernel.training.checkpoints import BEST, FORMAT, CheckpointFolder


def kill(what: str, kills: int) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "benchmarks.training.kills", "--run", what, "--kills", str(kills)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_session_killed_before_any_of_its_file_operations_loses_nothing() -> None:
    kills = int(kill("operations", 0).split()[0])
    assert kills > 50, "the operations of three saves were not found"


@pytest.mark.slow
def test_a_folder_killed_at_random_moments_loses_nothing() -> None:
    assert kill("folder", 50).startswith("50 kills")


@pytest.mark.slow
def test_training_killed_at_random_moments_loses_nothing() -> None:
    assert kill("trainer", 50).startswith("50 kills")


# The checks can fail


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """With one save of each kind, all losses 2."""
    run = Run(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    weights = {"model": {"a": torch.ones(100)}, "step": 1, "format": FORMAT}
    folder = CheckpointFolder(run.checkpoints, keep_steps=1)
    folder.save_latest(weights, weights, 1)
    folder.save_best(weights, dict.fromkeys(BEST.values(), 2.0), 1)
    check_tidy(run)
    return run


def seen(run: Run, full: int, best: float) -> Seen:
    return Seen(run.folder / "seen", full, dict.fromkeys(BEST.values(), best))


def test_what_was_never_lost_passes(run: Run) -> None:
    check(run, seen(run, full=1, best=2.0))


def test_a_lost_save_is_noticed(run: Run) -> None:
    with pytest.raises(LostError, match="save 2 was written, and the newest to resume from is 1"):
        check(run, seen(run, full=2, best=2.0))
    for path in run.checkpoints.glob("*.pth"):
        path.unlink()
    with pytest.raises(LostError, match="nothing to resume from"):
        check(run, seen(run, full=1, best=2.0))


def test_a_lost_best_is_noticed(run: Run) -> None:
    with pytest.raises(LostError, match=r"val/loss 1\.5 was written, and the best left is 2\.0"):
        check(run, seen(run, full=1, best=1.5))


@pytest.mark.parametrize("steps", [[1, 2, 2, 3], [1, 3], [2]])
def test_a_step_trained_twice_or_never_is_noticed(run: Run, steps: list[int]) -> None:
    lines = [f'{{"step": {step}, "train/text_loss": 1.0}}\n' for step in steps]
    (run.folder / "metrics.jsonl").write_text("".join(lines))
    with pytest.raises(LostError, match=r"metrics: step \d follows"):
        check_metrics(run)
    resumed = [lines[0], '{"resumed_at": 0, "time": 0}\n', '{"step": 1, "train/text_loss": 1.0}\n']
    (run.folder / "metrics.jsonl").write_text("".join(resumed))
    check_metrics(run)


def test_half_a_file_left_is_noticed(run: Run) -> None:
    (run.checkpoints / ".latest.pth.part").write_bytes(b"")
    with pytest.raises(LostError, match=r"left \['\.latest\.pth\.part'\]"):
        check_tidy(run)
