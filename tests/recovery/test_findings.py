from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.recovery.histories import STEPS, diverging, falling, save, write_run
from tts_kernel.recovery.diagnosis import diagnose
from tts_kernel.recovery.evidence import Finding


def found(folder: Path, name: str, **given: object) -> Finding | None:
    return diagnose(folder, given=given).finding(name)


def test_a_checkpoint_within_the_best_stretch_keeps_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"train/text_loss": diverging(3000)})
    save(folder / "checkpoints" / "step_02950.pth", 2950)
    kept = found(folder, "best kept")
    assert kept is not None
    assert kept.evidence["checkpoint"] == "step_02950.pth"
    assert found(folder, "best lost") is None


def test_the_best_is_lost_with_its_checkpoint_and_the_nearest_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"train/text_loss": diverging(3000)})
    for step in (600, 4000, 5000):
        save(folder / "checkpoints" / f"step_{step:05d}.pth", step)
    lost = found(folder, "best lost")
    assert lost is not None
    assert lost.evidence["nearest"] in (600, 4000)
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    lost = found(folder, "best lost")
    assert lost is not None
    assert "no checkpoint is left" in lost.says


def test_a_ruined_file_of_the_best_step_does_not_keep_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"train/text_loss": diverging(3000)})
    save(folder / "checkpoints" / "step_02950.pth", 2950, value=float("nan"))
    (folder / "checkpoints" / "step_02940.pth").touch()
    assert found(folder, "best lost") is not None


def test_a_spike_that_was_recovered_from_is_no_divergence(tmp_path: Path) -> None:
    values = falling()
    values[(STEPS > 3000) & (STEPS < 3300)] += 2.0
    folder = write_run(tmp_path, {"train/text_loss": values})
    spikes = found(folder, "spikes recovered")
    assert spikes is not None
    assert 2900 <= int(spikes.evidence["first"]) < int(spikes.evidence["last"]) <= 3500
    assert found(folder, "divergence") is None
    assert found(folder, "rate too high") is None


def test_a_divergence_has_its_interval(tmp_path: Path) -> None:
    divergence = found(write_run(tmp_path, {"train/text_loss": diverging(3000)}), "divergence")
    assert divergence is not None
    assert int(divergence.evidence["first"]) <= int(divergence.evidence["step"]) <= int(divergence.evidence["last"])
    assert abs(int(divergence.evidence["step"]) - 3000) < 100  # 2 % of the run


def test_a_plateau_tells_from_where(tmp_path: Path) -> None:
    values = np.where(STEPS < 2000, 3 - STEPS / 1000, 1.0) + 0.02 * np.random.default_rng(0).standard_normal(500)
    plateau = found(write_run(tmp_path, {"train/text_loss": values}), "plateau")
    assert plateau is not None
    assert abs(int(plateau.evidence["from"]) - 2000) < 300


def resumed(folder: Path, at: int, jump: float) -> Path:
    """A run that was resumed at a step, its level changed from step 2500 on."""
    write_run(folder, {"train/text_loss": falling() + np.where(STEPS > 2500, jump, 0)})
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    lines.insert(at // 10, json.dumps({"resumed_at": at, "time": 1.7e9}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_a_jump_where_the_run_was_resumed_is_an_artefact(tmp_path: Path) -> None:
    jump = found(resumed(tmp_path, 2500, -0.3), "resume jumps")
    assert jump is not None
    assert abs(int(jump.evidence["step"]) - 2500) <= 50
    assert float(jump.evidence["height"]) < -0.2


def test_a_jump_elsewhere_is_none_of_resuming(tmp_path: Path) -> None:
    folder = resumed(tmp_path, 1000, -0.3)
    assert found(folder, "resume jumps") is None
    assert found(folder, "data jumps") is not None


def test_a_jump_where_an_epoch_begins_says_so(tmp_path: Path) -> None:
    folder = resumed(tmp_path, 1000, -0.3)
    jump = found(folder, "data jumps", rows=10_000, batch_size=4)
    assert jump is not None
    assert "where an epoch begins" in jump.says
