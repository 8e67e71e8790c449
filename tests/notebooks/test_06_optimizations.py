"""The parameters of the notebook are the fields of its settings, with their defaults."""

from __future__ import annotations

import json

from tts_kernel.recipes.indextts2.ablation import Settings
from tts_kernel.runs import PROJECT_ROOT

NOTEBOOK = PROJECT_ROOT / "notebooks" / "06_optimizations.ipynb"


def test_every_setting_is_a_parameter_of_the_notebook_with_its_default() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (source,) = (cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    declared: dict[str, object] = {}
    exec("".join(source), declared)
    names = [line.split(":")[0] for line in source if line.strip()]
    assert sorted(names) == sorted(Settings.__dataclass_fields__)
    assert Settings(**{name: declared[name] for name in names}) == Settings()  # type: ignore[arg-type]
