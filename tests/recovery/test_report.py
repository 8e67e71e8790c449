"""What the plain text must not leave out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.recovery.histories import diverging, save, write_run
from tts_kernel.recovery import report
from tts_kernel.recovery.choice import Wishes, choose
from tts_kernel.recovery.diagnosis import Diagnosis, diagnose
from tts_kernel.recovery.options import make_options


@pytest.fixture
def diagnosis(tmp_path: Path) -> Diagnosis:
    folder = write_run(tmp_path / "run", {"train/text_loss": diverging(3000)})
    save(folder / "checkpoints" / "step_02950.pth", 2950)
    save(folder / "checkpoints" / "step_05000.pth", 5000)
    save(folder / "checkpoints" / "odd.pth", None, full=False)
    (folder / "checkpoints" / "step_04000.pth").write_bytes(b"torn")
    return diagnose(folder, given={"batch_size": 4, "learning_rate": 1e-3, "rows": 4000})


def ways_out(diagnosis: Diagnosis, no_restart: str = "", **wishes: Any) -> str:
    options = make_options(diagnosis, no_restart=no_restart)
    return report.ways_out(choose(options, Wishes(**wishes), 3.0, 1.0))


def test_every_checkpoint_has_a_line_and_what_is_not_known_a_question_mark(diagnosis: Diagnosis) -> None:
    head, *lines = report.survivors(diagnosis).splitlines()
    assert len(lines) == len(diagnosis.survivors) == 4
    assert head.split()[:4] == ["step", "file", "state", "loss"]
    rows = {line.split()[1]: line.split() for line in lines}
    assert rows["odd.pth"][0] == rows["odd.pth"][3] == "?"
    assert rows["step_02950.pth"][0] == "2,950"
    assert (rows["step_02950.pth"][2], rows["step_05000.pth"][2]) == ("healthy", "ruined")
    assert rows["step_05000.pth"][4].startswith("+")
    assert rows["step_04000.pth"][2] == "unreadable"


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    found = diagnose(write_run(tmp_path, {"train/text_loss": diverging()}))
    assert report.survivors(found) == "no checkpoint is left"


def test_the_worst_finding_comes_first_and_each_has_its_sentence(diagnosis: Diagnosis) -> None:
    lines = report.findings(diagnosis).splitlines()
    worst = [line.split()[0] for line in lines]
    assert worst == sorted(worst, key=("bad", "warning", "note", "good").index)
    assert len(set(worst)) > 1
    assert len(lines) == len(diagnosis.findings)
    for one in diagnosis.findings:
        assert any(line.startswith(one.severity) and one.says in line for line in lines), one.name
    assert report.findings(replace(diagnosis, findings=())) == "nothing found"


def test_ways_out_come_by_their_score_with_chance_hours_loss_and_each_leg(diagnosis: Diagnosis) -> None:
    text = ways_out(diagnosis)
    scores = [float(line[:4]) for line in text.splitlines() if not line.startswith(" ")]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    for part in (
        "chance ",
        "h expected",
        "if nothing goes wrong",
        "final loss ",
        "phase 1: ",
        "phase 2: ",
        "batches x 2",
    ):
        assert part in text


def test_a_way_that_cannot_be_gone_has_its_reason_and_no_promises(diagnosis: Diagnosis) -> None:
    text = ways_out(diagnosis, no_restart="the base is gone")
    (where,) = (number for number, line in enumerate(text.splitlines()) if "the base is gone" in line)
    assert text.splitlines()[where] == "      not possible: the base is gone"
    assert text.splitlines()[where + 1 :] == [], "it is the last, and nothing is said of its chance"


def test_hours_beyond_those_at_hand_and_unknown_ones_are_said(diagnosis: Diagnosis, tmp_path: Path) -> None:
    assert "more than the hours at hand" not in ways_out(diagnosis)
    assert "more than the hours at hand" in ways_out(diagnosis, hours=1e-6)
    rows = "".join(f"{step},{value}\n" for step, value in enumerate(np.linspace(3, 1, 100)))
    (tmp_path / "loss.csv").write_text("step,loss\n" + rows, encoding="utf-8")
    assert "time unknown (no throughput was logged)" in ways_out(diagnose(tmp_path / "loss.csv"))
