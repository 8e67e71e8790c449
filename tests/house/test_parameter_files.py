"""A parameter file names parameters of its notebook, with the types that the notebook declares."""

from pathlib import Path

import papermill
import pytest
import yaml
from nbformat import v4, write

from tests.house.project import ROOT
from tools.record_notebooks import strip

PARAMETER_FILES = sorted((ROOT / "parameters").glob("*/*.yaml"))  # parameters/<notebook>/<variant>.yaml
assert PARAMETER_FILES, "nothing collected: the test below would pass by not running"


def problems(path: Path, notebook: Path) -> list[str]:
    declared = papermill.inspect_notebook(notebook)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or not values:
        return [f"{path}: holds {values!r}, not `name: value` lines"]
    found: list[str] = []
    for key, value in values.items():
        if key not in declared:
            found.append(f"{path}: {key} is not a parameter of {notebook.name}")
        elif type(value).__name__ != declared[key]["inferred_type_name"]:
            expected = declared[key]["inferred_type_name"]
            found.append(f"{path}: {key} is {value!r}, a {type(value).__name__}; {notebook.name} declares {expected}")
    return found


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_parameter_file_matches_its_notebook(path: Path) -> None:
    notebook = ROOT / "notebooks" / f"{path.parent.name}.ipynb"
    assert notebook.exists(), f"{path}: there is no notebook {notebook.name}"
    found = problems(path, notebook)
    assert not found, "\n".join(found)


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    source = 'run_name: str = ""\nbatch_size: int = 16  # pairs\nlearning_rate: float = 2.0e-4\nresume: bool = False'
    path = tmp_path / "tiny.ipynb"
    write(strip(v4.new_notebook(cells=[v4.new_code_cell(source, metadata={"tags": ["parameters"]})])), path)
    return path


def test_a_fitting_file_has_no_problems(tmp_path: Path, notebook: Path) -> None:
    path = tmp_path / "fits.yaml"
    path.write_text("batch_size: 8\nlearning_rate: 1.0e-4\nresume: true\nrun_name: 'no'\n", encoding="utf-8")
    assert problems(path, notebook) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("batchsize: 8", "not a parameter"),
        ("learning_rate: 1e-4", "a str"),  # YAML reads a number only with the dot
        ("run_name: no", "a bool"),  # and a bare no as False
        ("batch_size: true", "a bool"),
        ("learning_rate: 1", "a int"),
        ("just text", "not `name: value` lines"),
        ("", "not `name: value` lines"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, notebook: Path, line: str, reason: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(line, encoding="utf-8")
    found = problems(path, notebook)
    assert len(found) == 1
    assert reason in found[0]
