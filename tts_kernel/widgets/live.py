"""A panel beside a run that trains, in this kernel or in another process: its figure, how it stands, a STOP button.

It reads the run folder only. Nothing is printed into an output widget: a cell that does so can hang a notebook that is
executed without a browser.
"""

from __future__ import annotations

import html
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import DisplayHandle, display

from tts_kernel.recovery.history import History, read_history
from tts_kernel.runs import Run
from tts_kernel.training.launch.hold import in_use
from tts_kernel.widgets.curves import describe, draw_training, duration
from tts_kernel.widgets.figures import png

EVERY = 5.0  # seconds between two drawings, and between two looks at what is told above them, at least
DRAWING, LOOKING = 50, 200  # times what the last one cost, at least: 2 % and 0.5 % of a processor
CONFIRM = 15.0  # seconds within which STOP has to be pressed again

ASK = (
    "Press again to stop: the step in progress is finished, a checkpoint is written, then the run ends. The same "
    "run_name goes on from there."
)
ASKED = "Asked to stop: it finishes its step, saves, and ends."


class Panel:
    """The widgets of one run; a notebook displays `box`."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.picture = widgets.Image(format="png", layout={"width": "100%"})
        self.text, self.note = widgets.HTML(), widgets.HTML()
        self.stop = widgets.Button(description="STOP", icon="stop", button_style="danger", layout={"width": "150px"})
        self.stop.on_click(self._press)
        _hear_at_once(self.stop)
        controls = widgets.HBox([self.stop, self.note], layout={"align_items": "center"})
        self.box = widgets.VBox([self.text, controls, self.picture], layout={"width": "auto"})
        for name in ("box", "text", "note", "stop", "picture"):
            getattr(self, name).add_class(f"live-{name}")
        self._pressed = -CONFIRM  # on the monotonic clock
        self._seen: tuple[int, ...] = ()
        self._drawn: History | None = None
        self.history = History(run.folder, {})
        self.look()
        self.draw()

    def look(self) -> float:
        """Read what the run folder holds, if it has changed, and tell it in one line. Returns the seconds of processor
        time that it took."""
        begun = time.thread_time()
        if (now := self._state()) != self._seen:
            self.history, self._seen = read_history(self.run.folder), now
        self.text.value = f"<b>{html.escape(describe(self.history))}</b>{_age(self.history)}"
        return time.thread_time() - begun

    def draw(self) -> float:
        """Draw what was last read, unless it is drawn. Returns as `look` does."""
        begun = time.thread_time()
        if self.history is not self._drawn:
            self.picture.value = png(draw_training(self.history, titled=False))
            self._drawn = self.history
        return time.thread_time() - begun

    def _state(self) -> tuple[int, ...]:
        """Sizes and times of the files that are drawn: (size, time, ...)."""
        found = []
        for path in (self.run.folder / "metrics.jsonl", self.run.checkpoints / "index.json"):
            if path.exists():
                status = path.stat()
                found += [status.st_size, status.st_mtime_ns]
        return tuple(found)

    def _press(self, _: object = None) -> None:
        """Ask at the first time, obey at the second."""
        now = time.monotonic()
        if now - self._pressed > CONFIRM:
            self._pressed = now
            self.stop.description, self.note.value = "really STOP?", ASK
            return
        self.run.stop_file.touch()
        self.stop.description, self.stop.disabled, self.note.value = "stopping", True, ASKED

    def forget_press(self) -> None:
        """A first press that was not followed by a second is void after CONFIRM seconds, and the button says so."""
        if not self.stop.disabled and self.note.value and time.monotonic() - self._pressed > CONFIRM:
            self.stop.description, self.note.value = "STOP", ""

    def rest(self, why: str) -> None:
        """There is nothing to stop."""
        self.stop.disabled, self.note.value = True, why


def _hear_at_once(button: widgets.Button) -> None:
    """JupyterLab sends a press to a subshell, so that it is heard while a cell trains. ipykernel 7.4 hands it on to the
    shell from which the widget spoke last, the one that trains, where it would wait for the end; not for this one."""
    button.comm._reply_subshell_for = lambda data, subshell: subshell


@contextmanager
def watch(run: Run) -> Iterator[Panel]:
    """Show the panel while what is inside trains `run`, or follows its session. A thread keeps it up to date, at most
    every EVERY seconds and with about 2 % of a processor. At the end the panel gives place to the last figure, so that
    the notebook keeps it."""
    panel = Panel(run)
    shown = _display(panel)
    over = threading.Event()
    # The first drawing is done, and with it every import: training may fork its loaders at any time from here on.
    drawing = threading.Thread(target=_keep_drawing, args=(panel, over), name=f"watch {run.name}", daemon=True)
    drawing.start()
    try:
        yield panel
    finally:
        over.set()
        drawing.join()
        panel.look()
        panel.rest("")
        if shown is not None:
            shown.update(_still(panel), raw=True)
        panel.box.close()


def show(run: Run) -> None:
    """The panel of a run as it stands now: finished, crashed, or going on somewhere else, where STOP works too. Run the
    cell again for a newer one."""
    panel = Panel(run)
    if who := in_use(run):
        panel.note.value = html.escape(f"trained by {who}")
        _display(panel)
    else:
        display(_still(panel), raw=True)
        panel.box.close()


def _keep_drawing(panel: Panel, over: threading.Event) -> None:
    look = draw = time.monotonic() + EVERY
    while not over.wait(1.0):
        panel.forget_press()
        if time.monotonic() >= look:
            look = time.monotonic() + max(EVERY, LOOKING * panel.look())
        if time.monotonic() >= draw:
            draw = time.monotonic() + max(EVERY, DRAWING * panel.draw())


def _display(panel: Panel) -> DisplayHandle | None:
    """None where there is no notebook to display in."""
    return display(panel.box, display_id=True) if get_ipython() is not None else None


def _still(panel: Panel) -> dict[str, str]:
    """The figure and the line above it without widgets, by MIME type."""
    return {
        "image/png": b64encode(png(draw_training(panel.history))).decode(),
        "text/plain": describe(panel.history),
    }


def _age(history: History) -> str:
    """How long ago the last line was written, where the clock allows to say so and it is worth it."""
    newest = max((float(series.times[-1]) for series in history.metrics.values() if len(series)), default=float("nan"))
    seconds = time.time() - newest
    return f"&nbsp; (logged {duration(seconds)} ago)" if seconds > 60 else ""
