"""A tiny corpus and whole runs on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_spoken import LONG, Studio


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A run that nothing interrupted: three epochs of two updates."""
    made = Studio(tmp_path_factory.mktemp("finished"))
    outcome = made.train(**LONG)
    assert (outcome.status, outcome.step, outcome.horizon) == ("finished", 6, 6)
    return made
