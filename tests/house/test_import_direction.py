"""A room of tts_kernel imports only its own modules and rooms before it on the map, inside functions too."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.house.project import PACKAGE, module_name, modules

# The module map in the order the data flow; `probe` in evaluation scores a model that a recipe is still training.
ROOMS = ["settings", "runs", "audio", "text", "data", "models", "optim", "training", "lora", "evaluation"]
ROOMS += ["recipes", "synthesis", "recovery", "widgets", "headless", "train"]
PLACE = {room: place for place, room in enumerate(ROOMS)}


def imported_names(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of every import: statements, relative ones, and `import_module` with a literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".") if is_package else module.split(".")[:-1]
            base = base[: len(base) - (node.level - 1)] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:  # what is imported may be a module itself: from tts_kernel import runs
                yield node.lineno, f"{source}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def violations(package: Path) -> list[str]:
    """Every import against the direction and every module without a room, as `file:line: reason`."""
    found: list[str] = []
    for path in modules(package):
        name = module_name(path, package)
        room = name.split(".")[1] if "." in name else None  # None: tts_kernel/__init__.py, above all rooms
        if room is not None and room not in PLACE:
            found.append(f"{path}: {room} is no room of the map; add it to ROOMS where its data flow")
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for line, imported in imported_names(tree, name, path.name == "__init__.py"):
            parts = imported.split(".")
            target = parts[1] if parts[0] == package.name and len(parts) > 1 else None
            if target in PLACE and (room is None or PLACE[target] > PLACE[room]):
                found.append(f"{path}:{line}: {room or package.name} imports {imported}, which comes after it")
    return found


def test_imports_follow_the_map() -> None:
    found = violations(PACKAGE)
    assert not found, "\n".join(found)


def write(package: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    return package


def test_imports_with_the_direction_are_accepted(tmp_path: Path) -> None:
    files = {
        "__init__.py": "__version__ = '0'\n",
        "audio/wav.py": "import torch\n",
        "audio/spectrogram.py": "from .wav import read\nfrom tts_kernel import __version__\n",
        "recipes/melotts.py": "from ..evaluation import probe\nimport tts_kernel.audio.wav as wav\n",
        "headless.py": "from tts_kernel.widgets import curves\n",
    }
    assert violations(write(tmp_path / "tts_kernel", files)) == []


def test_planted_violations_are_found(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from .audio import wav\n",
        "audio/wav.py": "def read():\n    from tts_kernel.recipes import melotts\n",
        "audio/__init__.py": "from ..training import trainer\n",
        "data/batch.py": "from .. import models\n",
        "models/melotts/flow.py": "from ...optim.schedules import wsd\n",
        "optim/optimizers.py": "import importlib\nimportlib.import_module('tts_kernel.lora')\n",
        "training/speed.py": "from tts_kernel import widgets\n",
        "runs.py": "import tts_kernel.headless\n",
        "helpers/misc.py": "",
    }
    found = "\n".join(violations(write(tmp_path / "tts_kernel", files)))
    for name in files:
        assert name in found, f"planted in {name}, not found among:\n{found}"
    assert len(found.splitlines()) == len(files), found
