"""How a session ended, from its own words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

import pytest

from tts_kernel.runs import Run, RunError
from tts_kernel.training.launch import ending
from tts_kernel.training.outcome import Outcome, RunInterrupted, TrainingError

OUTCOME = Outcome("step limit reached", 7, 9, {"val/loss": 2.0}, {"val/loss": float("inf")}, 1.5)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def leave(run: Run, error: BaseException, rank: int = 0) -> None:
    with pytest.raises(type(error)), ending.kept(run, rank):
        raise error


def test_an_outcome_is_read_back_as_it_was(run: Run) -> None:
    assert ending.outcome(run) is None
    ending.keep(run, OUTCOME)
    assert ending.outcome(run) == OUTCOME


def test_a_stop_is_an_interrupt_for_the_follower_too(run: Run) -> None:
    leave(run, RunInterrupted("run a stopped at step 3"))
    assert ending.status(run) == "stopped"
    with pytest.raises(RunInterrupted, match="stopped at step 3"):
        ending.outcome(run)


def test_our_own_error_is_its_message_and_any_other_its_traceback(run: Run) -> None:
    leave(run, RunError("runs/x: cannot be written"))
    with pytest.raises(TrainingError) as raised:
        ending.outcome(run)
    assert str(raised.value) == "RunError: runs/x: cannot be written"
    ending.clear(run)
    leave(run, KeyError("missing"))
    with pytest.raises(TrainingError, match=r"(?s)^KeyError: Traceback .*in leave.*KeyError: 'missing'$"):
        ending.outcome(run)


def test_the_first_failure_leads_and_the_others_follow_in_one_line_each(run: Run) -> None:
    leave(run, RunError("/data/clip_9.npy: torn"), rank=1)
    leave(run, RuntimeError("Connection closed by peer"), rank=0)
    with pytest.raises(TrainingError) as raised:
        ending.outcome(run)
    assert str(raised.value).splitlines() == [
        "RunError: process 1: /data/clip_9.npy: torn",
        "process 0, then: RuntimeError: Connection closed by peer",
    ]
    ending.keep_failure(run, 2, "TrainingError", "ended by SIGKILL without a word", when=0.0)
    with pytest.raises(TrainingError, match=r"^process 2: ended by SIGKILL"):
        ending.outcome(run)
    assert ending.failed_ranks(run) == {0, 1, 2}


def test_what_fails_after_the_end_changes_nothing(run: Run) -> None:
    ending.keep(run, OUTCOME)
    leave(run, RuntimeError("while leaving"), rank=1)
    assert ending.outcome(run) == OUTCOME
    ending.clear(run)
    leave(run, RunInterrupted("stopped"))
    leave(run, RuntimeError("the partner has stopped"), rank=1)
    assert ending.status(run) == "stopped"


def test_an_end_in_success_does_not_hide_that_a_partner_failed(run: Run) -> None:
    leave(run, RuntimeError("lost"), rank=1)
    ending.keep(run, OUTCOME)
    assert ending.status(run) == "failed"


def test_nothing_of_an_earlier_end_is_left_for_the_next_session(run: Run) -> None:
    leave(run, RuntimeError("lost"), rank=3)
    (run.folder / "stop").touch()
    (run.folder / "metrics.jsonl").write_text(json.dumps({"step": 1}))
    ending.clear(run)
    assert [path.name for path in run.folder.iterdir()] == ["metrics.jsonl"]


def test_another_programs_error_does_not_pass_for_ours() -> None:
    def theirs() -> NoReturn:
        int("seven")

    with pytest.raises(ValueError, match="seven") as raised:
        theirs()
    assert ending.error_text(raised.value).startswith("Traceback")
