"""A run in a process of its own and in several."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tiny_spoken import Studio
from tts_kernel.recipes import melotts
from tts_kernel.runs import Run
from tts_kernel.training import launch


@pytest.mark.slow
def test_a_detached_run_in_two_processes_ends_as_one_does(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(studio.folder / "runs"))
    run = studio.run("shared")
    settings = replace(studio.settings(max_steps=2), processes=2, launch="detached", run_name="shared")
    outcome = launch.train(melotts, melotts.prepare(settings, run), run)
    assert (outcome.status, outcome.step) == ("step limit reached", 2)
    assert {path.name for path in run.checkpoints.glob("*_2.pth")} == {
        "G_2.pth",
        "D_2.pth",
        "DUR_2.pth",
        "optimizer_2.pth",
    }
    again = Run(run.folder)
    assert studio.train("shared", max_steps=3).step == 3, "one process goes on with it"
    assert [record["step"] for record in again.records() if "loss/g/total" in record] == [1, 2, 3]
