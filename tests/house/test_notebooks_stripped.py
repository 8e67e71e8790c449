"""What git keeps of a notebook: sources, tags, and the outputs that nbval compares. Nothing of the machine."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.house.project import NOTEBOOKS
from tools.record_notebooks import CHECKED, strip

assert NOTEBOOKS, "no notebook found: the tests below would pass by not running"

# Two or more segments from the root, a home folder, a drive. Not the path in a URL, not a division, not `</div>`.
ABSOLUTE_PATH = re.compile(r"""(?:^|(?<=[\s"'`(=,\[]))(?:/[\w.-]+(?:/[\w.-]+)+|~/\w|[A-Za-z]:\\\w)""", re.MULTILINE)


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def texts(cell: dict[str, Any]) -> list[str]:
    """A cell's source and the text of its outputs."""
    found = [joined(cell["source"])]
    for output in cell.get("outputs", []):
        found += [joined(output.get("text", "")), *output.get("traceback", [])]
        found += [joined(data) for kind, data in output.get("data", {}).items() if kind.startswith("text/")]
    return found


def problems(notebook: dict[str, Any]) -> list[str]:
    found: list[str] = []
    parameters = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(parameters) != 1:
        found.append(f"{len(parameters)} cells tagged parameters, papermill wants one")
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        found.append("its kernel is not python3, papermill needs the name")
    if "widgets" in notebook["metadata"]:
        found.append("widget state is stored")
    for number, cell in enumerate(notebook["cells"], start=1):
        outputs = cell.get("outputs", [])
        checked = CHECKED in cell["metadata"].get("tags", [])
        if outputs and not checked:
            found.append(f"cell {number}: stores an output but is not tagged {CHECKED}")
        if cell.get("execution_count") is not None and not checked:
            found.append(f"cell {number}: has an execution count")
        if checked and not (outputs and cell.get("execution_count")):
            found.append(f"cell {number}: tagged {CHECKED} without output and count, nbval would compare nothing")
        if any(output["output_type"] == "error" for output in outputs):
            found.append(f"cell {number}: stores an error")
        if any("widget-view" in kind for output in outputs for kind in output.get("data", {})):
            found.append(f"cell {number}: stores a widget")
        for path in (match for text in texts(cell) for match in ABSOLUTE_PATH.findall(text)):
            found.append(f"cell {number}: absolute path {path}")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_only_what_is_checked(path: Path) -> None:
    found = problems(json.loads(path.read_text(encoding="utf-8")))
    assert not found, "\n".join([f"{path}: `make notebooks` stores it clean", *found])


def dirty_notebook() -> nbformat.NotebookNode:
    v4 = nbformat.v4
    printed = v4.new_output("stream", text="saved\n")
    checked = v4.new_code_cell("1 + 1", metadata={"tags": [CHECKED]}, execution_count=3)
    checked.outputs = [v4.new_output("execute_result", {"text/plain": "2"}, execution_count=3)]
    cells = [
        v4.new_code_cell("steps: int = 2", metadata={"tags": ["parameters"]}, execution_count=1),
        v4.new_code_cell("print('saved')", execution_count=2, outputs=[printed]),
        checked,
    ]
    return v4.new_notebook(cells=cells, metadata={"widgets": {"state": {}}})


def test_a_dirty_notebook_is_found_and_stripping_cleans_it() -> None:
    notebook = dirty_notebook()
    assert problems(notebook) == [
        "its kernel is not python3, papermill needs the name",
        "widget state is stored",
        "cell 1: has an execution count",
        f"cell 2: stores an output but is not tagged {CHECKED}",
        "cell 2: has an execution count",
    ]
    clean = strip(copy.deepcopy(notebook))
    assert problems(clean) == []
    assert [cell.source for cell in clean.cells] == [cell.source for cell in notebook.cells]
    assert clean.cells[2].outputs[0].data == {"text/plain": "2"}


def test_a_checked_cell_that_compares_nothing_is_found() -> None:
    notebook = strip(dirty_notebook())
    notebook.cells[2].outputs = []
    assert problems(notebook) == [f"cell 3: tagged {CHECKED} without output and count, nbval would compare nothing"]


def test_a_second_or_missing_parameters_cell_is_found() -> None:
    notebook = strip(dirty_notebook())
    notebook.cells.append(notebook.cells[0])
    assert problems(notebook) == ["2 cells tagged parameters, papermill wants one"]
    assert problems(strip(nbformat.v4.new_notebook())) == ["0 cells tagged parameters, papermill wants one"]


@pytest.mark.parametrize("text", ["open('/srv/corpus/a.wav')", "data = '~/corpus'", r"'C:\corpus'", "at /srv/corpus"])
def test_absolute_paths_are_found(text: str) -> None:
    assert ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize("text", ["runs/demo/a.wav", "https://example.invalid/a/b", "3 / 4 / 5", "a/b/c", "<b>x</b>"])
def test_other_slashes_are_left_alone(text: str) -> None:
    assert not ABSOLUTE_PATH.search(text)
