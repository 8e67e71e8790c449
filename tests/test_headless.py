from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from tts_kernel import headless


class Parent:
    """Stands for the process that started the kernel."""

    words: list[str]

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cmdline(self) -> list[str]:
        return self.words

    def cwd(self) -> str:
        return "/work-folder"


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> type[Parent]:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr(psutil, "Process", Parent)
    return Parent


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["python", "/env/bin/papermill", "a.ipynb", "out/b.ipynb", "-p", "batch_size", "24"],
            "/work-folder/out/b.ipynb",
        ),
        (["papermill", "-p", "batch_size", "24", "a.ipynb", "/x/b.ipynb"], "/x/b.ipynb"),
        (["papermill", "a.ipynb", "-p", "batch_size", "24"], "standard output"),
        (["papermill", "a.ipynb", "-"], "standard output"),
        (["python", "-m", "nbval"], "run by `python -m nbval` in /work-folder"),
    ],
)
def test_the_note_says_where_the_executed_copy_is(parent: type[Parent], words: list[str], expected: str) -> None:
    parent.words = words
    assert expected in headless.where_executed()


def test_the_note_names_the_notebook_that_jupyter_has_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/02_stage2_grl.ipynb")
    assert "notebooks/02_stage2_grl.ipynb" in headless.where_executed()


def test_the_conclusion_shows_summary_and_places(tmp_path: Path) -> None:
    result = {"summary": ["speaker probe 0.57 -> 0.23"], "checkpoint": "checkpoints/latest.pth"}
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "probes.png").touch()
    text = headless.conclusion(tmp_path, 61.4)
    for expected in ("61 s", "0.57 -> 0.23", str(tmp_path / "checkpoints/latest.pth"), "probes.png"):
        assert expected in text


def test_a_missing_notebook_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        headless.main(["notebooks/99_nothing.ipynb"])
    assert "notebooks/99_nothing.ipynb: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-f", "list.yaml"], "list.yaml: found a list, expected lines of `name: value`"),
        (["-f", "torn.yaml"], "torn.yaml: no YAML"),
        (["-p", "rank", "[1"], "no YAML"),
        (["--run-name", "../elsewhere"], "run_name '../elsewhere': expected letters"),
        (["-p", "run_name", "a b"], "run_name 'a b': expected letters"),
    ],
)
def test_parameters_that_are_none_are_refused_before_anything_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(headless, "execute", lambda *_: pytest.fail("the notebook was run"))
    for name, text in (("a.ipynb", "{}"), ("list.yaml", "- rank\n"), ("torn.yaml", "rank: [\n")):
        Path(name).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        headless.main(["a.ipynb", *words])
    assert expected in capsys.readouterr().err


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("rank: 8\nalpha: 16\n", encoding="utf-8")
    assert headless.read_parameters(path, {"rank": "4", "dora": "true"}) == {"rank": 4, "alpha": 16, "dora": True}
    path.write_text("# nothing\n", encoding="utf-8")
    assert headless.read_parameters(path, {}) == headless.read_parameters(None, {}) == {}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("checkpoints/latest_full.pth", True),
        ("flow/checkpoints/latest_full.pth", True),
        ("llm/checkpoints/step_00100.pth", True),
        ("llm/checkpoints/best_model.pth", False),
        ("llm/adapter/latest_full.pth", False),
    ],
)
def test_what_a_stopped_run_can_go_on_from_is_found_in_its_parts_too(tmp_path: Path, file: str, expected: bool) -> None:
    assert not headless.has_checkpoint(tmp_path)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    assert headless.has_checkpoint(tmp_path) is expected


@pytest.mark.slow
def test_a_stop_signal_reaches_the_kernel_and_waits_for_it_to_save(tmp_path: Path) -> None:
    cell = (
        "from pathlib import Path\nfrom time import sleep\nPath('started').touch()\n"
        "try:\n    sleep(60)\nexcept KeyboardInterrupt:\n    sleep(0.5)\n    Path('saved').touch()\n    raise"
    )
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=kernel)
    nbformat.write(notebook, tmp_path / "long.ipynb")
    process = subprocess.Popen(
        [sys.executable, "-m", "tts_kernel.headless", "long.ipynb", "--run-name", "stopped"],
        cwd=tmp_path,
        env={**os.environ, "TTS_KERNEL_RUNS": str(tmp_path / "runs")},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (tmp_path / "saved").exists()
    assert "waiting for the kernel to save" in printed
    assert "go on with" not in printed  # no checkpoint was left
