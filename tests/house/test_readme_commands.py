"""The commands that README.md and CONTRIBUTING.md name exist, and CI runs README's test command."""

import os
import re
import subprocess

import pytest

from tests.house.project import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))  # those that `make help` lists


def named_targets(name: str) -> set[str]:
    """Every X of a `make X` in code, inline or in a block."""
    text = (ROOT / name).read_text(encoding="utf-8")
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    return {target for part in code for target in re.findall(r"\bmake ([a-z][a-z-]*)\b(?!=)", part)}


def test_readme_names_its_two_commands() -> None:
    assert {"demo", "test"} <= named_targets("README.md")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_named_targets_exist(name: str) -> None:
    assert named_targets(name) <= TARGETS


def test_help_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(phony.group(1).split()) == TARGETS
    # without the flags of the `make` that runs this test: -n or -s would change what is printed
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    printed = subprocess.run(["make"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in printed.splitlines() if line.startswith("  make ")} == TARGETS


def test_ci_runs_the_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert commands[0] == "set -euo pipefail"
    assert commands[-1] == "make test"
