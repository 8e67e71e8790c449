"""What a person meets who opens the notebook: every setting, and the guide's values in the guide's files."""

from __future__ import annotations

import json

import pytest
import yaml

from tts_kernel.recipes.melotts import Settings
from tts_kernel.runs import PROJECT_ROOT

NOTEBOOK = PROJECT_ROOT / "notebooks" / "05_melotts_bge_m3.ipynb"
PARAMETERS = PROJECT_ROOT / "parameters" / "05_melotts_bge_m3"


def declared() -> dict[str, object]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (source,) = (cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    values: dict[str, object] = {}
    exec("".join(source), values)
    return {line.split(":")[0]: values[line.split(":")[0]] for line in source if line.strip()}


def parameters(name: str) -> dict[str, object]:
    return yaml.safe_load((PARAMETERS / f"{name}.yaml").read_text(encoding="utf-8"))


def test_every_setting_is_a_parameter_of_the_notebook_and_none_is_more() -> None:
    assert list(declared()) == list(Settings.__dataclass_fields__)
    Settings(**declared())  # type: ignore[arg-type]


def test_the_demos_file_has_the_notebooks_own_values() -> None:
    assert {name: declared()[name] for name in parameters("demo")} == parameters("demo")


@pytest.mark.parametrize(("name", "segment"), [("guide", 16_384), ("guide_low_memory", 8192)])
def test_the_guides_files_have_the_guides_values(name: str, segment: int) -> None:
    own = Settings(**{**declared(), **parameters(name)})  # type: ignore[arg-type]
    assert (own.batch_size, own.learning_rate, own.lr_decay, own.c_mel) == (6, 3e-4, 0.999875, 45.0)
    assert (own.n_speakers, own.segment_size, own.precision, own.epochs) == (256, segment, "float16", 1000)
