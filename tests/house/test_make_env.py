"""`make env` installs when something changed or broke, and pip does it when uv cannot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import make_env


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a finished installation, its interpreter being this one."""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("before\n", encoding="utf-8")
    make_env.venv_python(tmp_path).parent.mkdir(parents=True)
    monkeypatch.setattr(make_env, "venv_python", lambda root: Path(sys.executable))
    monkeypatch.setattr(make_env, "MUST_BE_FOUND", ("pytest",))
    make_env.stamp_path(tmp_path).write_text(json.dumps(make_env.wanted(tmp_path)), encoding="utf-8")
    return tmp_path


def test_nothing_to_do_when_all_is_in_place(root: Path) -> None:
    assert make_env.reason_to_rebuild(root, this_python=True) == ""
    assert make_env.reason_to_install(root) == ""


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_file_installs_again(root: Path, name: str) -> None:
    (root / name).write_text("after\n", encoding="utf-8")
    assert make_env.reason_to_rebuild(root, this_python=False) == ""
    assert make_env.reason_to_install(root) == f"changed: {name}"


def test_a_cut_short_stamp_installs_again(root: Path) -> None:
    make_env.stamp_path(root).write_text('{"folder": ', encoding="utf-8")
    assert make_env.reason_to_install(root) == "no finished installation"


def test_a_missing_package_installs_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_env, "MUST_BE_FOUND", ("pytest", "no_such_package"))
    assert make_env.reason_to_install(root) == "missing: no_such_package"


def test_a_broken_or_moved_venv_is_made_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_env, "recorded", lambda root: {"folder": "another"})
    assert make_env.reason_to_rebuild(root, this_python=False) == "it was made for another folder"
    monkeypatch.setattr(make_env, "venv_python", lambda root: root / "gone")
    assert make_env.reason_to_rebuild(root, this_python=False) == "its Python does not start"


@pytest.mark.parametrize(("failing", "installer"), [((), "uv"), (("pip install uv",), "pip"), (("uv",), "pip")])
def test_pip_installs_when_uv_cannot(
    root: Path, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...], installer: str
) -> None:
    ran: list[str] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        what = "uv" if command[0].endswith("uv") else "pip install uv" if command[-1] == "uv" else "pip"
        ran.append(what)
        return subprocess.CompletedProcess(command, returncode=int(what in failing))

    monkeypatch.setattr(make_env.subprocess, "run", run)
    monkeypatch.setattr(make_env, "uv_environment", lambda python: {})
    assert make_env.install(root) == installer
    assert ran[-1] == installer


def test_uv_is_given_the_index_that_pip_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "mirror")
    assert make_env.uv_environment(Path(sys.executable))["UV_DEFAULT_INDEX"] == "mirror"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "own")
    assert make_env.uv_environment(Path(sys.executable))["UV_DEFAULT_INDEX"] == "own"
