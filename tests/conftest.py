"""Fixtures for every room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import make_tiny

CorpusMaker = Callable[..., Path]


@pytest.fixture
def make_tiny_corpus(tmp_path: Path) -> CorpusMaker:
    """`make_tiny_corpus("name", speakers=2, ...)` -> data folder; sizes as the keywords of `make_tiny`."""
    return lambda name="corpus", **sizes: make_tiny(tmp_path / name, **sizes)


@pytest.fixture
def tiny_corpus(make_tiny_corpus: CorpusMaker) -> Path:
    """A data folder: 12 clips of 3 speakers in 24 training pairs, 6 more clips in 6 validation pairs."""
    return make_tiny_corpus()
