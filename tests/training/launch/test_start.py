"""Starting, finding, following and stopping what trains a run."""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import torch
import yaml
from jupyter_client.manager import KernelManager

from tests.conftest import CorpusMaker
from tests.tiny_voice import LATENTS, Bench
from tests.training.processes import Place, place, until
from tts_kernel.recipes import indextts2
from tts_kernel.runs import Run, RunError
from tts_kernel.training import launch
from tts_kernel.training.launch import ending
from tts_kernel.training.launch.hold import PROCESS, Holder, held
from tts_kernel.training.launch.session import LOG, SESSION, SETTINGS, LogTail, Session, find
from tts_kernel.training.outcome import RunInterrupted, TrainingError

__all__ = ["place"]

LONG = {"steps": 100_000, "pause": 0.02}  # until it is stopped


@pytest.fixture
def recipe(place: Place) -> Any:
    return importlib.import_module("tts_kernel.recipes.stand_in")


@pytest.fixture
def package_log() -> Iterator[logging.Logger]:
    """The package's log as it was, whatever handlers `Run.start_logging` has given it meanwhile."""
    package = logging.getLogger("tts_kernel")
    before = package.handlers, package.level, package.propagate
    package.handlers = []
    yield package
    for handler in package.handlers:
        handler.close()
    package.handlers, package.propagate = before[0], before[2]
    package.setLevel(before[1])


def prepared(recipe: Any, **values: Any) -> Any:
    return recipe.Prepared(recipe.Settings(run_name="run", **{"launch": "detached", **values}))


def steps(run: Run) -> int:
    path = run.folder / "metrics.jsonl"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def test_one_inline_process_is_this_one_and_what_was_left_does_not_stop_it(place: Place, recipe: Any) -> None:
    run, seen = place.run(), []
    (run.folder / "stop").touch()
    outcome = launch.train(recipe, prepared(recipe, launch="inline"), run, lambda run: seen.append(steps(run)))
    assert (outcome.status, outcome.step) == ("finished", 5)
    assert seen[-1] == 5
    assert not (run.folder / SESSION).exists()


def test_what_on_update_raises_is_not_lost(place: Place, recipe: Any) -> None:
    def fail(run: Run) -> None:
        raise LookupError("no such panel")

    with pytest.raises(LookupError, match="no such panel"):
        launch.train(recipe, prepared(recipe, launch="inline"), place.run(), fail)


def test_more_processes_than_gpus_are_refused_before_anything_starts(
    place: Place, recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    run = place.run()
    with pytest.raises(ValueError, match=r"processes is 3.*finds 2 GPUs"):
        launch.train(recipe, prepared(recipe, processes=3, device="auto"), run)
    assert not list(run.folder.glob("*.*"))


@pytest.mark.slow
def test_a_session_is_followed_to_its_end(
    place: Place, recipe: Any, package_log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    run, seen = place.run(), []
    run.start_logging()
    (run.folder / "stop").touch()  # left from earlier
    outcome = launch.train(recipe, prepared(recipe, steps=20), run, lambda run: seen.append(steps(run)))
    assert (outcome.status, outcome.step, outcome.val_after) == ("finished", 20, {"val/loss": 0.5})
    assert seen[-1] == 20
    printed = capsys.readouterr().out
    for shown in ("run run: process", "step 1 of 20", "step 20 of 20", "finished: step 20"):
        assert printed.count(shown) == 1, printed
    kept = (run.folder / "run.log").read_text(encoding="utf-8")
    assert kept.count("step 20 of 20") == 1  # not by the follower once more
    assert yaml.safe_load((run.folder / SETTINGS).read_text(encoding="utf-8"))["run_name"] == "run"
    assert find(run) is None
    assert launch.train(recipe, prepared(recipe, steps=20), run).step == 20  # and once more, from its end


@pytest.mark.slow
def test_a_session_fails_with_its_own_words_or_the_end_of_its_output(place: Place, recipe: Any) -> None:
    run = place.run()
    with pytest.raises(TrainingError, match=r"^the loss of clip_17 is not finite; look at the clip$"):
        launch.train(recipe, prepared(recipe, wrong="error"), run)
    with pytest.raises(TrainingError, match=r"(?s)killed by SIGKILL.*step 2 of 5") as died:
        launch.train(recipe, prepared(recipe, wrong="killed"), run)
    assert "memory runs out" in str(died.value)
    assert str(run.folder / LOG) in str(died.value)


@pytest.mark.slow
def test_a_session_goes_on_when_its_follower_is_interrupted_is_found_again_and_stops_on_request(
    place: Place, recipe: Any, caplog: pytest.LogCaptureFixture, package_log: logging.Logger
) -> None:
    def interrupt(run: Run) -> None:
        if steps(run):
            raise KeyboardInterrupt

    package_log.propagate = True
    run, work = place.run(), prepared(recipe, **LONG)
    with pytest.raises(RunInterrupted, match=r"goes on in process \d+.*run_name run.*touch .*stop") as left:
        launch.train(recipe, work, run, interrupt)
    assert str(run.folder / LOG) in str(left.value)
    session = find(run)
    assert session is not None
    with pytest.raises(RunError, match=f"process {session.pid} on host"):
        launch.start(run, "stand_in", work.asked)
    at = steps(run)
    until(lambda: steps(run) > at + 3, "a further step")

    asked = []

    def stop(run: Run) -> None:
        if not asked:
            asked.append(session.stop())

    with pytest.raises(RunInterrupted, match=r"stopped by stop file .* at step \d+"):
        launch.train(recipe, prepared(recipe, **{**LONG, "pause": 0.5}), run, stop)
    assert "pause: 0.02 there, 0.5 asked" in caplog.text
    assert (run.checkpoints / "step.txt").exists()
    assert not (run.folder / "stop").exists()
    assert not session.alive()
    assert ending.status(run) == "stopped"


@pytest.mark.slow
def test_a_stop_is_obeyed_while_the_data_are_prepared(place: Place, recipe: Any) -> None:
    run = place.run()
    session = launch.start(run, "stand_in", prepared(recipe, prepare_for=600.0).asked)
    until((run.folder / "prepared.txt").exists, "the beginning of its preparation")
    session.stop()
    with pytest.raises(RunInterrupted, match=r"stop file .* while there was nothing to save"):
        session.follow()
    assert not (run.folder / "stop").exists()


@pytest.mark.slow
def test_a_run_that_another_process_trains_is_refused_and_left_alone(place: Place, recipe: Any) -> None:
    run = place.run()
    with held(run):
        (run.folder / ending.OUTCOME).write_text("{}")
        for how in ("inline", "detached"):
            with pytest.raises(RunError, match=f"run is in use: process {os.getpid()} on host"):
                launch.train(recipe, prepared(recipe, launch=how), run)
        assert (run.folder / ending.OUTCOME).exists()
        assert not (run.folder / SETTINGS).exists()


def test_a_session_whose_number_another_process_has_is_over(place: Place) -> None:
    run = place.run()
    Session(run, Holder.of(os.getpid(), ["python", "-m", "tts_kernel.train", "x.yaml"])).write()
    assert find(run) is None


def test_a_session_on_another_machine_lives_while_the_run_is_in_use(place: Place) -> None:
    run = place.run()
    session = Session(run, Holder(os.getpid(), "elsewhere", 0.0, []))
    session.write()
    assert find(run) is None
    with held(run):
        assert find(run) == session


def test_a_follower_shows_whole_lines_from_the_last_few_on(place: Place) -> None:
    run = place.run()
    stamp = "2026-11-20 12:00:00,123"
    file = run.folder / "run.log"
    old = f"{stamp} INFO {'x' * 40}\n" * 100
    file.write_text(f"{old}{stamp} WARNING two\nlines\n{stamp} INFO half", encoding="utf-8")
    tail = LogTail(run, 0)
    *before, two, lines = tail.new()
    assert 5 < len(before) < 40
    assert set(before) == {(logging.INFO, "x" * 40)}
    assert (two, lines) == ((logging.WARNING, "two"), (logging.WARNING, "lines"))
    assert tail.new() == []
    with file.open("a", encoding="utf-8") as more:
        more.write(" and half\n")
    assert tail.new() == [(logging.INFO, "half and half")]


KERNEL_CELL = """
from tts_kernel.recipes import indextts2 as recipe
from tts_kernel.runs import open_run
from tts_kernel.settings import read_settings
from tts_kernel.training import launch
settings = read_settings(recipe.Settings, {values!r})
run = open_run(settings, settings.run_name, prefix="indextts2")
run.start_logging()
launch.train(recipe, recipe.prepare(settings, run), run)
"""


@pytest.mark.slow
def test_detached_training_outlives_a_killed_kernel_and_is_followed_from_elsewhere(
    place: Place, make_tiny_corpus: CorpusMaker
) -> None:
    bench = Bench(place.folder, make_tiny_corpus(latents=LATENTS))
    asked = {"data": str(bench.data), "base_checkpoint": str(bench.base), "speaker_min_clips": 1, "batch_size": 5}
    asked |= {"grad_accumulation": 2, "warmup_steps": 0, "log_every": 1, "keep_checkpoints": 0, "num_workers": 2}
    asked |= {"device": "cpu", "launch": "detached", "run_name": "run", "epochs": 60, "aim": False}
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(place.folder))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        client.execute(textwrap.dedent(KERNEL_CELL).format(values=asked))
        run = place.run()
        until(lambda: steps(run) > 2, "the third line of metrics")
        kernel = manager.provisioner.pid
        os.kill(kernel, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == "zombie", "the kernel's end")
        session = find(run)
        assert session is not None, "the training has ended with its kernel, or too early for this test"
        at = steps(run)
        until(lambda: steps(run) > at, "a step after the kernel's end")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert json.loads((run.folder / PROCESS).read_text(encoding="utf-8"))["pid"] == session.pid
    outcome = session.follow(poll=0.1)
    assert (outcome.status, outcome.step) == ("finished", 180)
    assert run.last("val/loss") == pytest.approx(outcome.val_after["val/loss"])
    assert not (run.folder / PROCESS).exists()


# Several processes of one run


@pytest.mark.slow
def test_several_inline_processes_stop_with_a_checkpoint_when_their_follower_is_interrupted(
    place: Place, recipe: Any
) -> None:
    interrupted = []

    def interrupt(run: Run) -> None:
        if steps(run) and not interrupted:
            interrupted.append(steps(run))
            raise KeyboardInterrupt

    run = place.run()
    with pytest.raises(RunInterrupted, match=r"run stopped by .* at step \d+"):
        launch.train(recipe, prepared(recipe, launch="inline", processes=2, **LONG), run, interrupt)
    assert (run.checkpoints / "step.txt").exists()
    before, *others = (run.folder / "prepared.txt").read_text(encoding="utf-8").splitlines()
    assert before == "1 -", "the first process prepares before the others, and knows of none"
    assert others == ["2 1"]


@pytest.mark.slow
def test_a_failed_process_ends_a_stuck_one_and_its_error_is_the_sessions(place: Place, recipe: Any) -> None:
    run = place.run()
    with pytest.raises(TrainingError, match=r"^process 1: the loss of clip_17 is not finite"):
        launch.train(recipe, prepared(recipe, processes=2, wrong="error", wrong_rank=1, others="stuck"), run)
    with pytest.raises(TrainingError, match=r"^process 1: ended by SIGKILL without a word; memory has run out"):
        launch.train(recipe, prepared(recipe, processes=2, wrong="killed", wrong_rank=1), run)
    assert find(run) is None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_supervisor_stops_all_with_a_checkpoint(
    place: Place, recipe: Any, number: signal.Signals
) -> None:
    run = place.run()
    session = launch.start(run, "stand_in", prepared(recipe, processes=2, **LONG).asked)
    until(lambda: steps(run) > 2, "the third step")
    trainer = json.loads((run.folder / PROCESS).read_text(encoding="utf-8"))["pid"]
    assert trainer != session.pid
    os.kill(session.pid, number)
    until((run.checkpoints / "step.txt").exists, "the checkpoint")
    until(lambda: not psutil.pid_exists(trainer), "the end of the training process")
    assert ending.status(run) == "stopped"
    with pytest.raises(RunInterrupted):
        session.follow()
    assert session.child is not None
    assert session.child.returncode == (1 if number is signal.SIGTERM else -signal.SIGKILL)


@pytest.mark.slow
def test_processes_whose_kernel_has_gone_stop_with_a_checkpoint(place: Place) -> None:
    code = """
        import sys
        from pathlib import Path
        from tts_kernel.recipes import stand_in as recipe
        from tts_kernel.runs import Run
        from tts_kernel.training import launch
        settings = recipe.Settings(run_name="run", processes=2, steps=100_000)
        launch.start(Run(Path(sys.argv[1])), "stand_in", settings)
        sys.stdin.read()
    """
    run = place.run()
    starter = psutil.Popen([sys.executable, "-c", textwrap.dedent(code), str(run.folder)], stdin=-1)
    until(lambda: steps(run) > 2, "the third step")
    starter.kill()
    starter.wait()
    until((run.checkpoints / "step.txt").exists, "the checkpoint")
    until(lambda: find(run) is None, "the end of the session")
    assert ending.status(run) == "stopped"


@pytest.mark.slow
def test_the_recipe_itself_trains_in_two_processes(place: Place, make_tiny_corpus: CorpusMaker) -> None:
    bench = Bench(place.folder, make_tiny_corpus(latents=LATENTS))
    run = place.run()
    work = bench.prepare("run", run_name="run", processes=2, batch_size=6, aim=False)
    outcome = launch.train(indextts2, work, run)
    assert (outcome.status, outcome.step, outcome.horizon) == ("finished", 2, 2)
    assert run.last("val/loss") == pytest.approx(outcome.val_after["val/loss"])
    assert [record["step"] for record in run.records() if "train/lr" in record] == [1, 2], "from one process only"
