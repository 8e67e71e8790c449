"""Run notebooks again and store the outputs of their `nbval-check-output` cells only. `make notebooks` runs this.

A notebook that fails is left as it was. Kernels start in the notebook's own folder, as nbval's do.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
CHECKED = "nbval-check-output"  # nbval --nbval-lax compares the outputs of cells with this tag only
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """In place: keep sources, cell tags, checked outputs; drop other counts, widget state, times, editors' metadata."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    count = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        count += 1  # of a checked cell it is its place, so it never changes; nbval skips cells without one
        cell.execution_count = count if CHECKED in tags else None
        cell.outputs = cell.outputs if CHECKED in tags else []
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    return notebook


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    beside = path.with_suffix(".ipynb.tmp")
    nbformat.write(notebook, beside)
    os.replace(beside, path)


def record(path: Path, cell_seconds: int) -> None:
    """Run one notebook and store it stripped. Raises what nbclient raises for a cell that fails or takes too long."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=cell_seconds,
        kernel_name=KERNEL["name"],
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    write(strip(notebook), path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    parser.add_argument("--cell-seconds", type=int, default=600, help="longest time for one cell")
    parser.add_argument("--strip-only", action="store_true", help="run nothing, only strip")
    arguments = parser.parse_args()
    paths = arguments.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if not paths:
        print("notebooks: none found in notebooks/", file=sys.stderr)
        return 1
    failed = 0
    for number, path in enumerate(paths, start=1):
        print(f"notebooks: {number}/{len(paths)} {path.name} ...", flush=True)
        start = time.monotonic()
        try:
            if arguments.strip_only:
                write(strip(nbformat.read(path, as_version=4)), path)
            else:
                record(path, arguments.cell_seconds)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            failed += 1
            print(f"{error}\nnotebooks: {path.name} failed and is left as it was", file=sys.stderr, flush=True)
        else:
            print(f"notebooks: {path.name} stored after {time.monotonic() - start:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
