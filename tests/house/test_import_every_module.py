"""Every module imports on a plain installation, and the package itself is cheap to import."""

import json
import subprocess
import sys

from tests.house.project import PACKAGE, ROOT, module_name, modules

IMPORT_EACH = """
import importlib, json, sys, traceback
failed = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException:  # sys.exit at import is a failure as well
        failed[name] = traceback.format_exc(limit=-3)
print(json.dumps(failed))
"""


def python(*arguments: str) -> str:
    """Standard output of a fresh interpreter in the project's root."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_every_module_imports() -> None:
    names = [module_name(path, PACKAGE) for path in modules(PACKAGE)]
    printed = python("-c", IMPORT_EACH, *names).splitlines()
    failed = json.loads(printed[-1])
    assert not failed, "\n".join(f"import {name}:\n{reason}" for name, reason in failed.items())
    assert printed[:-1] == [], f"a module prints when imported: {printed[:-1]}"


def test_the_package_alone_does_not_load_torch() -> None:
    loaded = json.loads(python("-c", "import json, sys, tts_kernel; print(json.dumps(sorted(sys.modules)))"))
    assert "tts_kernel" in loaded
    assert "torch" not in loaded
