from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tts_kernel.recovery.journal import FILE, Journal, JournalError
from tts_kernel.runs import Run


@dataclass(frozen=True)
class Fact:
    path: Path
    value: float


def test_what_is_written_is_read_by_the_next_session(tmp_path: Path) -> None:
    journal = Journal(Run(tmp_path))
    journal.know(best=Fact(Path("a/b"), np.float64(0.5)), curve=(1, np.int64(2), float("nan")))
    journal.choose("phased", "panel", {"moves": ()})
    journal.begin("phase 1", run="x-phase1")
    journal.done("phase 1", outcome={"step": 50})

    again = Journal(Run(tmp_path))
    assert again.decided == "phased"
    assert again.content["best"] == {"path": "a/b", "value": 0.5}
    assert again.content["curve"] == [1, 2, None]  # NaN is no JSON
    assert again.state("phase 1") == {"state": "done", "run": "x-phase1", "outcome": {"step": 50}}
    assert again.state("phase 2") == {}
    assert [event["what"] for event in again.content["events"]] == [
        "phased chosen by panel",
        "phase 1 begun",
        "phase 1 done",
    ]


def test_another_choice_after_the_first_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(Run(tmp_path))
    journal.choose("phased", "parameters", {})
    journal.choose("phased", "panel", {})  # the same again is going on
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(JournalError, match=r"'phased' was chosen by parameters.*'restart' is asked"):
        journal.choose("restart", "panel", {})
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"format": 2, "steps": {}}), json.dumps({"format": 1})])
def test_a_damaged_journal_is_named_and_not_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(JournalError, match=FILE):
        Journal(Run(tmp_path))
    assert (tmp_path / FILE).read_text(encoding="utf-8") == text
