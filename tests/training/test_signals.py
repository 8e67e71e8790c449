"""Asking a run to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tts_kernel.training import signals
from tts_kernel.training.signals import SUPERVISED, interrupted_on_request, stop_requests


class StoppedError(Exception):
    pass


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own SIGINT handler, also where the tests run in a background job, which ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the file whenever it is asked to."""
    monkeypatch.setattr(signals, "_LOOK_EVERY", 0.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_for_a_stop_and_is_named(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with stop_requests() as stop:
            assert not stop.is_set()
            signal.raise_signal(number)
            assert stop.is_set()
            assert stop.why == number.name
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_closed_terminal_is_of_no_concern_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_does_what_it_would_have_done() -> None:
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_among_several_processes_the_signal_that_torchrun_passes_on_is_the_same_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        monkeypatch.setattr(signals, "_SAME_REQUEST", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_under_a_supervisor_sigterm_keeps_ending_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SUPERVISED, "1")
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests():
        assert signal.getsignal(signal.SIGTERM) is before


def test_signals_stay_as_they_are_outside_the_main_thread_and_the_file_is_obeyed(tmp_path: Path) -> None:
    found = []
    (tmp_path / "stop").touch()

    def work() -> None:
        with stop_requests(tmp_path / "stop") as stop:
            found.extend([stop.is_set(), signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, signal.getsignal(signal.SIGTERM)]


@pytest.mark.usefixtures("impatient")
def test_the_file_is_obeyed_once(tmp_path: Path) -> None:
    file = tmp_path / "stop"
    with stop_requests(file) as stop:
        assert not stop.is_set()
        file.touch()
        assert stop.is_set()
        assert stop.why == f"stop file {file}"
        assert file.exists()
    assert not file.exists()


@pytest.mark.usefixtures("interruptible", "impatient")
def test_a_file_that_was_not_obeyed_stays(tmp_path: Path) -> None:
    file = tmp_path / "stop"
    with stop_requests(file) as stop:
        signal.raise_signal(signal.SIGINT)
        file.touch()
        assert stop.is_set()
    assert file.exists()


def test_the_file_is_looked_at_a_few_times_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, now = [], [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Path, "exists", lambda path: bool(looks.append(now[0])))
    with stop_requests(tmp_path / "stop") as stop:
        for step in range(1001):  # one second
            now[0] = 100 + step / 1000
            stop.is_set()
    assert looks[0] == 100.0
    assert 3 <= len(looks) <= 6


@pytest.mark.usefixtures("interruptible")
def test_outside_the_loop_a_request_interrupts_a_long_wait_at_once(tmp_path: Path) -> None:
    file = tmp_path / "stop"
    threading.Timer(0.1, file.touch).start()
    with pytest.raises(StoppedError, match="stop file"), interrupted_on_request(file, StoppedError):
        time.sleep(60)
    assert not file.exists()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(StoppedError, match="SIGTERM"), interrupted_on_request(file, StoppedError):
        time.sleep(60)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible", "impatient")
def test_the_loop_takes_requests_over_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, looked = tmp_path / "stop", threading.Event()
    monkeypatch.setattr(signals, "_LOOK_EVERY", 0.01)
    with interrupted_on_request(file, StoppedError):
        with stop_requests(file) as stop:
            file.touch()
            looked.wait(0.2)  # in which the other would have looked many times
            assert stop.is_set()
            assert stop.why.startswith("stop file")
        assert not file.exists()
        looked.wait(0.1)
