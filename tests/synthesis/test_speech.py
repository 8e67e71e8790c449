from __future__ import annotations

import numpy as np
import pytest
import torch

from tts_kernel.synthesis.speech import FADE, Speech, SynthesisError, fade, open_device

RATE = 24_000


def test_a_speech_knows_how_long_it_lasts_and_how_quick_it_was() -> None:
    speech = Speech(np.zeros(3 * RATE, np.float32), RATE, took=1.5)
    assert speech.seconds == 3.0
    assert speech.real_time_factor == 0.5


@pytest.mark.parametrize(("begins", "ends"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_part_fades_where_it_begins_and_where_it_ends(begins: bool, ends: bool) -> None:
    wav, edge = fade(np.ones(RATE, np.float32), RATE, begins=begins, ends=ends), int(FADE * RATE)
    assert (wav[0], wav[-1]) == (0.0 if begins else 1.0, 0.0 if ends else 1.0)
    assert (wav[edge:-edge] == 1.0).all()
    steps = np.diff(wav)
    assert (steps[:edge] >= 0).all()
    assert (steps[-edge:] <= 0).all()


@pytest.mark.parametrize("samples", [0, 1, 50])
def test_less_than_a_fade_fades_as_well(samples: int) -> None:
    wav = fade(np.ones(samples, np.float32), RATE)
    assert not wav[[0, -1]].any() if samples else len(wav) == 0


def test_devices_are_opened_by_name_and_unknown_ones_refused() -> None:
    assert open_device("cpu") == torch.device("cpu")
    assert open_device("auto").type in ("cpu", "cuda")
    with pytest.raises(SynthesisError, match=r"device is 'gpu' .*use auto, cpu, cuda or cuda:<number>"):
        open_device("gpu")
