from __future__ import annotations

import re
from pathlib import Path

import torch

from benchmarks import cosyvoice2_attention


def test_every_network_is_measured_in_training_and_inference(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    threads = torch.get_num_threads()
    try:
        assert cosyvoice2_attention.main(["--seconds", "0.2", "--rounds", "1", "--output", str(page)]) == 0
    finally:
        torch.set_num_threads(threads)  # which other tests go on with
    shown = page.read_text(encoding="utf-8")
    assert "## Attention" in shown
    assert "Medians of 1 rounds, CPU time of one thread" in shown
    for name in ("estimator", "encoder", "Qwen2 layer"):
        for way in ("inference", "training"):
            times, ratio = r"( \d+\.\d ms \|){2}", r" \d+\.\d\dx \(\d+\.\d\d to \d+\.\d\d\) \|"
            assert re.search(rf"^\| {name}, 0\.2 s \| {way} \|{times}{ratio}$", shown, re.MULTILINE)
