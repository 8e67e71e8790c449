"""One process at a time trains in a run folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tts_kernel.data.features import folder_lock
from tts_kernel.runs import Run, RunError
from tts_kernel.training.launch.hold import PROCESS, held, in_use
from tts_kernel.training.signals import SUPERVISED

HOLD = """
import multiprocessing, sys, time
from pathlib import Path
from tts_kernel.runs import Run
from tts_kernel.training.launch.hold import held
with held(Run(Path(sys.argv[1]))):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    print(child.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def other(run: Run) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts another process that holds the run and has a forked child, as a reader of batches is."""
    processes, children = [], []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(run.folder)], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(process)
        assert process.stdout is not None
        children.append(int(process.stdout.readline()))
        return process

    yield start
    for process in processes:
        process.kill()
    for child in children:  # they have the pipe, too
        os.kill(child, signal.SIGKILL)
    for process in processes:
        process.communicate()


def test_a_folder_in_use_is_refused_by_pid_host_and_time_with_what_to_do(
    run: Run, other: Callable[[], subprocess.Popen[str]]
) -> None:
    process = other()
    with pytest.raises(RunError) as refused, held(run):
        pass
    text = str(refused.value)
    for expected in (f"process {process.pid}", socket.gethostname(), "since 20", "stop` (it saves", "run_name"):
        assert expected in text
    assert str(process.pid) in in_use(run)
    assert json.loads((run.folder / PROCESS).read_text(encoding="utf-8"))["pid"] == process.pid


def test_a_killed_process_gives_the_folder_back_though_its_children_live(
    run: Run, other: Callable[[], subprocess.Popen[str]]
) -> None:
    process = other()
    process.kill()
    process.wait()
    assert (run.folder / PROCESS).exists()
    assert not in_use(run)
    with held(run):
        assert str(os.getpid()) in in_use(run)
    assert not (run.folder / PROCESS).exists()
    assert not in_use(run)


def test_the_folder_is_given_back_after_an_error_and_taken_twice_by_nobody(run: Run) -> None:
    with pytest.raises(ZeroDivisionError), held(run):
        raise ZeroDivisionError
    with held(run), pytest.raises(RunError, match="in use"), held(run):
        pass
    with held(run):
        pass


def test_without_locks_a_living_process_of_this_machine_is_still_noticed(
    run: Run, other: Callable[[], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = other()

    def unsupported(handle: int, how: int) -> None:
        raise OSError(folder_lock._UNSUPPORTED[0], "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "flock", unsupported)
    with pytest.raises(RunError, match=f"process {process.pid} "), held(run):
        pass
    process.kill()
    process.wait()
    with held(run):
        pass


def test_the_number_of_a_dead_process_on_another_one_does_not_count(run: Run) -> None:
    with held(run):
        known = json.loads((run.folder / PROCESS).read_text(encoding="utf-8"))
    (run.folder / PROCESS).write_text(json.dumps({**known, "command": ["python", "something-else.py"]}))
    assert not in_use(run)
    with held(run):
        pass


def test_somebody_who_only_looks_does_not_get_in_the_way(run: Run) -> None:
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            in_use(run)

    with held(run):
        pass
    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(20):
            with held(run):
                time.sleep(0.001)
    finally:
        over.set()
        thread.join()


# A stop file that is there already


def asked_at(run: Run, seconds: float) -> Path:
    """A stop file of so many seconds since this process was started."""
    run.stop_file.touch()
    when = psutil.Process().create_time() + seconds
    os.utime(run.stop_file, (when, when))
    return run.stop_file


def test_a_stop_that_was_asked_for_before_this_session_is_removed_and_told(
    run: Run, heard: pytest.LogCaptureFixture
) -> None:
    old = asked_at(run, -60.0)
    with held(run):
        assert not old.exists()
    assert f"{old} was asked for at 20" in heard.text


@pytest.mark.parametrize("seconds", [-0.5, 0.0, 1.0])
def test_a_stop_that_was_asked_for_since_this_process_began_stays(run: Run, seconds: float) -> None:
    with held(run):
        assert not run.stop_file.exists()
    asked = asked_at(run, seconds)
    with held(run):
        assert asked.exists()


def test_a_session_begins_with_the_supervisor_of_its_processes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    own, supervisor = psutil.Process().create_time(), os.getppid()
    begun = {os.getpid(): own, supervisor: own - 90.0}
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: begun[self.pid])
    monkeypatch.setenv(SUPERVISED, str(supervisor))
    asked = asked_at(run, -60.0)
    with held(run):
        assert asked.exists(), "asked for while the supervisor was starting this process"
    asked_at(run, -120.0)
    with held(run):
        assert not asked.exists()


def test_a_refused_session_leaves_the_stop_to_the_one_it_is_for(run: Run) -> None:
    with held(run):
        asked = asked_at(run, -60.0)
        with pytest.raises(RunError, match="in use"), held(run):
            pass
        assert asked.exists()
