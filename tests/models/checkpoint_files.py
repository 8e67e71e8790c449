"""What the tests of each family's `load_weights` share: a fresh model, a file of other values, what comes of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tts_kernel.models.weights import CheckpointError, LoadReport

Make = Callable[[], nn.Module]
Load = Callable[[Any, Path], LoadReport]


def pair(fresh: Make, filled: Make) -> tuple[Any, dict[str, Tensor]]:
    """A fresh model, and the state of a checkpoint with other values everywhere."""
    torch.manual_seed(1)
    return fresh(), dict(filled().state_dict())


def write(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def assert_same(model: nn.Module, state: dict[str, Tensor]) -> None:
    """To the bit."""
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)


def assert_loads_strictly(load: Load, model: nn.Module, path: Path, state: dict[str, Tensor]) -> None:
    """All of it, with nothing left to say."""
    report = load(model, path)
    assert_same(model, state)
    assert report.loaded == len(state)
    assert str(report) == f"{len(state)} tensors loaded"


def assert_refused(load: Load, model: nn.Module, path: Path, said: Iterable[str]) -> None:
    """With an error that says all of `said`; the model stays as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        load(model, path)
    for text in (path.name, *said):
        assert text in str(raised.value)
    assert_same(model, before)
