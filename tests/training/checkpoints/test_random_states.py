from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from tts_kernel.training.checkpoints.file import save
from tts_kernel.training.checkpoints.random_states import random_state, set_random_state


def test_random_state_survives_a_checkpoint(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), *np.random.standard_normal(3), *torch.randn(3).tolist()]

    draw()  # leaves a second normal number waiting in Python's and in numpy's generator
    save(tmp_path / "x.pth", {"random": random_state()})
    expected = draw()
    draw()
    set_random_state(torch.load(tmp_path / "x.pth", weights_only=True)["random"])
    assert draw() == expected
