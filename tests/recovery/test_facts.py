from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.recovery.histories import STEPS, falling, save, write_run
from tts_kernel.recovery.facts import RunFacts, checkpoint_folder, read_facts, run_folder
from tts_kernel.recovery.history import read_history

SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-4,
    "batch_size": 8,
    "grad_accumulation": 4,
    "warmup_steps": 100,
    "grad_clip": 0.5,
}
SETTINGS |= {"optimizer": "adamw", "epochs": 2, "stage": 2, "mel_weight": 0.8}


def facts_of(folder: Path, **given: object) -> RunFacts:
    return read_facts(read_history(folder), given)


def test_a_run_of_ours_is_known_by_its_settings_and_checkpoints(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"train/text_loss": falling()}, **SETTINGS)
    identity = {"manifests": {"train": "a.jsonl", "rows": 4000, "used": 3200}, "speakers": {"a": 0, "b": 1}}
    save(
        folder / "checkpoints" / "latest_full.pth", 5000, identity={**identity, "horizon": 200}, optimizer_type="adamw"
    )
    facts = facts_of(folder)
    assert (facts.learning_rate, facts.batch_size, facts.warmup_steps, facts.grad_clip) == (1e-4, 32, 100, 0.5)
    assert (facts.rows, facts.steps_per_epoch, facts.horizon, facts.speakers) == (3200, 100.0, 200, 2)
    assert (facts.optimizer, facts.family) == ("adamw", "indextts2")
    assert facts.epochs(5000) == 50.0
    assert facts.sources["learning_rate"] == "settings.json"
    assert facts.sources["rows"] == "latest_full.pth"
    assert not facts.problems


def test_what_the_user_gives_counts_before_what_files_say(tmp_path: Path) -> None:
    facts = facts_of(write_run(tmp_path, {"train/text_loss": falling()}, **SETTINGS), learning_rate=3e-5, rows=640)
    assert (facts.learning_rate, facts.sources["learning_rate"]) == (3e-5, "given")
    assert (facts.steps_per_epoch, facts.horizon) == (20.0, 40)


def test_the_guides_checkpoint_and_config_say_rows_and_rate(tmp_path: Path) -> None:
    """Its manifests are a list of files with their counts, its YAML has sections and rates that YAML takes for text."""
    (tmp_path / "train.log").write_text("[Train] epoch=1 step=100 text_loss=2.5\n", encoding="utf-8")
    (tmp_path / "config.yaml").write_text("train:\n  learning_rate: 2e-5\n  batch_size: 4\n", encoding="utf-8")
    manifests = {"train": [{"path": "a", "count": 60, "languages": ["ko"]}, {"path": "b", "count": 40}], "val": []}
    save(tmp_path / "step_100.pth", 100, manifests=manifests, optimizer_type="prodigy")
    facts = facts_of(tmp_path)
    assert (facts.rows, facts.optimizer, facts.batch_size, facts.steps_per_epoch) == (100, "prodigy", 4, 25.0)
    assert (facts.learning_rate, facts.sources["learning_rate"]) == (1e-4, "step_100.pth")


def test_speed_is_measured_with_a_range(tmp_path: Path) -> None:
    speeds = np.tile([1.0, 2.0, 2.0, 2.0, 4.0], 100)
    pace = facts_of(write_run(tmp_path, {"train/steps_per_second": speeds})).seconds_per_step
    assert pace is not None
    assert (pace.value, pace.low, pace.high) == (0.5, 0.25, 1.0)


def test_without_a_logged_speed_the_times_tell_it_and_pauses_do_not_count(tmp_path: Path) -> None:
    rows = [{"step": int(step), "time": 1.7e9 + 0.5 * step + (1e6 if step > 900 else 0), "a": 1.0} for step in STEPS]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    facts = facts_of(tmp_path)
    assert facts.seconds_per_step is not None
    np.testing.assert_allclose(
        [facts.seconds_per_step.value, facts.seconds_per_step.low, facts.seconds_per_step.high], 0.5, atol=1e-6
    )
    assert facts.sources["seconds_per_step"] == "times of the log"


@pytest.mark.parametrize(
    "line", ["", "[Train] epoch=1 step=100 text_loss=2.5\n", "[Train] step=1 a=1\n[Train] step=2 a=1\n"]
)
def test_an_unknown_throughput_is_none(tmp_path: Path, line: str) -> None:
    (tmp_path / "train.log").write_text(line, encoding="utf-8")
    facts = facts_of(tmp_path)
    assert facts == RunFacts(problems=facts.problems)


def test_files_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"train/text_loss": falling()})
    (folder / "settings.json").write_text('{"learning_rate": 1e', encoding="utf-8")
    (folder / "config.yaml").write_text("a: !!python/object/apply:os.getcwd []", encoding="utf-8")
    save(folder / "latest.pth", 3, manifests={"train": [{"path": "a"}]})
    facts = facts_of(folder)
    assert facts.learning_rate is None
    for name in ("settings.json", "config.yaml", "latest.pth"):
        assert any(name in problem for problem in facts.problems), facts.problems


def test_pairs_and_updates_per_second_tell_the_batch(tmp_path: Path) -> None:
    lines = [f"[Train] epoch=1 step={step} text_loss=2.5 | 120.0steps/min 8.1samples/s" for step in (100, 200, 300)]
    (tmp_path / "train.log").write_text("\n".join(lines) + "\n", encoding="utf-8")
    facts = facts_of(tmp_path)
    assert (facts.batch_size, facts.sources["batch_size"]) == (4, "speed in the log")


def test_the_run_of_a_file_is_the_folder_that_it_lies_in(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "train.log").touch()
    assert run_folder(tmp_path / "tensorboard") == run_folder(tmp_path / "logs" / "train.log") == tmp_path
    assert checkpoint_folder(tmp_path) == tmp_path
    (tmp_path / "checkpoints").mkdir()
    assert checkpoint_folder(tmp_path / "logs" / "train.log") == tmp_path / "checkpoints"
