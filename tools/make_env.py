"""Make `.venv` and install tts_kernel with all its extras, at the versions in constraints.txt. `make env` runs this.

Standard library only: it runs before anything is installed. uv needs under half a minute where pip needs two, but
does not read pip's configuration: an index set there is handed over, and when uv cannot be had or fails, pip does it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EDITABLE = ".[demo,lab,ray,dask,aim,sweep,onnx,dev]"
MUST_BE_FOUND = (
    "tts_kernel",
    "torch",
    "papermill",
    "jupyterlab",
    "ray",
    "distributed",
    "aim",
    "optuna",
    "onnxruntime",
    "pytest",
    "ruff",
    "mypy",
)  # one or more per extra


def venv_python(root: Path) -> Path:
    return root / ".venv" / "bin" / "python"


def stamp_path(root: Path) -> Path:
    return root / ".venv" / "installed.json"


def wanted(root: Path) -> dict[str, str]:
    """What a finished installation was made from; the folder counts because a venv cannot be moved."""
    files = {
        name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in ("pyproject.toml", "constraints.txt")
    }
    return {"folder": str(root), **files}


def recorded(root: Path) -> dict[str, str]:
    try:
        return dict(json.loads(stamp_path(root).read_text(encoding="utf-8")))
    except (OSError, ValueError):  # none yet, or cut short
        return {}


def version_of(python: Path) -> str:
    """`3.11`, or an empty string where there is no interpreter that starts."""
    question = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.run(question, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def missing_packages(python: Path) -> list[str]:
    question = f"import importlib.util as u; print(*[n for n in {MUST_BE_FOUND!r} if u.find_spec(n) is None])"
    answer = subprocess.run([str(python), "-c", question], capture_output=True, text=True, cwd=python.parent)
    return answer.stdout.split() if answer.returncode == 0 else list(MUST_BE_FOUND)


def reason_to_rebuild(root: Path, this_python: bool) -> str:
    """Why `.venv` must be made from nothing; empty when it can stay."""
    if not (root / ".venv").exists():
        return "there is none yet"
    found = version_of(venv_python(root))
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not found:
        return "its Python does not start"
    if found not in ("3.11", "3.12"):
        return f"it has Python {found}"
    if this_python and found != mine:
        return f"it has Python {found}, you asked for {mine}"
    if recorded(root).get("folder", str(root)) != str(root):
        return "it was made for another folder"
    return ""


def reason_to_install(root: Path) -> str:
    """Why packages must be installed into a `.venv` that starts; empty when nothing is to do."""
    before, now = recorded(root), wanted(root)
    if not before:
        return "no finished installation"
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        return f"changed: {', '.join(changed)}"
    missing = missing_packages(venv_python(root))
    return f"missing: {', '.join(missing)}" if missing else ""


def uv_environment(python: Path) -> dict[str, str]:
    """This process's environment, with the index that pip would use where uv has none of its own."""
    environment = dict(os.environ)
    if not any(name in environment for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL")):
        question = [str(python), "-m", "pip", "config", "get", "global.index-url"]
        index = (
            os.environ.get("PIP_INDEX_URL") or subprocess.run(question, capture_output=True, text=True).stdout.strip()
        )
        if index:
            environment["UV_DEFAULT_INDEX"] = index
    return environment


def install(root: Path) -> str:
    """Install with uv, else with pip; returns the name of the one that did. Raises CalledProcessError if pip fails."""
    python = venv_python(root)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install"]
    what = ["-c", "constraints.txt", "-e", EDITABLE]
    if subprocess.run([*pip, "--quiet", "-c", "constraints.txt", "uv"], cwd=root).returncode == 0:
        uv = [str(python.parent / "uv"), "pip", "install", "--python", str(python)]
        if subprocess.run([*uv, *what], cwd=root, env=uv_environment(python)).returncode == 0:
            return "uv"
    say("uv did not manage (see above); pip does it instead, which takes some minutes")
    subprocess.run([*pip, *what], cwd=root, check=True)
    return "pip"


def say(text: str) -> None:
    print(f"env: {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--this-python", action="store_true", help="rebuild a .venv that has another Python version")
    this_python = parser.parse_args().this_python
    start = time.monotonic()

    reason = reason_to_rebuild(ROOT, this_python)
    if reason:
        say(f"making .venv with Python {sys.version.split()[0]} ({reason})")
        shutil.rmtree(ROOT / ".venv", ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(ROOT / ".venv")], check=True)
    reason = reason_to_install(ROOT)
    if not reason:
        say(".venv is in place")
        return 0

    say(f"installing about 210 packages, 6 GB with CUDA torch ({reason})")
    stamp_path(ROOT).unlink(missing_ok=True)  # an interrupted installation must not look finished
    try:
        installer = install(ROOT)
    except subprocess.CalledProcessError:
        say("pip failed as well, its reason is above; repair it and run `make env` again, it goes on from here")
        return 1
    missing = missing_packages(venv_python(ROOT))
    if missing:
        say(f"installed, but not found by .venv's Python: {', '.join(missing)}; try `make distclean env`")
        return 1
    stamp_path(ROOT).write_text(json.dumps(wanted(ROOT), indent=2) + "\n", encoding="utf-8")
    say(f"ready after {time.monotonic() - start:.0f} s with {installer}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
