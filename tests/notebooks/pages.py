"""What the tests of the notebooks share: a page's parameters, and papermill's command, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def declared(notebook: Path) -> dict[str, object]:
    """Name -> default of each line of the cell that is tagged `parameters`, in order."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    (source,) = (cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    values: dict[str, object] = {}
    exec("".join(source), values)
    return {name: values[name] for line in source if (name := line.partition(":")[0].strip())}


def papermill(notebook: Path, folder: Path, *words: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Executed in `folder` as out.ipynb, its runs in runs/ there and what it prepares in cache/."""
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "--no-progress-bar", *words]
    places = {"TTS_KERNEL_RUNS": str(folder / "runs"), "TTS_KERNEL_CACHE": str(folder / "cache")}
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **places}, capture_output=True, text=True, timeout=seconds
    )
