"""pyproject.toml, constraints.txt and environment.yml tell one story, and none of them names a package index."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.house.project import ROOT
from tools.make_env import EDITABLE

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
PIN_LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
GROUPS = {"core": PROJECT["dependencies"], "build": PYPROJECT["build-system"]["requires"], **EXTRAS}
REQUIREMENTS = [(group, requirement) for group, requirements in GROUPS.items() for requirement in requirements]


def pins() -> dict[str, Version]:
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in PIN_LINES)}


def test_constraints_are_plain_pins_each_once_in_order() -> None:
    bad = [line for line in PIN_LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!]*", line)]
    assert not bad, f"not `name==version`: {bad}"
    names = [canonicalize_name(line.split("==")[0]) for line in PIN_LINES]
    assert names == sorted(set(names))


@pytest.mark.parametrize(("group", "text"), REQUIREMENTS, ids=lambda value: value)
def test_requirement_has_a_pin_that_satisfies_it(group: str, text: str) -> None:
    requirement = Requirement(text)
    assert requirement.specifier, f"{group}: {text} has no bound"
    pinned = pins().get(canonicalize_name(requirement.name))
    assert pinned is not None, f"{group}: {requirement.name} is not in constraints.txt"
    assert pinned in requirement.specifier, f"{group}: constraints.txt has {requirement.name}=={pinned}, not {text}"


def test_torch_and_torchaudio_are_one_release() -> None:
    assert pins()["torch"] == pins()["torchaudio"]


def test_the_installer_takes_every_extra() -> None:
    assert set(EXTRAS) == set(re.fullmatch(r"\.\[(.+)\]", EDITABLE).group(1).split(","))


def test_conda_environment_is_the_same_environment() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    plain = {
        Requirement(entry.replace("=", "==")).name: entry
        for entry in environment["dependencies"]
        if isinstance(entry, str)
    }
    python = plain["python"].partition("=")[2]
    assert Version(python) in SpecifierSet(PROJECT["requires-python"])
    assert "pip" in plain
    [from_pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert from_pip == ["-c constraints.txt", f"-e {EDITABLE}"]


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "constraints.txt", "environment.yml", "Makefile", "tools/make_env.py"]
)
def test_no_package_index_is_named(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"\w+://\S*|--(?:extra-)?index-url\b|--find-links\b|\b[\w-]+\.(?:org|com|io|net|dev)\b", text)
    assert not named, f"{name}: {named}"
