"""Stopping on request without losing a step: by signal, or by a file that anyone who can write there may touch.

In a world of several processes a first request makes all of them save and stop. What ends them without saving: under a
supervisor of ours (`python -m tts_kernel.train`) SIGTERM keeps its default, which works inside a collective too, for
there it is sent to those whose partner has died and nobody else sends it; under another torchrun a second signal, or
the collective that fails for want of the partner.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

log = logging.getLogger(__name__)

SUPERVISED = "TTS_KERNEL_SUPERVISED"  # in the environment of processes whose supervisor hears the signals for them

_LOOK_EVERY = 0.25  # seconds between two looks at the stop file
_SAME_REQUEST = 2.0  # seconds in which a terminal's or queue's signal comes once by itself and once through torchrun


class StopRequests:
    """Whether somebody has asked for a stop, and how."""

    def __init__(self, stop_file: Path | None = None) -> None:
        self.stop_file = stop_file
        self.why = ""  # "SIGINT", "SIGTERM", "stop file ..."
        self._looked = -_LOOK_EVERY

    def is_set(self) -> bool:
        """May be asked at every step: the file is looked at a few times a second."""
        now = time.monotonic()
        if not self.why and self.stop_file is not None and now - self._looked >= _LOOK_EVERY:
            self._looked = now
            if self.stop_file.exists():
                self.ask(f"stop file {self.stop_file}")
        return bool(self.why)

    def ask(self, why: str) -> None:
        log.warning("%s: stopping after this step, saving first", why)
        self.why = why


@contextmanager
def stop_requests(stop_file: Path | None = None) -> Iterator[StopRequests]:
    """SIGINT, SIGTERM, SIGHUP and `stop_file` ask for a stop instead of killing the process: the loop then saves and
    stops. A second signal does what it would have done. The file is removed at the end if it was obeyed. Outside the
    main thread signals stay as they are."""
    requests = StopRequests(stop_file)
    watched = _watched()
    before: dict[int, Any] = {number: signal.getsignal(number) for number in watched}
    first = [-_SAME_REQUEST]
    passed_on = int(os.environ.get("WORLD_SIZE", "1")) > 1

    def ask(number: int, frame: Any) -> None:
        now = time.monotonic()
        if requests.why and not (passed_on and now - first[0] < _SAME_REQUEST):
            signal.signal(number, before[number])
            signal.raise_signal(number)
        elif not requests.why:
            first[0] = now
            requests.ask(signal.Signals(number).name)

    for number in watched:
        signal.signal(number, ask)
    try:
        yield requests
    finally:
        _restore(before)
        if stop_file is not None and requests.why.startswith("stop file"):
            stop_file.unlink(missing_ok=True)


@contextmanager
def interrupted_on_request(stop_file: Path, error: Callable[[str], BaseException]) -> Iterator[None]:
    """The same requests raise `error(why)` in the main thread at once: for the time before and after the loop, when
    there is nothing to save. A `stop_requests` inside takes them over while it lasts."""
    why: list[str] = []

    def end(number: int, frame: Any) -> NoReturn:
        if why:
            stop_file.unlink(missing_ok=True)
        raise error(why[0] if why else signal.Signals(number).name)

    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_EVERY):
            if signal.getsignal(signal.SIGINT) is end and stop_file.exists():
                why.append(f"stop file {stop_file}")
                signal.pthread_kill(main.ident or 0, signal.SIGINT)  # to that thread, which may be in a long wait
                return

    main, watched = threading.main_thread(), _watched()
    before: dict[int, Any] = {number: signal.getsignal(number) for number in watched}
    for number in watched:
        signal.signal(number, end)
    watcher = threading.Thread(target=look, name="stop file", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        _restore(before)


def _watched() -> Sequence[signal.Signals]:
    """SIGHUP is what a closed terminal sends; under nohup it is ignored and stays so."""
    if threading.current_thread() is not threading.main_thread():
        return ()
    watched = [signal.SIGINT]
    if SUPERVISED not in os.environ:
        watched.append(signal.SIGTERM)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        watched.append(signal.SIGHUP)
    return watched


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python
