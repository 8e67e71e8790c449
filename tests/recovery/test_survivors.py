from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.recovery.histories import STEPS, diverging, falling, save
from tts_kernel.recovery.course import Course, read_course
from tts_kernel.recovery.history import Series
from tts_kernel.recovery.survivors import Survivor, find_survivors
from tts_kernel.training.checkpoints.index import stamp


def course(values: np.ndarray) -> Course:
    return read_course(Series(STEPS, values, np.full(len(values), np.nan)))


def states(found: tuple[Survivor, ...]) -> dict[str, str]:
    return {one.path.name: one.state for one in found}


@pytest.fixture(scope="module")
def diverged() -> Course:
    found = course(diverging(begin=3000))
    assert found.onset is not None
    assert 2700 < found.onset.step < 3300
    return found


def test_a_checkpoint_is_as_good_as_the_loss_at_its_step(tmp_path: Path, diverged: Course) -> None:
    for step in (500, 2900, 3600, 5000):
        save(tmp_path / f"step_{step:05d}.pth", step)
    found = find_survivors(tmp_path, diverged)
    assert [one.step for one in found] == [500, 2900, 3600, 5000]
    assert [one.state for one in found] == ["healthy", "healthy", "rising", "ruined"]
    assert all(one.resumable and one.kind == "step" and one.size > 0 for one in found)
    best = diverged.best
    assert best is not None
    for one in found:
        assert one.loss == diverged.at(one.step or 0)[0]
        assert one.above_best == pytest.approx(one.loss - best.value)


def test_all_of_a_healthy_run_are_healthy_but_those_of_a_spike(tmp_path: Path) -> None:
    values = falling()
    values[(STEPS > 3500) & (STEPS < 3700)] += 1.5
    save(tmp_path / "step_03600.pth", 3600)
    save(tmp_path / "step_05000.pth", 5000)
    save(tmp_path / "latest.pth", 5000, written=stamp(3, healthy=False))
    found = find_survivors(tmp_path, course(values))
    assert states(found) == {"step_03600.pth": "rising", "step_05000.pth": "healthy", "latest.pth": "rising"}
    assert "spike" in found[0].why


def test_what_a_file_says_of_its_own_writing_counts(tmp_path: Path) -> None:
    save(tmp_path / "step_00800.pth", 800, written=stamp(3, healthy=False))
    (found,) = find_survivors(tmp_path, course(falling()))
    assert (found.state, "says itself" in found.why) == ("rising", True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_ruined_whatever_the_loss(tmp_path: Path, value: float) -> None:
    save(tmp_path / "step_04000.pth", 4000, value=value)
    (found,) = find_survivors(tmp_path, course(falling()))
    assert (found.state, "not finite" in found.why) == ("ruined", True)


def test_a_value_in_the_middle_of_a_large_tensor_is_seen(tmp_path: Path) -> None:
    weights = torch.zeros(300, 300)
    weights[150, 150] = torch.nan
    torch.save({"model": {"a": weights}, "step": 1}, tmp_path / "step_1.pth")
    assert find_survivors(tmp_path, None)[0].state == "ruined"


def test_after_the_loss_was_lost_everything_is_ruined(tmp_path: Path) -> None:
    values = falling()
    values[STEPS > 4000] = np.nan
    save(tmp_path / "step_03900.pth", 3900)
    save(tmp_path / "step_04500.pth", 4500)
    assert states(find_survivors(tmp_path, course(values))) == {"step_03900.pth": "healthy", "step_04500.pth": "ruined"}


def test_bad_files_are_unreadable_each_with_its_reason(tmp_path: Path, diverged: Course) -> None:
    (tmp_path / "step_01000.pth").mkdir()
    (tmp_path / "step_02000.pth").touch()
    whole = save(tmp_path / "step_03000.pth", 3000).read_bytes()
    (tmp_path / "step_03000.pth").write_bytes(whole[: len(whole) // 2])
    torch.save({"step": 4000, "model": {}}, tmp_path / "step_04000.pth")
    found = find_survivors(tmp_path, diverged)
    assert [(one.step, one.state, one.resumable) for one in found] == [
        (step, "unreadable", False) for step in (1000, 2000, 3000, 4000)
    ]
    for one, part in zip(found, ("is a folder", "0 bytes", "truncated or damaged", "no tensors"), strict=True):
        assert part in one.why


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"model": Trap(), "step": 3}, tmp_path / "step_3.pth")
    (tmp_path / "latest.pth").write_bytes(pickle.dumps({"model": Trap()}, protocol=2))
    assert set(states(find_survivors(tmp_path, None)).values()) == {"unreadable"}
    assert not (tmp_path / "sprung").exists()


def test_the_public_starting_point_is_told_from_a_run_s_checkpoints(tmp_path: Path, diverged: Course) -> None:
    names = ("text_embedding.weight", "mel_embedding.weight", "mel_head.weight")
    torch.save({name: torch.zeros(2, 2) for name in names}, tmp_path / "gpt.pth")
    save(tmp_path / "model_step2900.pth", None, full=False)
    found = {one.path.name: one for one in find_survivors(tmp_path, diverged)}
    assert (found["gpt.pth"].kind, found["gpt.pth"].step) == ("base", None)
    assert (found["model_step2900.pth"].kind, found["model_step2900.pth"].state) == ("step", "healthy")


def test_cosyvoices_checkpoint_has_its_step_beside_it(tmp_path: Path, diverged: Course) -> None:
    torch.save({"llm.weight": torch.zeros(2)}, tmp_path / "epoch_3_whole.pt")
    (tmp_path / "epoch_3_whole.yaml").write_text("epoch: 3\nlr: 1.0e-05\nstep: 2900\n", encoding="utf-8")
    (found,) = find_survivors(tmp_path, diverged)
    assert (found.step, found.state, found.resumable) == (2900, "healthy", False)


def test_what_cannot_be_judged_is_unknown(tmp_path: Path, diverged: Course) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
    save(tmp_path / "step_90000.pth", 90_000)
    save(tmp_path / "step_01000.pth", 1000)
    assert states(find_survivors(tmp_path, diverged)) == {
        "weights.pt": "unknown",
        "step_01000.pth": "healthy",
        "step_90000.pth": "unknown",
    }
    assert set(states(find_survivors(tmp_path, None)).values()) == {"unknown"}


def test_other_files_and_a_missing_folder_are_none(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps([]), encoding="utf-8")
    (tmp_path / ".latest.pth.part").touch()
    assert find_survivors(tmp_path, None) == ()
    assert find_survivors(tmp_path / "nowhere", None) == ()
