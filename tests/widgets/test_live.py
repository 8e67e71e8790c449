from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
import pytest
from jupyter_client.manager import start_new_kernel

from tests.widgets.runs import STEPS, make_run, metrics
from tts_kernel.runs import Run
from tts_kernel.training.metrics import MetricLog
from tts_kernel.widgets import live
from tts_kernel.widgets.live import Panel

PNG = b"\x89PNG"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("watch ")]


def test_the_panel_shows_the_figure_and_where_the_run_stands(run: Run) -> None:
    panel = Panel(run)
    assert bytes(panel.picture.value).startswith(PNG)
    assert "step 490" in panel.text.value
    assert "<b>run" in panel.text.value


def test_only_news_are_drawn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    panel, drawn = Panel(run), []
    monkeypatch.setattr(live, "draw_training", lambda history, **_: drawn.append(history.step))
    monkeypatch.setattr(live, "png", lambda _: PNG)
    panel.look()
    panel.draw()
    assert drawn == []
    with MetricLog(run.folder) as log:
        log.write(600, metrics(600))
    panel.look()
    panel.draw()
    assert drawn == [600]
    assert "step 600" in panel.text.value


def test_stop_asks_first_and_then_leaves_the_file(run: Run) -> None:
    panel = Panel(run)
    panel.stop.click()
    assert not (run.folder / "stop").exists()
    assert "checkpoint is written" in panel.note.value
    panel.stop.click()
    assert (run.folder / "stop").exists()
    assert panel.stop.disabled


def test_a_press_long_ago_is_forgotten(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = Panel(run)
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    panel.stop.click()
    panel.forget_press()
    assert panel.stop.description == "really STOP?"
    now[0] += live.CONFIRM + 1
    panel.forget_press()
    assert (panel.stop.description, panel.note.value) == ("STOP", "")
    panel.stop.click()
    assert not (run.folder / "stop").exists()


def test_watching_follows_the_run_and_leaves_no_thread(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY", 0.0)
    with live.watch(run) as panel, MetricLog(run.folder) as log:
        log.write(600, metrics(600))
        deadline = time.monotonic() + 60
        while "step 600" not in panel.text.value and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "step 600" in panel.text.value
        assert watchers()
    assert not watchers()


def test_what_fails_inside_is_raised_and_leaves_no_thread(run: Run) -> None:
    def fail() -> None:
        raise ValueError("training")

    with pytest.raises(ValueError, match="training"), live.watch(run):
        fail()
    assert not watchers()


def test_a_run_that_has_logged_nothing_yet_is_watched(tmp_path: Path) -> None:
    with live.watch(Run(tmp_path)) as panel:
        assert "nothing logged yet" in panel.text.value


def test_drawing_takes_a_fiftieth_of_the_time_at_most(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own: a drawing of 2 s is followed by 100 s without."""
    now, drawn = [0.0], []

    class Over:
        def wait(self, seconds: float) -> bool:
            now[0] += seconds
            return now[0] > 1000

    def draw() -> float:
        drawn.append(now[0])
        return 2.0

    panel = Panel(run)
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(panel, "draw", draw)
    monkeypatch.setattr(panel, "look", lambda: 0.0)
    live._keep_drawing(panel, Over())
    assert 9 <= len(drawn) <= 10


CELL = """
from pathlib import Path
from tts_kernel.runs import Run
from tts_kernel.widgets import live
import threading, time
run = Run(Path({folder!r}))
"""
BUSY = """
with live.watch(run):
    end = time.monotonic() + 60
    while not (run.folder / "stop").exists() and time.monotonic() < end:
        sum(range(1000))
"""
AFTER = "assert not [t for t in threading.enumerate() if t.name.startswith('watch ')]\nlive.show(run)"


def test_a_notebook_without_a_browser_keeps_the_last_figure(run: Run, tmp_path: Path) -> None:
    begin = CELL.format(folder=str(run.folder))
    cells = [begin, "with live.watch(run):\n    time.sleep(0.1)", AFTER]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    done = papermill.execute_notebook(
        str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), progress_bar=False, execution_timeout=120
    )
    for cell in done.cells[1:]:
        (shown,) = [output for output in cell.outputs if output.output_type == "display_data"]
        assert set(shown.data) == {"image/png", "text/plain"}
        assert f"step {STEPS[-1]}" in shown.data["text/plain"]


@pytest.fixture
def kernel() -> Iterator[tuple]:
    manager, client = start_new_kernel(kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_stop_is_heard_while_the_cell_trains(run: Run, kernel: tuple) -> None:
    """As JupyterLab does it: a subshell for what widgets hear, made while the cell is busy."""
    _, client = kernel
    client.execute(CELL.format(folder=str(run.folder)))
    client.execute(BUSY)
    button, sent, ended = None, 0, False
    subshell = None
    deadline = time.monotonic() + 120
    while not ended and time.monotonic() < deadline:
        try:
            message = client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        kind, content = message["msg_type"], message["content"]
        assert kind != "error", content
        if kind == "comm_open" and content["data"].get("state", {}).get("_model_name") == "ButtonModel":
            button = content["comm_id"]
        changed = kind == "comm_msg" and content["data"].get("state", {}).get("description") == "really STOP?"
        if kind == "display_data":  # the panel is there; the cell is in its loop from now on
            request = client.session.msg("create_subshell_request", {})
            client.control_channel.send(request)
            subshell = client.get_control_msg(timeout=30)["content"]["subshell_id"]
        if (kind == "display_data" and sent == 0) or (changed and sent == 1):
            press = client.session.msg(
                "comm_msg", {"comm_id": button, "data": {"method": "custom", "content": {"event": "click"}}}
            )
            press["header"]["subshell_id"] = subshell
            client.shell_channel.send(press)
            sent += 1
        parent = message["parent_header"].get("msg_type")
        ended = sent == 2 and kind == "status" and content["execution_state"] == "idle" and parent == "execute_request"
    assert (run.folder / "stop").exists()
    assert time.monotonic() < deadline
