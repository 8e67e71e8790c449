from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks.training import saves


def test_both_kinds_of_save_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--gigabytes", "0.001", "--saves", "2", "--threads", "1", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["saves", *asked])
    saves.main()
    shown = capsys.readouterr().out
    assert re.search(r"^1\.\d MB and the weights again, 0\.\d MB; 1 threads$", shown, re.MULTILINE)
    for kind in ("synchronous", "background"):
        assert re.search(rf"^{kind} +\d+ +\d+ +-?\d+$", shown, re.MULTILINE)
    assert re.search(r"blocked for [\d.]+% of a synchronous save", shown)
    assert not list(tmp_path.iterdir())
