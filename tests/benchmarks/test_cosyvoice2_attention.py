from __future__ import annotations

import re
import sys

import pytest
import torch

from benchmarks import cosyvoice2_attention

THREADS = ["--threads", str(torch.get_num_threads())]  # which other tests go on with


def test_every_network_is_measured_in_training_and_inference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["attention", "--seconds", "0.2", "--rounds", "1", *THREADS])
    assert cosyvoice2_attention.main() == 0
    shown = capsys.readouterr().out
    for name in ("estimator", "encoder", "Qwen2 layer"):
        for way in ("inference", "training"):
            assert re.search(rf"^{name} 0\.2 s +{way}( +\d+\.\d+){{3}}$", shown, re.MULTILINE)
