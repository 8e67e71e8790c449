"""The counting benchmark at a tiny size: both ways count the same, and a missed target is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import pipeline as bench


@pytest.mark.parametrize("rows", [1, 266, 5000])
def test_both_ways_count_the_same_batches(rows: int) -> None:
    assert bench.plain(rows)["batches"] == bench.ours(rows)["batches"] > 0


def test_kept_lengths_count_as_those_at_hand(tmp_path: Path) -> None:
    assert bench.ours_from_disk(266, str(tmp_path))["batches"] == bench.ours(266)["batches"]


def test_a_missed_target_is_said_and_fails_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(function: Any, repeats: int, **arguments: Any) -> dict[str, Any]:
        plain = {name: value if isinstance(value, int) else str(value) for name, value in arguments.items()}
        figures = {"decoding": 2.0, **function(**json.loads(json.dumps(plain)))}
        return {"peak_mb": 100.0, **figures, "seconds": seconds}

    monkeypatch.setattr(bench, "measure", measured)
    monkeypatch.setattr(bench, "decoded", lambda: {"cpu": 0.1, "decoding": 2.0, "batches": 3, "rows": 9})
    given = ["--rows", "266", "--repeats", "1", "--output", str(tmp_path / "page.md")]
    seconds = 0.5
    assert bench.main(given) == 1
    assert "| < 0.1 s | 100 MB | **missed** |" in (tmp_path / "page.md").read_text(encoding="utf-8")
    seconds = 0.05
    assert bench.main(given) == 0
    assert "| met |" in (tmp_path / "page.md").read_text(encoding="utf-8")
