"""Whole runs of a tiny model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CorpusMaker
from tests.tiny import make_tiny
from tests.tiny_voice import LATENTS, Bench
from tests.training.loop import LONG


@pytest.fixture
def bench(tmp_path: Path, make_tiny_corpus: CorpusMaker) -> Bench:
    return Bench(tmp_path, make_tiny_corpus(latents=LATENTS))


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("finished")
    made = Bench(folder, make_tiny(folder / "corpus", latents=LATENTS))
    outcome = made.train(**LONG)
    assert (outcome.status, outcome.step, outcome.horizon) == ("finished", 9, 9)
    return made


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the package logs, whether or not another test has sent its log elsewhere."""
    package = logging.getLogger("tts_kernel")
    before = package.propagate
    package.propagate = True
    with caplog.at_level(logging.INFO, logger="tts_kernel"):
        yield caplog
    package.propagate = before
