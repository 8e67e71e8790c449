"""Stopping on request without losing a step."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set instead of killing the process: the loop then saves and stops. A second
    signal does what it would have done. Outside the main thread signals stay as they are."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in watched}

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            signal.signal(number, before[number])
            signal.raise_signal(number)
        log.warning("%s: stopping after this step, saving first", signal.Signals(number).name)
        stop.set()

    for number in watched:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number in watched:
            signal.signal(number, before[number])
